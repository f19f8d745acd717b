//! Limits of the requests to pods that are under way at the same time.

use crate::limits;
use ipnet::IpNet;
use paygress_core::keyed_limit::{KeyedLimit, Permit, share, try_acquire_of_all};
use paygress_core::model::ids::PodName;
use paygress_core::networks::{NETWORKS, networks};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Who sends a request to a pod's site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Visitor {
    /// The pod's customer, logged in.
    Customer,
    /// Anybody, since the port is public.
    Anybody,
}

/// Counts the requests under way: of all pods together, of each lease, of each network that clients
/// are in, and, for public ports, of each network at each lease. The fewer are free, the fewer one of
/// them may have. Customers have their own: others from their network, or at other pods, take nothing
/// of it.
pub(super) struct AppPermits {
    of_customers: Arc<Semaphore>,
    of_others: Arc<Semaphore>,
    of_leases: KeyedLimit<PodName>,
    of_networks: KeyedLimit<(Visitor, IpNet)>,
    of_visitors: KeyedLimit<(PodName, IpNet)>,
    /// Held while one is taken: who fails has taken some meanwhile, for which no other one fails.
    taking: Mutex<()>,
    released: Arc<Notify>,
    waiting: Arc<Semaphore>,
    waiting_of_networks: KeyedLimit<IpNet>,
}

/// Held until the last byte of the answer is sent, or as long as a WebSocket is open.
pub(super) struct AppPermit {
    _all: OwnedSemaphorePermit,
    _of_lease: Permit<PodName>,
    _of_networks: Vec<Permit<(Visitor, IpNet)>>,
    _of_visitor: Vec<Permit<(PodName, IpNet)>>,
    /// The last one: the others are free by then.
    _released: Released,
}

