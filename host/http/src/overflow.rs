//! Connections for which there is no [place](crate::places::Places). Probes are answered on them: a
//! service that fails its probes is restarted, and whoever takes all places must not cause that. All
//! other requests are refused at once.

use crate::limits;
use crate::problem::Problem;
use crate::unread_body::UnreadBody;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use paygress_core::model::refusal::{ErrorType, Refusal};
use std::collections::VecDeque;
use std::convert::Infallible;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// The answer to what is no probe.
pub(crate) async fn no_place() -> Problem {
    Refusal::new(
        ErrorType::ResourceUnavailable,
        "too many connections are open, all of them or those of your network: nothing was taken; try again after the time in Retry-After",
    )
    .into()
}

/// The tasks of these connections, the oldest first.
#[derive(Default)]
pub(crate) struct Overflow(VecDeque<AbortHandle>);

impl Overflow {
    /// One more; if there are too many, the oldest ends.
    pub(crate) fn insert(&mut self, task: AbortHandle) {
        self.0.retain(|task| !task.is_finished());
        if self.0.len() >= limits::OVERFLOW
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(task);
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
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn of_too_many_the_oldest_ends() {
        let (mut overflow, mut tasks) = (Overflow::default(), JoinSet::new());
        let ended = tasks.spawn(async {});
        let ended_id = ended.id();
        overflow.insert(ended);
        let (joined, ()) = tasks.join_next_with_id().await.unwrap().unwrap();
        assert_eq!(joined, ended_id);
        let oldest = tasks.spawn(pending());
        overflow.insert(oldest.clone());
        for _ in 1..limits::OVERFLOW {
            overflow.insert(tasks.spawn(pending()));
        }
        assert_eq!(overflow.0.len(), limits::OVERFLOW, "what has ended counts no more");
        overflow.insert(tasks.spawn(pending()));
        let aborted = tasks.join_next_with_id().await.unwrap().unwrap_err();
        assert!(aborted.is_cancelled() && aborted.id() == oldest.id());
        assert_eq!((overflow.0.len(), tasks.len()), (limits::OVERFLOW, limits::OVERFLOW));
    }
}
