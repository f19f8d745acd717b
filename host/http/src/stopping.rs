//! The end of the service, as when Kubernetes replaces it: requests under way are answered, and within
//! [`limits::STOP`] nothing is left.
//!
//! ```text
//! 0 s                    STOP_NEWCOMERS           STOP_ORDERS             STOP_ANSWERS       STOP
//! /readyz fails;         new connections are      who waits for an        all other requests  the
//! idle connections,      refused with 503, and    order gets 202:         get 503: send the   rest
//! terminals and event    once no request is       where it goes on        same again          is cut
//! streams are closed     under way it ends
//! ```

use crate::limits;
use crate::problem::Problem;
use paygress_core::model::refusal::{ErrorType, Refusal};
use std::future::pending;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Why `/readyz` fails then.
pub(crate) const REASON: &str = "the service is stopping";

/// Whether the service is being stopped, and since when.
#[derive(Clone, Default)]
pub(crate) struct Stopping(watch::Sender<Option<Instant>>);

impl Stopping {
    pub(crate) fn begin(&self) {
        self.0.send_modify(|since| {
            since.get_or_insert_with(Instant::now);
        });
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Whether it began so long ago.
    pub(crate) fn has_lasted(&self, time: Duration) -> bool {
        self.0.borrow().is_some_and(|since| since.elapsed() >= time)
    }

    /// Waits until it begins; since when that is.
    pub(crate) async fn begun(&self) -> Instant {
        let mut begun = self.0.subscribe();
        let since = begun.wait_for(Option::is_some).await.ok().and_then(|since| *since);
        match since {
            Some(since) => since,
            None => pending().await,
        }
    }

    /// Waits until it began so long ago.
    pub(crate) async fn lasts(&self, time: Duration) {
        let since = self.begun().await;
        tokio::time::sleep(time.saturating_sub(since.elapsed())).await;
    }

    /// Waits until a connection may be closed between two requests: the first one of a new connection
    /// may have been sent before its client knew of the stop, and is waited for.
    pub(crate) async fn may_close(&self, has_request: impl Fn() -> bool) {
        self.begun().await;
        if !has_request() {
            self.lasts(limits::STOP_NEWCOMERS).await;
        }
    }

    /// The answer; or, once no more time is left for it, that the request is to be sent again.
    pub(crate) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.lasts(limits::STOP_ANSWERS) => Err(no_answer()),
        }
    }
}

/// What was requested may go on in another process, or be done already.
fn no_answer() -> Problem {
    Refusal::new(
        ErrorType::ResourceUnavailable,
        "the service is stopping before it has the answer; send the same request again after the time in Retry-After: the same token is the same order",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::serve_until;
    use crate::server::tests::{SlowSite, probes, send};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(60);

    /// A server whose `/slow` is answered once it is notified.
    struct Serving {
        address: SocketAddr,
        stopping: Stopping,
        /// A request for `/slow` is under way.
        begun: Arc<Notify>,
        go_on: Arc<Notify>,
        served: JoinHandle<()>,
    }

    impl Serving {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let SlowSite { site, begun, go_on } = SlowSite::new();
            let stopping = Stopping::default();
            let stops = stopping.clone();
            let served = tokio::spawn(async move {
                serve_until(&listener, &site, &probes(), &[], &stops).await;
            });
            Self { address, stopping, begun, go_on, served }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// A connection on which `/slow` is under way.
        async fn begin_slow(&self) -> TcpStream {
            let mut stream = self.connect().await;
            send(&mut stream, "/slow").await;
            timeout(LONG, self.begun.notified()).await.expect("it is under way");
            stream
        }

        async fn ends(self) {
            timeout(LONG, self.served).await.expect("the server ends").unwrap();
        }
    }

    /// All that comes until the connection is closed.
    async fn read_all(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        let read = timeout(LONG, stream.read_to_string(&mut answer)).await;
        read.expect("its connection is closed").unwrap();
        answer
    }

    /// The only answer on its connection.
    async fn assert_last(stream: TcpStream, status: &str) {
        let answer = read_all(stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_and_an_idle_connection_closed() {
        let serving = Serving::start().await;
        let under_way = serving.begin_slow().await;
        let mut idle = serving.connect().await;
        send(&mut idle, "/quick").await;
        let mut read = Vec::new();
        while !read.ends_with(b"done") {
            assert_ne!(timeout(LONG, idle.read_buf(&mut read)).await.unwrap().unwrap(), 0);
        }
        serving.stopping.begin();
        assert_eq!(read_all(idle).await, "");
        assert!(!serving.stopping.has_lasted(limits::STOP_NEWCOMERS), "it is closed at once");
        serving.go_on.notify_one();
        assert_last(under_way, "200").await;
        serving.ends().await;
    }

    #[tokio::test]
    async fn what_is_sent_before_its_client_knows_is_answered() {
        let serving = Serving::start().await;
        let mut before = serving.connect().await;
        // The server has it before the next one, whose request it works for.
        let under_way = serving.begin_slow().await;
        serving.stopping.begin();
        send(&mut before, "/quick").await;
        assert_last(before, "200").await;
        let mut after = serving.connect().await;
        send(&mut after, "/quick").await;
        assert_last(after, "200").await;
        serving.go_on.notify_one();
        assert_last(under_way, "200").await;
        serving.ends().await;
    }

    #[tokio::test]
    async fn new_connections_are_refused_while_a_request_is_under_way() {
        let serving = Serving::start().await;
        let under_way = serving.begin_slow().await;
        serving.stopping.begin();
        serving.stopping.lasts(limits::STOP_NEWCOMERS).await;
        for (path, status) in [("/quick", "503"), ("/healthz", "200")] {
            let mut stream = serving.connect().await;
            send(&mut stream, path).await;
            assert_last(stream, status).await;
        }
        let mut refused = serving.connect().await;
        send(&mut refused, "/quick").await;
        assert!(read_all(refused).await.contains("\r\nretry-after: "));
        serving.go_on.notify_one();
        assert_last(under_way, "200").await;
        serving.ends().await;
    }

    #[tokio::test]
    async fn a_request_without_end_does_not_keep_the_server() {
        let serving = Serving::start().await;
        let under_way = serving.begin_slow().await;
        serving.stopping.begin();
        tokio::time::pause();
        tokio::time::advance(limits::STOP).await;
        tokio::time::resume();
        assert_eq!(read_all(under_way).await, "");
        serving.ends().await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_comes_at_its_time_and_no_request_is_without_an_answer() {
        let stopping = Stopping::default();
        let (orders, answers) = (stopping.clone(), stopping.clone());
        let orders = tokio::spawn(async move {
            orders.lasts(limits::STOP_ORDERS).await;
            Instant::now()
        });
        let answer = tokio::spawn(async move { answers.in_time(pending::<Result<(), _>>()).await });
        assert!(!stopping.is_begun() && !stopping.has_lasted(Duration::ZERO));
        tokio::time::sleep(limits::STOP).await;
        let begun = Instant::now();
        stopping.begin();
        tokio::time::sleep(limits::STOP_NEWCOMERS).await;
        // The first one counts.
        stopping.begin();
        assert!(stopping.has_lasted(limits::STOP_NEWCOMERS) && !orders.is_finished());
        assert!(orders.await.unwrap().duration_since(begun) >= limits::STOP_ORDERS);
        assert!(!answer.is_finished());
        let problem = answer.await.unwrap().unwrap_err();
        assert_eq!(problem.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert!(begun.elapsed() < limits::STOP);
    }
}
