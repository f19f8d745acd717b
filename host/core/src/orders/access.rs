//! How customers reach pods, and how many pods that allows.

use crate::model::access::AccessModes;
use std::ops::RangeInclusive;

/// What the operator sells of it.
#[derive(Clone, Debug)]
pub struct PodAccess {
    modes: AccessModes,
    ports: RangeInclusive<u16>,
    max_leases: u32,
}

impl PodAccess {
    /// Where one of the modes has a port, pods have one of these each; or else there are at most
    /// `max_leases` pods at the same time.
    #[must_use]
    pub fn new(modes: AccessModes, ports: RangeInclusive<u16>, max_leases: u32) -> Self {
        Self { modes, ports, max_leases }
    }

    /// One of these ports for each pod, a host port or a node port.
    #[must_use]
    pub fn by_ports(ports: RangeInclusive<u16>) -> Self {
        Self::new(AccessModes::default(), ports, 0)
    }

    #[must_use]
    pub fn modes(&self) -> &AccessModes {
        &self.modes
    }

    /// The ports for pods; none where these have no port.
    #[must_use]
    pub fn ports(&self) -> Option<&RangeInclusive<u16>> {
        self.modes.has_port().then_some(&self.ports)
    }

    /// How many pods there may be at the same time without a port.
    #[must_use]
    pub fn max_leases(&self) -> u32 {
        self.max_leases
    }

    /// How many pods there may be at the same time.
    pub(super) fn places(&self) -> u32 {
        self.ports().map_or(self.max_leases, |ports| {
            u32::from(ports.end().saturating_sub(*ports.start())).saturating_add(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::access::AccessMode;

    #[test]
    fn ports_are_the_places_where_pods_have_any() {
        let by_ports = PodAccess::by_ports(20_000..=20_009);
        assert_eq!((by_ports.places(), by_ports.ports()), (10, Some(&(20_000..=20_009))));
        let without = PodAccess::new(AccessModes::gateway(), 20_000..=20_009, 7);
        assert_eq!((without.places(), without.ports()), (7, None));
        let both = AccessModes::new([AccessMode::NodePort, AccessMode::Gateway]).unwrap();
        assert_eq!(PodAccess::new(both, 1..=3, 7).places(), 3);
    }
}
