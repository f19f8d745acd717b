//! Connections for which there is no [place](crate::places::Places). Probes are answered on them: a
//! service that fails its probes is restarted, and whoever takes all places must not cause that, nor
//! whoever opens connections here as fast as they can. All other requests are refused at once.

use crate::limits;
use crate::problem::Problem;
use crate::unread_body::UnreadBody;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::networks::{NETWORKS, networks};
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// The answer to what is no probe.
pub(crate) async fn no_place() -> Problem {
    Refusal::new(
        ErrorType::ResourceUnavailable,
        "no more connections are taken, of all or of your network, or since the service is stopping: nothing was taken; try again after the time in Retry-After",
    )
    .into()
}

struct Unplaced {
    networks: [IpNet; NETWORKS],
    task: AbortHandle,
}

/// These connections, the oldest first.
#[derive(Default)]
pub(crate) struct Overflow(VecDeque<Unplaced>);

impl Overflow {
    /// One more of this address; if there are too many, one ends.
    pub(crate) fn insert(&mut self, address: IpAddr, task: AbortHandle) {
        self.0.retain(|unplaced| !unplaced.task.is_finished());
        self.0.push_back(Unplaced { networks: networks(address), task });
        if self.0.len() > limits::OVERFLOW
            && let Some(first) = self.first_of_most()
            && let Some(unplaced) = self.0.remove(first)
        {
            unplaced.task.abort();
        }
    }

    /// Where the oldest is of the address with most, of those of the site with most, of those of the
    /// provider with most.
    fn first_of_most(&self) -> Option<usize> {
        let mut counts = HashMap::<IpNet, usize>::new();
        for network in self.0.iter().flat_map(|unplaced| unplaced.networks) {
            let count = counts.entry(network).or_default();
            *count = count.saturating_add(1);
        }
        let ranked = self.0.iter().enumerate().map(|(at, unplaced)| {
            let count = |network: IpNet| counts.get(&network).copied();
            let [of_address, of_site, of_provider] = unplaced.networks.map(count);
            ((of_provider, of_site, of_address, Reverse(at)), at)
        });
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, at)| at)
    }
}

/// Serves one request.
pub(crate) async fn serve(stream: TcpStream, router: Router) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits::WRITE));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (request, unread) = UnreadBody::of(request, None);
        let mut router = router.clone();
        async move {
            let mut response = router.call(request).await?;
            unread.finish(&mut response).await;
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(limits::OVERFLOW_HEAD)
        .max_buf_size(limits::HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection without a place ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::net::Ipv4Addr;
    use tokio::task::JoinSet;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    #[tokio::test]
    async fn many_of_one_address_end_none_of_others() {
        let (mut overflow, mut tasks) = (Overflow::default(), JoinSet::new());
        let mut others = Vec::new();
        // Of its site, of its provider, and of none of its networks.
        for other in ["192.0.2.8", "192.0.9.1", "10.0.0.1", "2001:db8::1"] {
            let task = tasks.spawn(pending());
            overflow.insert(other.parse().unwrap(), task.clone());
            others.push(task);
        }
        for _ in 0..1_000 {
            overflow.insert(OWN, tasks.spawn(pending::<()>()));
        }
        while tasks.len() > limits::OVERFLOW {
            let aborted = tasks.join_next().await.unwrap().unwrap_err();
            assert!(others.iter().all(|other| other.id() != aborted.id()), "another's has ended");
        }
        assert_eq!(overflow.0.len(), limits::OVERFLOW);
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_ends() {
        let (mut overflow, mut tasks) = (Overflow::default(), JoinSet::new());
        let ended = tasks.spawn(async {});
        let ended_id = ended.id();
        overflow.insert(OWN, ended);
        let (joined, ()) = tasks.join_next_with_id().await.unwrap().unwrap();
        assert_eq!(joined, ended_id);
        let oldest = tasks.spawn(pending());
        overflow.insert(OWN, oldest.clone());
        for _ in 1..limits::OVERFLOW {
            overflow.insert(OWN, tasks.spawn(pending()));
        }
        assert_eq!(overflow.0.len(), limits::OVERFLOW, "what has ended counts no more");
        overflow.insert(OWN, tasks.spawn(pending()));
        let aborted = tasks.join_next_with_id().await.unwrap().unwrap_err();
        assert!(aborted.is_cancelled() && aborted.id() == oldest.id());
        assert_eq!((overflow.0.len(), tasks.len()), (limits::OVERFLOW, limits::OVERFLOW));
    }
}