/// Wakes those who wait.
struct Released(Arc<Notify>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl AppPermits {
    pub(super) fn new() -> Self {
        Self {
            of_customers: Arc::new(Semaphore::new(limits::APP_REQUESTS)),
            of_others: Arc::new(Semaphore::new(limits::APP_REQUESTS)),
            of_leases: KeyedLimit::default(),
            of_networks: KeyedLimit::default(),
            of_visitors: KeyedLimit::default(),
            taking: Mutex::default(),
            released: Arc::default(),
            waiting: Arc::new(Semaphore::new(limits::APP_WAITING)),
            waiting_of_networks: KeyedLimit::default(),
        }
    }

    /// Waits for a while where there are too many. None: there still are, or too many wait.
    pub(super) async fn acquire(
        &self,
        pod: &PodName,
        client: IpAddr,
        visitor: Visitor,
    ) -> Option<AppPermit> {
        if let Some(permit) = self.try_acquire(pod, client, visitor) {
            return Some(permit);
        }
        let (_of_all, free) = try_acquire_of_all(&self.waiting)?;
        let most = share(limits::APP_WAITING_OF_ONE, free, limits::APP_WAITING);
        let [network, _, _] = networks(client);
        let _of_network = self.waiting_of_networks.try_acquire(network, most)?;
        let acquiring = async {
            loop {
                // It notices what is released from here on.
                let released = self.released.notified();
                if let Some(permit) = self.try_acquire(pod, client, visitor) {
                    return permit;
                }
                released.await;
            }
        };
        tokio::time::timeout(limits::APP_WAIT, acquiring).await.ok()
    }

    /// None: there are too many. What is wide is counted first: of several at once each sees the others.
    pub(super) fn try_acquire(
        &self,
        pod: &PodName,
        client: IpAddr,
        visitor: Visitor,
    ) -> Option<AppPermit> {
        let all = match visitor {
            Visitor::Customer => &self.of_customers,
            Visitor::Anybody => &self.of_others,
        };
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_all, free) = try_acquire_of_all(all)?;
        let share_of_all = |most| share(most, free, limits::APP_REQUESTS);
        let most_of_lease = share_of_all(limits::APP_REQUESTS_OF_LEASE);
        let of_lease = self.of_leases.try_acquire(pod.clone(), most_of_lease)?;
        let limits_of_networks = limits::APP_REQUESTS_OF_ONE.map(share_of_all);
        let of_networks = of_each_network(client, limits_of_networks, |network, limit| {
            self.of_networks.try_acquire((visitor, network), limit)
        })?;
        let of_visitor = match visitor {
            Visitor::Customer => Vec::new(),
            Visitor::Anybody => self.of_visitor(pod, client, most_of_lease)?,
        };
        Some(AppPermit {
            _all: of_all,
            _of_lease: of_lease,
            _of_networks: of_networks,
            _of_visitor: of_visitor,
            _released: Released(Arc::clone(&self.released)),
        })
    }

    /// Of what the lease has, in which this one is counted.
    fn of_visitor(
        &self,
        pod: &PodName,
        client: IpAddr,
        most_of_lease: usize,
    ) -> Option<Vec<Permit<(PodName, IpNet)>>> {
        let free = most_of_lease.saturating_sub(self.of_leases.count(pod)).saturating_add(1);
        let limits = limits::APP_VISITS_OF_ONE.map(|most| share(most, free, most_of_lease));
        of_each_network(client, limits, |network, limit| {
            self.of_visitors.try_acquire((pod.clone(), network), limit)
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
    use futures::{FutureExt, poll};
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

    /// One of each provider's: of more than there are requests.
    fn everywhere() -> impl Iterator<Item = u32> {
        (0..1_024).map(|provider| provider << 16)
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
    fn requests_to_pods_leave_some_of_a_networks_connections() {
        let held = limits::APP_REQUESTS_OF_ONE.into_iter().zip(limits::CONNECTIONS_OF_ONE);
        for (requests, connections) in held {
            // Those of customers, and as many of others.
            let held = 2 * requests + limits::TERMINALS_OF_ONE + limits::STREAMS_OF_ONE;
            assert!(held < connections, "{held} of {connections}");
        }
    }

    #[test]
    fn no_network_holds_all_that_a_public_port_has() {
        let [address, site, _] = limits::APP_VISITS_OF_ONE;
        let networks: [(Vec<u32>, usize); 3] = [
            (vec![0x0a00_0001], address),
            ((0x0a00_0000..0x0a00_0100).collect(), site),
            // With half of all its share is smaller.
            (
                (0x0a00_0000..0x0a01_0000).step_by(0x100).collect(),
                limits::APP_REQUESTS_OF_LEASE / 2,
            ),
        ];
        for (clients, most) in networks {
            let permits = AppPermits::new();
            let slow = held(&permits, POD, Visitor::Anybody, clients.into_iter());
            assert_eq!(slow.len(), most);
            let others = held(&permits, POD, Visitor::Anybody, std::iter::once(0x0b00_0001));
            assert!(others.len() >= address / 4, "{}", others.len());
            drop(others);
            let other = "ssh-pod-bbbbbbbbbb";
            assert!(
                !held(&permits, other, Visitor::Anybody, std::iter::once(0x0a00_0001)).is_empty()
            );
            let customers = held(&permits, POD, Visitor::Customer, std::iter::once(0x0b00_0001));
            assert!(!customers.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_another_one_to_end_but_not_for_long() {
        let permits = AppPermits::new();
        let (pod, client) = (PodName::parse(POD).unwrap(), IpAddr::from(Ipv4Addr::from_bits(7)));
        let acquire = || permits.acquire(&pod, client, Visitor::Customer);
        let mut held = held(&permits, POD, Visitor::Customer, std::iter::once(7));
        assert!(acquire().await.is_none(), "none ends");
        let mut waiting = Box::pin(acquire());
        assert!(poll!(&mut waiting).is_pending());
        held.pop();
        let permit = waiting.await;
        assert!(permit.is_some());
        // There is an end to how many wait.
        let mut all: Vec<_> =
            (0..limits::APP_WAITING_OF_ONE).map(|_| Box::pin(acquire())).collect();
        for waiting in &mut all {
            assert!(poll!(waiting).is_pending());
        }
        assert!(acquire().now_or_never().is_some_and(|permit| permit.is_none()));
        let other = IpAddr::from(Ipv4Addr::from_bits(7 << 16));
        assert!(permits.acquire(&pod, other, Visitor::Customer).await.is_some());
        drop(permit);
        assert!(all.swap_remove(0).await.is_some());
    }

    /// Each has thousands of addresses, and takes all that it may.
    #[test]
    fn several_networks_leave_some_of_a_public_port_to_who_has_none() {
        let permits = AppPermits::new();
        let of_provider =
            |provider: u32| (0..0x1_0000).step_by(0x80).map(move |it| (provider << 16) | it);
        let slow = held(&permits, POD, Visitor::Anybody, (0..6).flat_map(of_provider));
        assert!(slow.len() < limits::APP_REQUESTS_OF_LEASE, "{}", slow.len());
        let mut others = Vec::new();
        for provider in 6..20 {
            let one = held(&permits, POD, Visitor::Anybody, std::iter::once(provider << 16));
            assert!(!one.is_empty(), "provider {provider}");
            others.extend(one);
        }
        assert!(held(&permits, POD, Visitor::Anybody, of_provider(0)).is_empty());
        drop((slow, others));
        let alone = held(&permits, POD, Visitor::Anybody, std::iter::once(7));
        assert_eq!(alone.len(), limits::APP_VISITS_OF_ONE[0], "what has ended counts no more");
    }

    #[test]
    fn visitors_of_public_ports_take_nothing_of_what_customers_have() {
        let permits = AppPermits::new();
        let mut visits = Vec::new();
        for name in 'a'..='y' {
            let pod = format!("ssh-pod-{}", name.to_string().repeat(10));
            let of_pod = held(&permits, &pod, Visitor::Anybody, everywhere());
            assert!(!of_pod.is_empty(), "the visitors of other pods leave some to those of {pod}");
            visits.extend(of_pod);
        }
        assert!(visits.len() > limits::APP_REQUESTS / 2);
        // One of those is at the same address.
        let customers =
            held(&permits, "ssh-pod-zzzzzzzzzz", Visitor::Customer, everywhere().take(1));
        assert_eq!(customers.len(), limits::APP_REQUESTS_OF_ONE[0]);
    }

    #[test]
    fn some_customers_leave_room_for_others() {
        let permits = AppPermits::new();
        let mut all = Vec::new();
        for name in 'a'..='z' {
            let pod = format!("ssh-pod-{}", name.to_string().repeat(10));
            let of_pod = held(&permits, &pod, Visitor::Customer, everywhere());
            assert!(!of_pod.is_empty(), "{pod}");
            all.extend(of_pod);
        }
        assert!(all.len() <= limits::APP_REQUESTS);
    }
}
