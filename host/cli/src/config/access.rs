//! How customers reach pods.

use super::reader::Reader;
use paygress_core::model::access::{AccessMode, AccessModes};
use paygress_core::orders::PodAccess;
use std::ops::RangeInclusive;

/// How many pods without a port are sold at the same time, unless the operator says how many.
const MAX_LEASES: u32 = 100;

impl Reader {
    /// The ways that are sold, and how many pods there may be.
    pub(super) fn pod_access(&mut self) -> PodAccess {
        let (modes, ports) = (self.access_modes(), self.ports());
        let max_leases = self.number("MAX_LEASES", 1..=1_000_000);
        if max_leases.is_some() && modes.has_port() {
            self.problem("MAX_LEASES: is for ACCESS=gateway; pods with ports are as many as the ports of the range, or less");
        }
        let max_leases = max_leases.and_then(|number| u32::try_from(number).ok());
        PodAccess::new(modes, ports, max_leases.unwrap_or(MAX_LEASES))
    }

    /// Where customers log in to pods with ports.
    pub(super) fn ssh_host(&mut self) -> String {
        let host = self.needed("SSH_HOST");
        if !host.is_empty() {
            self.check_host("SSH_HOST", &host);
        }
        host
    }

    fn access_modes(&mut self) -> AccessModes {
        let names = self.names("ACCESS");
        let modes: Option<Vec<AccessMode>> =
            names.iter().map(|name| AccessMode::named(name)).collect();
        modes.and_then(|modes| AccessModes::new(modes).ok()).unwrap_or_else(|| {
            self.problem(
                "ACCESS: must be host-port, node-port or gateway, or several, separated by commas",
            );
            AccessModes::default()
        })
    }

    fn ports(&mut self) -> RangeInclusive<u16> {
        let ports = self.port("SSH_PORT_RANGE_START")..=self.port("SSH_PORT_RANGE_END");
        if ports.is_empty() {
            self.problem("SSH_PORT_RANGE_END: must not be less than SSH_PORT_RANGE_START");
        }
        ports
    }
}
