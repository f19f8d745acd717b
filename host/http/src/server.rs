//! The socket: how many connections there are, and how slow they may be. Whoever is too slow is cut off; the others do not
//! notice.

use crate::{gate, limits};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// Who is connected: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// After the system had no descriptor for a connection.
const BREATH: Duration = Duration::from_millis(100);

type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection's place, and its address's.
struct Place {
    _all: OwnedSemaphorePermit,
    of_one: Option<(Counts, IpAddr)>,
}

impl Place {
    fn take(all: &Arc<Semaphore>, counts: &Counts, address: IpAddr, is_proxy: bool) -> Option<Self> {
        let permit = Arc::clone(all).try_acquire_owned().ok()?;
        if is_proxy {
            return Some(Self { _all: permit, of_one: None });
        }
        let address = gate::network(address);
        let mut open = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= limits::CONNECTIONS_OF_ONE {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Self { _all: permit, of_one: Some((Arc::clone(counts), address)) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((counts, address)) = &self.of_one else { return };
        let mut open = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

/// Serves until it is dropped; its connections end with it.
pub(crate) async fn serve(listener: &TcpListener, router: &Router, proxies: &[IpNet]) {
    let (all, counts) = (Arc::new(Semaphore::new(limits::CONNECTIONS)), Counts::default());
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
        let is_proxy = proxies.iter().any(|network| network.contains(&peer.ip()));
        let Some(place) = Place::take(&all, &counts, peer.ip(), is_proxy) else {
            tracing::debug!(%peer, "too many connections; one more was closed");
            continue;
        };
        let router = router.clone();
        connections.spawn(async move {
            connection(stream, peer, router).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router) {
    // Server-sent events and terminals are small pieces that should not wait for each other.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits::WRITE));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
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
        tracing::debug!(%peer, %error, "a connection ended");
    }
}
