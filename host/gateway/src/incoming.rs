//! Connections of iroh to the SSH ports of pods.
//!
//! ```text
//! incoming ─▶ protocol ─▶ rates ─▶ is the lease live? ─▶ handshake ─▶ limits ─▶ stream ─▶ PodStreams
//!             names the            LeaseAccess           endpoint id
//!             pod
//! ```
//!
//! The list of protocols that the endpoint accepts is made for each connection, by what it names:
//! leases come and go without the endpoint being changed.

use crate::alpn;
use crate::close::CloseReason;
use crate::endpoint::{IrohEndpoint, accept};
use crate::limits;
use crate::metrics::Rejection;
use crate::origin::{Origin, groups};
use crate::proof::{Proof, ProofReader, Sides};
use crate::pump;
use crate::rates::{NetworkRates, Rates};
use crate::shared::{SessionPermit, Shared};
use crate::startups::{Startup, Startups};
use crate::windows::{WindowPermit, WindowPermits};
use ipnet::IpNet;
use iroh::endpoint::{Connection, Incoming, IncomingAddr, VarInt};
use iroh::{Endpoint, EndpointId};
use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::model::ids::PodName;
use paygress_core::networks::{NETWORKS, customer_network};
use paygress_sshd::{EarlyDrop, is_set};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where a connection comes from, before it has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Network(IpAddr),
    /// By a relay, which has verified this.
    Relayed(EndpointId),
    Other,
}

impl From<IncomingAddr> for Source {
    fn from(addr: IncomingAddr) -> Self {
        match addr {
            IncomingAddr::Ip(addr) => Self::Network(customer_network(addr.ip())),
            IncomingAddr::Relay { endpoint_id, .. } => Self::Relayed(endpoint_id),
            _ => Self::Other,
        }
    }
}

impl Source {
    fn origin(&self) -> Origin {
        match self {
            Self::Network(network) => Some(*network),
            Self::Relayed(_) | Self::Other => None,
        }
    }
}

/// The handshakes of an endpoint: none yet.
fn handshakes() -> Startups<Source> {
    let of_all = EarlyDrop::new(limits::HANDSHAKES);
    Startups::new(of_all, EarlyDrop::new(limits::HANDSHAKES_OF_ONE), Source::origin)
}

/// How often clients connect.
struct SourceRates {
    unvalidated: NetworkRates,
    of_networks: NetworkRates,
    of_others: Rates<Source>,
    refusals_of_others: Rates<Source>,
}

impl SourceRates {
    fn new() -> Self {
        let [of_one, _, _] = limits::OF_SOURCE;
        Self {
            unvalidated: NetworkRates::new(limits::UNVALIDATED_OF_SOURCE, limits::RATED),
            of_networks: NetworkRates::new(limits::OF_SOURCE, limits::RATED),
            of_others: Rates::new(of_one, limits::RATED),
            refusals_of_others: Rates::new(of_one, limits::RATED),
        }
    }

    /// Whether a client need not prove first that this address is its own.
    fn allow_unvalidated(&self, address: IpAddr) -> bool {
        self.unvalidated.allows(address)
    }

    fn allow(&self, source: &Source) -> bool {
        match source {
            Source::Network(address) => self.of_networks.allows(*address),
            Source::Relayed(_) | Source::Other => self.of_others.allows(source),
        }
    }

    /// Whether one that is not allowed gets an answer. All that come by a relay have one way back, and
    /// a flood that is answered fills it.
    fn allow_refusal(&self, source: &Source) -> bool {
        match source {
            Source::Network(_) => true,
            Source::Relayed(_) | Source::Other => self.refusals_of_others.allows(source),
        }
    }
}

/// How often somebody connects to one lease, from each of the networks that they are in.
struct LeaseRates([Rates<(PodName, Option<IpNet>)>; NETWORKS]);

impl LeaseRates {
    fn new() -> Self {
        Self(limits::OF_LEASE.map(|allowance| Rates::new(allowance, limits::RATED)))
    }

    /// The narrowest network counts first: what it refuses is not counted in the wider ones, which
    /// others share.
    fn allow(&self, pod: &PodName, origin: Origin) -> bool {
        let mut rates = self.0.iter().zip(groups(origin));
        rates.all(|(rates, group)| rates.allows(&(pod.clone(), group)))
    }
}

