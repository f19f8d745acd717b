//! The socket: how many connections there are, and how slow they may be. Whoever is too slow is cut
//! off; the others do not notice.

use crate::keyed_limit::{KeyedLimit, Permit};
use crate::{limits, middleware};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// Who is connected, and the place that he holds: an extension of every request.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    _place: Place,
}

/// After the system had no descriptor for a connection.
const BREATH: Duration = Duration::from_millis(100);

/// A connection's place, and its address's: as long as anything of it goes on.
#[derive(Clone)]
pub(crate) struct Place {
    _all: Arc<OwnedSemaphorePermit>,
    _of_one: Option<Arc<Permit<IpAddr>>>,
}

impl Place {
    fn take(
        all: &Arc<Semaphore>,
        counts: &KeyedLimit<IpAddr>,
        address: IpAddr,
        is_proxy: bool,
    ) -> Option<Self> {
        let all = Arc::new(Arc::clone(all).try_acquire_owned().ok()?);
        if is_proxy {
            return Some(Self { _all: all, _of_one: None });
        }
        let of_one = counts.take(middleware::network(address), limits::CONNECTIONS_OF_ONE)?;
        Some(Self { _all: all, _of_one: Some(Arc::new(of_one)) })
    }
}

/// Serves until it is dropped; its connections end with it, but for terminals.
pub(crate) async fn serve(listener: &TcpListener, router: &Router, proxies: &[IpNet]) {
    let (all, counts) = (Arc::new(Semaphore::new(limits::CONNECTIONS)), KeyedLimit::default());
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        // An address of IPv4 that came over a socket of both is still one.
        let address = peer.ip().to_canonical();
        let is_proxy = proxies.iter().any(|network| network.contains(&address));
        let Some(place) = Place::take(&all, &counts, address, is_proxy) else {
            tracing::debug!(%peer, "too many connections; one more was closed");
            continue;
        };
        let router = router.clone();
        connections.spawn(connection(stream, Peer { address, _place: place }, router));
    }
}

async fn connection(stream: TcpStream, peer: Peer, router: Router) {
    let address = peer.address;
    // Server-sent events and terminals are small pieces that should not wait for each other.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits::WRITE));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().call(request)
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
