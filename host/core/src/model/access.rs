//! The ways by which customers reach the SSH ports of their pods.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A way to the SSH port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessMode {
    /// A port of the node that the pod is on.
    HostPort,
    /// A port of every node, by a Service.
    NodePort,
    /// No port of a node: the gateway connects to the pod.
    Gateway,
}

impl AccessMode {
    pub const ALL: [Self; 3] = [Self::HostPort, Self::NodePort, Self::Gateway];

    /// Its name, as it is configured, stored and sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostPort => "host-port",
            Self::NodePort => "node-port",
            Self::Gateway => "gateway",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// Whether a pod that is reached so has a port of the nodes.
    #[must_use]
    pub fn has_port(self) -> bool {
        matches!(self, Self::HostPort | Self::NodePort)
    }
}

impl fmt::Display for AccessMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The ways that an operator sells; at least one. If a port of the nodes is among them, each pod
/// has one port. Where host port and node port are both sold, as by default, the pod's template
/// decides which of them it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<AccessMode>", into = "BTreeSet<AccessMode>")]
pub struct AccessModes(BTreeSet<AccessMode>);

/// No way at all: nobody could log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pod needs a way to reach it: host-port, node-port or gateway")]
pub struct NoAccess;

impl AccessModes {
    /// # Errors
    /// [`NoAccess`]: there is none among them.
    pub fn new(modes: impl IntoIterator<Item = AccessMode>) -> Result<Self, NoAccess> {
        Self::try_from(modes.into_iter().collect::<BTreeSet<_>>())
    }

    /// The gateway alone.
    #[must_use]
    pub fn gateway() -> Self {
        Self(BTreeSet::from([AccessMode::Gateway]))
    }

    #[must_use]
    pub fn contains(&self, mode: AccessMode) -> bool {
        self.0.contains(&mode)
    }

    /// Whether a port of the nodes is sold with each pod.
    #[must_use]
    pub fn has_port(&self) -> bool {
        self.modes().any(AccessMode::has_port)
    }

    /// In a fixed order.
    pub fn modes(&self) -> impl Iterator<Item = AccessMode> + '_ {
        self.0.iter().copied()
    }

    /// Whether these are the modes of pods of earlier versions: they are not stored then, so that
    /// the stored bytes stay the same.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for AccessModes {
    fn default() -> Self {
        Self(BTreeSet::from([AccessMode::HostPort, AccessMode::NodePort]))
    }
}

impl TryFrom<BTreeSet<AccessMode>> for AccessModes {
    type Error = NoAccess;

    fn try_from(modes: BTreeSet<AccessMode>) -> Result<Self, NoAccess> {
        if modes.is_empty() { Err(NoAccess) } else { Ok(Self(modes)) }
    }
}

impl From<AccessModes> for BTreeSet<AccessMode> {
    fn from(modes: AccessModes) -> Self {
        modes.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mode_has_one_spelling() {
        for mode in AccessMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
            assert_eq!(AccessMode::named(mode.as_str()), Some(mode));
        }
        assert_eq!(AccessMode::named("port"), None);
    }

    #[test]
    fn pods_have_a_way_and_a_port_unless_it_is_the_gateway_alone() {
        assert_eq!(AccessModes::new([]), Err(NoAccess));
        assert!(serde_json::from_value::<AccessModes>(json!([])).is_err());
        assert!(AccessModes::default().has_port() && AccessModes::default().is_default());
        assert!(!AccessModes::gateway().has_port() && !AccessModes::gateway().is_default());
        let both = AccessModes::new([AccessMode::Gateway, AccessMode::HostPort]).unwrap();
        assert!(both.has_port() && both.contains(AccessMode::Gateway));
        assert_eq!(serde_json::to_value(&both).unwrap(), json!(["host-port", "gateway"]));
    }
}