/// What bounds the connections of an endpoint.
struct Gate {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    handshakes: Startups<Source>,
    sources: SourceRates,
    leases: LeaseRates,
    endpoints: KeyedLimit<EndpointId>,
    windows: WindowPermits,
}

/// Serves until `stop` is set, then closes the endpoint. One that fails is opened again: the gateway's
/// other ways go on meanwhile.
pub(crate) async fn serve(
    endpoint: IrohEndpoint,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        if let Some(open) = endpoint.endpoint() {
            let gate = Arc::new(Gate::new(open, Arc::clone(&shared)));
            serve_open(&endpoint, gate, stop.clone()).await;
        }
        tokio::select! {
            biased;
            () = is_set(&mut stop) => return,
            () = endpoint.reopen() => {}
        }
    }
}

/// Serves until the endpoint fails or `stop` is set, then closes it.
async fn serve_open(endpoint: &IrohEndpoint, gate: Arc<Gate>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            () = is_set(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            incoming = gate.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            tracing::error!("the endpoint of iroh has failed; it is opened again");
            endpoint.forget();
            break;
        };
        let Some((incoming, handshake)) = gate.admit(incoming) else { continue };
        connections.spawn(Arc::clone(&gate).serve(incoming, handshake, stop.clone()));
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits::STOP_GRACE, ended).await;
    // What is left is closed with it, and its clients learn of it.
    connections.abort_all();
    let _ = tokio::time::timeout(limits::STOP_GRACE, gate.endpoint.close()).await;
}

/// A connection that has passed all checks.
struct Admitted {
    connection: Connection,
    pod: PodName,
    session: SessionPermit,
    _of_endpoint: Permit<EndpointId>,
    _window: WindowPermit,
}

impl Gate {
    fn new(endpoint: Endpoint, shared: Arc<Shared>) -> Self {
        Self {
            endpoint,
            shared,
            handshakes: handshakes(),
            sources: SourceRates::new(),
            leases: LeaseRates::new(),
            endpoints: KeyedLimit::default(),
            windows: WindowPermits::default(),
        }
    }

    /// Refuses a source that connects too often, before a handshake costs anything. Another handshake
    /// may be dropped for one that is admitted.
    fn admit(&self, incoming: Incoming) -> Option<(Incoming, Startup<Source>)> {
        let source = Source::from(incoming.remote_addr());
        let unvalidated = source.origin().filter(|_| !incoming.remote_addr_validated());
        if let Some(address) = unvalidated {
            let is_busy = self.handshakes.held() >= limits::UNVALIDATED_HANDSHAKES;
            if is_busy || !self.sources.allow_unvalidated(address) {
                // An address that is forged does not come back.
                let _ = incoming.retry();
                return None;
            }
        } else if !self.sources.allow(&source) {
            if self.sources.allow_refusal(&source) {
                return self.refuse(incoming, Rejection::TooFast);
            }
            self.shared.counts.reject(Rejection::TooFast);
            incoming.ignore();
            return None;
        }
        Some((incoming, self.handshakes.admit(source)))
    }

    fn refuse<T>(&self, incoming: Incoming, reason: Rejection) -> Option<T> {
        self.shared.counts.reject(reason);
        incoming.refuse();
        None
    }

    async fn serve(
        self: Arc<Self>,
        incoming: Incoming,
        handshake: Startup<Source>,
        mut stop: watch::Receiver<bool>,
    ) {
        let shaken = tokio::time::timeout(limits::HANDSHAKE, Box::pin(self.shake(incoming)));
        let admitted = tokio::select! {
            () = is_set(&mut stop) => return,
            () = handshake.progress.dropped() => {
                self.shared.counts.reject(Rejection::NotAuthenticated);
                return;
            }
            shaken = shaken => match shaken {
                Ok(admitted) => admitted,
                Err(_) => {
                    self.shared.counts.reject(Rejection::NotAuthenticated);
                    return;
                }
            },
        };
        drop(handshake);
        let Some(mut admitted) = admitted else { return };
        let Admitted { connection, pod, session, .. } = &mut admitted;
        let (connection, pod) = (&*connection, &*pod);
        let (sides, proof) = Proof::of_session();
        // It holds the stream, which must not end before the connection does: to the client that
        // would be the pod's end.
        let mut carry = pin!(self.carry(connection, pod, sides));
        tokio::select! {
            () = &mut carry => {}
            () = self.shared.access.ended(pod) => close(connection, CloseReason::LeaseEnded),
            () = is_set(&mut stop) => close(connection, CloseReason::Stopping),
            () = session.place.lost(proof.given(limits::POD_LOGIN_GRACE)) => {
                self.shared.counts.reject(Rejection::NotAuthenticated);
                close(connection, CloseReason::TooMany);
            }
        }
    }

