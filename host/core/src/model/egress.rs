//! What a pod may connect to, where its policy says so.

use serde::{Deserialize, Serialize};

/// Networks, and ports of theirs, as a policy returned them: not trusted until the cluster's guard
/// has read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRule {
    /// As `192.0.2.0/24` or `2001:db8::/32`; without any, the public internet.
    pub cidrs: Vec<String>,
    /// Without any, all that pods may connect to.
    pub ports: Vec<PortRange>,
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub protocol: Protocol,
    pub first: u16,
    /// Included.
    pub last: u16,
}

/// What ports are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}
