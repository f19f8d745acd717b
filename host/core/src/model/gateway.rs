//! The ways to pods beside the ports of nodes, as customers know them.

use crate::model::host_key::HostKey;

/// The ways to pods by a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayWays {
    pub jump_host: Option<JumpHostAddress>,
    pub iroh: Option<IrohAddress>,
}

/// The SSH jump host, as customers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JumpHostAddress {
    pub host: String,
    pub port: u16,
    pub host_key: HostKey,
}

/// The endpoint of iroh, as customers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IrohAddress {
    /// Its id and addresses, as one text.
    pub ticket: String,
    /// Its id alone, which stays.
    pub endpoint_id: String,
    /// What a client names before the name of its pod.
    pub protocol_prefix: String,
}

impl GatewayWays {
    /// Whether customers find the same in an offer. The endpoint's addresses are not in it.
    #[must_use]
    pub fn is_offered_as(&self, other: &Self) -> bool {
        let id = |ways: &Self| ways.iroh.as_ref().map(|iroh| iroh.endpoint_id.clone());
        self.jump_host == other.jump_host && id(self) == id(other)
    }
}
