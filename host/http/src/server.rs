//! The socket: how many connections there are, and how slow they may be. Slow clients are cut off
//! and do not affect the others.

use crate::limits;
use crate::unread_body::UnreadBody;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::networks::networks;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// The client's address and the permit of its connection: an extension of every request.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    _permit: ConnectionPermit,
}

/// After the system had no descriptor for a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Held as long as anything of the connection is in use.
#[derive(Clone)]
pub(crate) struct ConnectionPermit {
    _all: Arc<OwnedSemaphorePermit>,
    _of_networks: Arc<[Permit<IpNet>]>,
}

/// A trusted proxy's connections are not limited by its networks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Direct,
    Proxy,
}

impl ConnectionPermit {
    fn acquire(
        all: &Arc<Semaphore>,
        counts: &KeyedLimit<IpNet>,
        address: IpAddr,
        client: Client,
    ) -> Option<Self> {
        let all = Arc::new(Arc::clone(all).try_acquire_owned().ok()?);
        let limited = match client {
            Client::Direct => networks(address).into_iter().zip(limits::CONNECTIONS_OF_ONE),
            Client::Proxy => return Some(Self { _all: all, _of_networks: Arc::default() }),
        };
        let of_networks: Option<Arc<[Permit<IpNet>]>> =
            limited.map(|(network, limit)| counts.try_acquire(network, limit)).collect();
        Some(Self { _all: all, _of_networks: of_networks? })
    }
}

/// What answers requests.
pub(crate) trait Site:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Site for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves until it is dropped; its connections end with it, but for terminals.
pub(crate) async fn serve<S: Site>(listener: &TcpListener, site: &S, proxies: &[IpNet]) {
    let (all, counts) = (Arc::new(Semaphore::new(limits::CONNECTIONS)), KeyedLimit::default());
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        // On a dual-stack socket, an IPv4 address looks like one of IPv6.
        let address = peer.ip().to_canonical();
        let client = if proxies.iter().any(|network| network.contains(&address)) {
            Client::Proxy
        } else {
            Client::Direct
        };
        let Some(permit) = ConnectionPermit::acquire(&all, &counts, address, client) else {
            tracing::debug!(%peer, "too many connections; one more was closed");
            continue;
        };
        let site = site.clone();
        connections.spawn(connection(stream, Peer { address, _permit: permit }, site));
    }
}

async fn connection<S: Site>(stream: TcpStream, peer: Peer, site: S) {
    let address = peer.address;
    // Server-sent events and terminals are small pieces that should not wait for each other.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits::WRITE));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut request, unread) = UnreadBody::of(request);
        request.extensions_mut().insert(peer.clone());
        let mut site = site.clone();
        async move {
            let mut response = site.call(request).await?;
            unread.finish(&mut response).await;
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD)
        .max_buf_size(limits::HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Every address opens as many connections as it may; how many that are.
    fn held(
        addresses: impl Iterator<Item = IpAddr>,
        all: &Arc<Semaphore>,
        counts: &KeyedLimit<IpNet>,
    ) -> Vec<ConnectionPermit> {
        let acquire = |address| ConnectionPermit::acquire(all, counts, address, Client::Direct);
        addresses.flat_map(|address| (0..100).map_while(move |_| acquire(address))).collect()
    }

    #[test]
    fn no_network_holds_all_connections() {
        let v6 = |subnet: u128| Ipv6Addr::from_bits((0x2001_0db8_0001_u128 << 80) | (subnet << 64));
        let v4 = |host: u32| Ipv4Addr::from_bits((192 << 24) | (2 << 8) | host);
        let provider = |site: u128| Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | (site << 80));
        let networks: [(&str, Vec<IpAddr>, usize); 6] = [
            ("an address", vec![v4(1).into()], 64),
            ("a /64", vec![v6(1).into(), v6(1).into()], 64),
            ("a /59", (0..32).map(|subnet| v6(subnet).into()).collect(), 256),
            ("a /48", (0..2_000).map(|subnet| v6(subnet).into()).collect(), 256),
            ("a /24", (0..256).map(|host| v4(host).into()).collect(), 256),
            ("a /32 of IPv6", (0..2_000).map(|site| provider(site).into()).collect(), 1_024),
        ];
        for (name, addresses, expected) in networks {
            let (all, counts) =
                (Arc::new(Semaphore::new(limits::CONNECTIONS)), KeyedLimit::default());
            let held = held(addresses.into_iter(), &all, &counts);
            println!("{name} holds {} of {} connections", held.len(), limits::CONNECTIONS);
            assert_eq!(held.len(), expected, "{name}");
            let other = ["203.0.113.1", "2a00:1::1"].map(|address| address.parse().unwrap());
            for other in other {
                let permit = ConnectionPermit::acquire(&all, &counts, other, Client::Direct);
                assert!(permit.is_some(), "{name} keeps {other} out");
            }
            drop(held);
            assert_eq!(all.available_permits(), limits::CONNECTIONS);
        }
    }
}