    /// The handshake, if the client names a live lease that has room.
    async fn shake(&self, incoming: Incoming) -> Option<Admitted> {
        let named = named(&incoming);
        let origin = Source::from(incoming.remote_addr()).origin();
        let is_live = match &named {
            Some(pod) => self.shared.is_live(pod).await,
            None => Some(false),
        };
        let Some(is_live) = is_live else {
            incoming.refuse();
            return None;
        };
        let Some(pod) = named.filter(|_| is_live) else {
            self.shared.counts.reject(Rejection::UnknownLease);
            // The alert of TLS that there is no such protocol is what any client understands.
            let (protocol, window) = (alpn::BARE.to_vec(), limits::LEAST_QUIC_WINDOW);
            drop(accept(&self.endpoint, incoming, protocol, window).await);
            return None;
        };
        if !self.leases.allow(&pod, origin) {
            return self.refuse(incoming, Rejection::TooFast);
        }
        let window = self.windows.acquire();
        let protocol = alpn::of_pod(&pod);
        let connection = accept(&self.endpoint, incoming, protocol, window.bytes).await?;
        let id = connection.remote_id();
        let of_endpoint = self.endpoints.try_acquire(id, limits::CONNECTIONS_OF_ENDPOINT);
        let Some(of_endpoint) = of_endpoint else {
            self.shared.counts.reject(Rejection::TooMany);
            close(&connection, CloseReason::TooMany);
            return None;
        };
        let Some(session) = self.shared.begin_unproven(&pod, origin) else {
            close(&connection, CloseReason::TooMany);
            return None;
        };
        Some(Admitted { connection, pod, session, _of_endpoint: of_endpoint, _window: window })
    }

    /// Carries the connection's one stream to the pod and back, then closes the connection.
    async fn carry(&self, connection: &Connection, pod: &PodName, sides: Sides) {
        let stream = tokio::time::timeout(limits::FIRST_STREAM, connection.accept_bi()).await;
        let (send, receive) = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return close(connection, CloseReason::Done),
            Err(_) => {
                self.shared.counts.reject(Rejection::NotAuthenticated);
                return close(connection, CloseReason::Silent);
            }
        };
        let Some(stream) = self.shared.open(pod).await else {
            return close(connection, CloseReason::Unreachable);
        };
        let (from_pod, to_pod) = tokio::io::split(stream);
        let receive = ProofReader::new(receive, sides.client);
        let from_pod = ProofReader::new(from_pod, sides.pod);
        let carried = async {
            let (up, down) = (pump::copy(receive, to_pod), pump::copy(from_pod, send));
            pump::both(up, down, limits::LINGER).await;
            // Who receives last knows when all has arrived, and closes.
            let _ = tokio::time::timeout(limits::LINGER, connection.closed()).await;
        };
        tokio::select! {
            () = carried => {}
            // The pod's side may be quiet: nobody is left to copy for.
            _ = connection.closed() => {}
        }
        close(connection, CloseReason::Done);
    }
}

/// The pod that the client names first.
fn named(incoming: &Incoming) -> Option<PodName> {
    let offered = incoming.decrypt()?.alpns()?;
    offered.flatten().find_map(|protocol| alpn::pod(&protocol))
}

