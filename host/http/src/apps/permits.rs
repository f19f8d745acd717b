//! Limits of the requests to pods that are under way at the same time.

use crate::limits;
use ipnet::IpNet;
use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::model::ids::PodName;
use paygress_core::networks::{NETWORKS, networks};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who sends a request to a pod's site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visitor {
    /// The pod's customer, logged in.
    Customer,
    /// Anybody, since the port is public.
    Anybody,
}

/// Counts the requests under way: of all pods together, of each lease, of each network that clients
/// are in, and, for public ports, of each network at each lease.
pub(super) struct AppPermits {
    all: Arc<Semaphore>,
    of_leases: KeyedLimit<PodName>,
    of_networks: KeyedLimit<IpNet>,
    of_visitors: KeyedLimit<(PodName, IpNet)>,
}

/// Held until the last byte of the answer is sent, or as long as a WebSocket is open.
pub(super) struct AppPermit {
    _all: OwnedSemaphorePermit,
    _of_lease: Permit<PodName>,
    _of_networks: Vec<Permit<IpNet>>,
    _of_visitor: Vec<Permit<(PodName, IpNet)>>,
}

impl AppPermits {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits::APP_REQUESTS)),
            of_leases: KeyedLimit::default(),
            of_networks: KeyedLimit::default(),
            of_visitors: KeyedLimit::default(),
        }
    }

    /// None: there are too many.
    pub(super) fn try_acquire(
        &self,
        pod: &PodName,
        client: IpAddr,
        visitor: Visitor,
    ) -> Option<AppPermit> {
        let of_networks =
            of_each_network(client, limits::APP_REQUESTS_OF_ONE, |network, limit| {
                self.of_networks.try_acquire(network, limit)
            })?;
        // Visitors from one network cannot use all requests of a lease; its customer may.
        let of_visitor = match visitor {
            Visitor::Customer => Vec::new(),
            Visitor::Anybody => {
                of_each_network(client, limits::APP_VISITS_OF_ONE, |network, limit| {
                    self.of_visitors.try_acquire((pod.clone(), network), limit)
                })?
            }
        };
        Some(AppPermit {
            _of_networks: of_networks,
            _of_visitor: of_visitor,
            _of_lease: self.of_leases.try_acquire(pod.clone(), limits::APP_REQUESTS_OF_LEASE)?,
            _all: Arc::clone(&self.all).try_acquire_owned().ok()?,
        })
    }
}

/// A permit of each network of a client. None: there are too many in one of them.
fn of_each_network<K: Eq + Hash>(
    client: IpAddr,
    limits: [usize; NETWORKS],
    try_acquire: impl Fn(IpNet, usize) -> Option<Permit<K>>,
) -> Option<Vec<Permit<K>>> {
    networks(client).into_iter().zip(limits).map(|(network, of)| try_acquire(network, of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const POD: &str = "ssh-pod-aaaaaaaaaa";

    /// As many as these clients get.
    fn held(
        permits: &AppPermits,
        pod: &str,
        visitor: Visitor,
        clients: impl Iterator<Item = u32>,
    ) -> Vec<AppPermit> {
        let pod = &PodName::parse(pod).unwrap();
        let clients = clients.map(|it| IpAddr::from(Ipv4Addr::from_bits(it)));
        let held = clients.flat_map(|client| {
            std::iter::from_fn(move || permits.try_acquire(pod, client, visitor))
        });
        held.collect()
    }

    /// One of each provider's.
    fn everywhere() -> impl Iterator<Item = u32> {
        (0..99).map(|provider| provider << 16)
    }

    #[test]
    fn neither_one_client_nor_one_lease_has_all() {
        let of_one = |pod, permits: &AppPermits| {
            held(permits, pod, Visitor::Customer, std::iter::once(7)).len()
        };
        let permits = AppPermits::new();
        assert_eq!(of_one(POD, &permits), limits::APP_REQUESTS_OF_ONE[0]);
        for visitor in [Visitor::Customer, Visitor::Anybody] {
            let held = held(&permits, POD, visitor, everywhere());
            assert_eq!(held.len(), limits::APP_REQUESTS_OF_LEASE, "{visitor:?}");
        }
        const { assert!(limits::APP_REQUESTS_OF_LEASE < limits::APP_REQUESTS) };
        assert_eq!(of_one("ssh-pod-bbbbbbbbbb", &permits), limits::APP_REQUESTS_OF_ONE[0]);
    }

    #[test]
    fn no_network_holds_all_that_a_public_port_has() {
        let [address, site, provider] = limits::APP_VISITS_OF_ONE;
        let networks: [(Vec<u32>, usize); 3] = [
            (vec![0x0a00_0001], address),
            ((0x0a00_0000..0x0a00_0100).collect(), site),
            ((0x0a00_0000..0x0a01_0000).step_by(0x100).collect(), provider),
        ];
        for (clients, most) in networks {
            let permits = AppPermits::new();
            let slow = held(&permits, POD, Visitor::Anybody, clients.into_iter());
            assert_eq!(slow.len(), most);
            let others = held(&permits, POD, Visitor::Anybody, std::iter::once(0x0b00_0001));
            assert!(others.len() >= limits::APP_REQUESTS_OF_LEASE - provider);
            drop(others);
            let other = "ssh-pod-bbbbbbbbbb";
            assert!(
                !held(&permits, other, Visitor::Anybody, std::iter::once(0x0a00_0001)).is_empty()
            );
            let customers = held(&permits, POD, Visitor::Customer, std::iter::once(0x0b00_0001));
            assert!(!customers.is_empty());
        }
    }
}
