//! How many requests to pods are under way.

use crate::limits;
use ipnet::IpNet;
use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::model::ids::PodName;
use paygress_core::networks::networks;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts them: all together, of each lease, and of each network.
pub(super) struct AppPermits {
    all: Arc<Semaphore>,
    of_leases: KeyedLimit<PodName>,
    of_networks: KeyedLimit<IpNet>,
}

/// Held until the last byte of the answer is sent, or as long as a WebSocket is open.
pub(super) struct AppPermit {
    _all: OwnedSemaphorePermit,
    _of_lease: Permit<PodName>,
    _of_networks: Vec<Permit<IpNet>>,
}

impl AppPermits {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits::APP_REQUESTS)),
            of_leases: KeyedLimit::default(),
            of_networks: KeyedLimit::default(),
        }
    }

    /// None: there are too many.
    pub(super) fn try_acquire(&self, pod: &PodName, client: IpAddr) -> Option<AppPermit> {
        let limited = networks(client).into_iter().zip(limits::APP_REQUESTS_OF_ONE);
        let of_networks: Option<Vec<Permit<IpNet>>> =
            limited.map(|(network, limit)| self.of_networks.try_acquire(network, limit)).collect();
        Some(AppPermit {
            _of_networks: of_networks?,
            _of_lease: self.of_leases.try_acquire(pod.clone(), limits::APP_REQUESTS_OF_LEASE)?,
            _all: Arc::clone(&self.all).try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn held(permits: &AppPermits, pod: &str, clients: u32) -> usize {
        let pod = &PodName::parse(pod).unwrap();
        let clients = (0..clients).map(|it| IpAddr::from(Ipv4Addr::from_bits(it << 16)));
        let held: Vec<AppPermit> = clients
            .flat_map(|client| std::iter::from_fn(move || permits.try_acquire(pod, client)))
            .collect();
        held.len()
    }

    #[test]
    fn neither_one_client_nor_one_lease_has_all() {
        let permits = AppPermits::new();
        assert_eq!(held(&permits, "ssh-pod-aaaaaaaaaa", 1), limits::APP_REQUESTS_OF_ONE[0]);
        assert_eq!(held(&permits, "ssh-pod-aaaaaaaaaa", 99), limits::APP_REQUESTS_OF_LEASE);
        const { assert!(limits::APP_REQUESTS_OF_LEASE < limits::APP_REQUESTS) };
        assert_eq!(held(&permits, "ssh-pod-bbbbbbbbbb", 1), limits::APP_REQUESTS_OF_ONE[0]);
    }
}