fn close(connection: &Connection, reason: CloseReason) {
    connection.close(VarInt::from_u32(reason.code()), reason.text().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn of_site(number: u128) -> Source {
        let site = (0x2001_0db8_0001_u128 << 80) | (number << 64);
        Source::Network(customer_network(Ipv6Addr::from_bits(site).into()))
    }

    /// By a relay each has as many sources as they like.
    #[test]
    fn who_connects_too_often_keeps_nobody_from_elsewhere_out() {
        let (leases, pod) = (LeaseRates::new(), Shared::pod_name("ssh-pod-aaaaaaaaaa").unwrap());
        let relayed = Source::Relayed(iroh::SecretKey::generate().public()).origin();
        let direct = Source::Network([192, 0, 2, 7].into()).origin();
        let flood = (0..1_000).filter(|_| leases.allow(&pod, relayed)).count();
        assert!((128..1_000).contains(&flood), "{flood}");
        let other = Source::Relayed(iroh::SecretKey::generate().public()).origin();
        assert!(!leases.allow(&pod, other), "it is the same flood");
        assert!(leases.allow(&pod, direct));
    }

    /// Neither of their connections nor of those to one lease.
    #[test]
    fn whoever_forges_addresses_uses_up_nothing_of_their_owners() {
        let (sources, direct) = (SourceRates::new(), IpAddr::from([192, 0, 2, 7]));
        let forged = (0..10_000).filter(|_| sources.allow_unvalidated(direct)).count();
        assert!((32..1_000).contains(&forged), "{forged}");
        let [[_, at_once], ..] = limits::OF_SOURCE;
        assert!((0..at_once).all(|_| sources.allow(&Source::Network(direct))));
        for (unvalidated, of_lease) in limits::UNVALIDATED_OF_SOURCE.iter().zip(limits::OF_LEASE) {
            assert!(unvalidated.iter().zip(of_lease).all(|(one, lease)| *one < lease));
        }
    }

    #[test]
    fn who_floods_by_a_relay_is_not_answered_each_time() {
        let relayed = || Source::Relayed(iroh::SecretKey::generate().public());
        let (sources, flood) = (SourceRates::new(), relayed());
        let allowed = (0..10_000).filter(|_| sources.allow(&flood)).count();
        let refused = (0..10_000).filter(|_| sources.allow_refusal(&flood)).count();
        for count in [allowed, refused] {
            assert!((64..1_000).contains(&count), "{count}");
        }
        let other = relayed();
        assert!(sources.allow(&other) && sources.allow_refusal(&other));
        let direct = Source::Network([192, 0, 2, 7].into());
        assert!((0..10_000).all(|_| sources.allow_refusal(&direct)), "it has a way of its own");
    }

    /// What one network is allowed at once, a site of 65 536 networks must not have as many times.
    #[test]
    fn a_site_with_many_addresses_connects_no_more_often_than_a_site_may() {
        let (sources, leases) = (SourceRates::new(), LeaseRates::new());
        let pod = Shared::pod_name("ssh-pod-aaaaaaaaaa").unwrap();
        let allowed = (0..10_000).filter(|number| sources.allow(&of_site(*number))).count();
        assert!((64..1_000).contains(&allowed), "{allowed}");
        let origins = (0..10_000).map(|number| of_site(number).origin());
        let allowed = origins.filter(|origin| leases.allow(&pod, *origin)).count();
        assert!((128..1_000).contains(&allowed), "{allowed}");
        let elsewhere = Source::Network([192, 0, 2, 7].into());
        assert!(sources.allow(&elsewhere) && leases.allow(&pod, elsewhere.origin()));
    }

    /// A site of IPv6 has 65 536 networks, each of which is an address of its own.
    #[test]
    fn handshakes_that_are_held_keep_nobody_out() {
        let handshakes = handshakes();
        let [_, _, full] = limits::HANDSHAKES;
        let mut held: Vec<Startup<Source>> =
            (0..1_000).map(|number| handshakes.admit(of_site(number))).collect();
        assert!(handshakes.held() <= full, "{}", handshakes.held());
        let customer = handshakes.admit(Source::Network([192, 0, 2, 7].into()));
        assert!(handshakes.held() <= full, "it has cost another one its place");
        held.extend((1_000..2_000).map(|number| handshakes.admit(of_site(number))));
        assert!(!customer.is_dropped(), "who is slow and comes from elsewhere stays");
        held.retain(|it| !it.is_dropped());
        held.push(customer);
        assert_eq!(held.len(), handshakes.held(), "the others are dropped");
    }
}
