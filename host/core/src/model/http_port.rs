//! The HTTP port of a pod that browsers reach by a name of the pod's own.

use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;

/// Who reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpAccess {
    /// The lease's customer.
    #[default]
    Owner,
    /// Anybody who knows its name.
    Public,
}

/// A port of a pod on which an HTTP server of the customer's own listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpPort {
    port: NonZeroU16,
    access: HttpAccess,
}

impl HttpPort {
    /// None: there is no such port.
    #[must_use]
    pub fn new(port: u64, access: HttpAccess) -> Option<Self> {
        let port = NonZeroU16::new(u16::try_from(port).ok()?)?;
        Some(Self { port, access })
    }

    #[must_use]
    pub fn port(self) -> NonZeroU16 {
        self.port
    }

    #[must_use]
    pub fn access(self) -> HttpAccess {
        self.access
    }

    #[must_use]
    pub fn is_public(self) -> bool {
        self.access == HttpAccess::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_port_of_tcp() {
        for (number, is_port) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
            let port = HttpPort::new(number, HttpAccess::Owner);
            assert_eq!(port.map(|port| u64::from(port.port().get())), is_port.then_some(number));
        }
    }
}
