//! The socket: how many connections there are, and how slow they may be. Slow clients are cut off
//! and do not affect the others.

use crate::limits;
use crate::overflow::{self, Overflow};
use crate::placed_stream::PlacedStream;
use crate::places::{PeerKind, Place, Places, Receiving};
use crate::stopping::Stopping;
use crate::unread_body::UnreadBody;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::SockRef;
use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// The client's address and the place of its connection: an extension of every request.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    place: Arc<Place>,
}

impl Peer {
    /// Under another protocol too, the client is waited for until this is dropped.
    pub(crate) fn wait(&self) -> Receiving {
        let mut receiving = self.place.receive();
        receiving.wait();
        receiving
    }
}

/// After the system had no descriptor for a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

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

/// Serves until it is dropped; its connections end with it, but for terminals. Those for which there is no
/// place have other answers.
pub(crate) async fn serve<S: Site>(
    listener: &TcpListener,
    site: &S,
    without_place: &Router,
    proxies: &[IpNet],
) {
    serve_until(listener, site, without_place, proxies, &Stopping::default()).await;
}

/// The same until it has stopped.
pub(crate) async fn serve_until<S: Site>(
    listener: &TcpListener,
    site: &S,
    without_place: &Router,
    proxies: &[IpNet],
    stopping: &Stopping,
) {
    let (places, mut unplaced) = (Places::default(), Overflow::default());
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
            () = stopping.lasts(limits::STOP_NEWCOMERS), if connections.is_empty() => return,
            () = stopping.lasts(limits::STOP) => return,
        };
        // On a dual-stack socket, an IPv4 address looks like one of IPv6.
        let address = peer.ip().to_canonical();
        let kind = if proxies.iter().any(|network| network.contains(&address)) {
            PeerKind::Proxy
        } else {
            PeerKind::Direct
        };
        let is_open = !stopping.has_lasted(limits::STOP_NEWCOMERS);
        let Some(place) = is_open.then(|| places.admit(address, kind)).flatten() else {
            tracing::debug!(%peer, "there is no place for one more connection");
            let serving = overflow::serve(stream, without_place.clone());
            unplaced.insert(address, connections.spawn(serving));
            continue;
        };
        let peer = Peer { address, place };
        connections.spawn(connection(stream, peer, site.clone(), stopping.clone()));
    }
}

fn placed(stream: TcpStream, place: &Arc<Place>) -> TimeoutStream<PlacedStream<TcpStream>> {
    // Server-sent events and terminals are small pieces that should not wait for each other.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(limits::UNSENT_BYTES);
    let mut stream = TimeoutStream::new(PlacedStream::new(stream, Arc::clone(place)));
    stream.set_write_timeout(Some(limits::WRITE));
    stream
}

/// It is the last answer on its connection.
fn close_after(response: &mut Response) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

async fn connection<S: Site>(stream: TcpStream, peer: Peer, site: S, stopping: Stopping) {
    let (address, place) = (peer.address, Arc::clone(&peer.place));
    let has_request = Arc::new(AtomicBool::new(false));
    let (stops, begins) = (stopping.clone(), Arc::clone(&has_request));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        begins.store(true, Ordering::Relaxed);
        let under_way = peer.place.begin();
        let (mut request, unread) = UnreadBody::of(request, under_way.as_ref());
        request.extensions_mut().insert(peer.clone());
        let (mut site, stops) = (site.clone(), stops.clone());
        async move {
            // The connection is about to be dropped.
            let Some(under_way) = under_way else { return pending().await };
            let mut response = site.call(request).await?;
            unread.finish(&mut response).await;
            if stops.is_begun() {
                close_after(&mut response);
            }
            Ok::<_, Infallible>(under_way.until_end_of(response))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD)
        .max_buf_size(limits::HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(placed(stream, &place))), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let stop = stopping.may_close(|| has_request.load(Ordering::Relaxed));
    let mut stop = pin!(stop.fuse());
    let served = loop {
        tokio::select! {
            biased;
            () = place.lost() => {
                tracing::debug!(%address, "a connection has made room for another");
                return;
            }
            served = serving.as_mut() => break served,
            () = stop.as_mut() => serving.as_mut().graceful_shutdown(),
        }
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::{MethodRouter, any, get, post};
    use http_body_util::BodyExt;
    use std::net::SocketAddr;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    const OF_ADDRESS: usize = limits::CONNECTIONS_OF_ONE[0];
    const LONG: Duration = Duration::from_secs(30);

    /// Sends a request for this path.
    pub(crate) async fn send(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// Whether the request is answered, all of whose answers end with this word.
    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut read = Vec::new();
        while !read.ends_with(b"done") {
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return false;
            }
        }
        read.starts_with(b"HTTP/1.1 200")
    }

    /// What is answered without a place.
    pub(crate) fn probes() -> Router {
        Router::new().route("/healthz", get(|| async { "done" })).fallback(overflow::no_place)
    }

    /// Its `/slow` notifies of each request, and answers it once it is notified itself; `/quick` answers
    /// at once.
    pub(crate) struct SlowSite {
        pub(crate) site: Router,
        pub(crate) begun: Arc<Notify>,
        pub(crate) go_on: Arc<Notify>,
    }

    impl SlowSite {
        pub(crate) fn new() -> Self {
            let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (begins, goes_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            let slow = move || async move {
                begins.notify_one();
                goes_on.notified().await;
                "done"
            };
            let site = Router::new();
            let site = site.route("/slow", get(slow)).route("/quick", get(|| async { "done" }));
            Self { site, begun, go_on }
        }
    }

    async fn connect_and_request(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, "/quick").await;
        let is_answered = timeout(LONG, is_answered(&mut stream)).await.expect("it is served");
        assert!(is_answered, "it is kept out");
        stream
    }

    #[tokio::test]
    async fn connections_without_a_request_keep_nobody_of_their_address_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let SlowSite { site, begun, go_on } = SlowSite::new();
        let served = tokio::spawn(async move { serve(&listener, &site, &probes(), &[]).await });

        let mut under_way = TcpStream::connect(address).await.unwrap();
        send(&mut under_way, "/slow").await;
        timeout(LONG, begun.notified()).await.expect("it is under way");
        let mut idle = Vec::new();
        for _ in 1..OF_ADDRESS {
            idle.push(connect_and_request(address).await);
        }
        let mut customers = Vec::new();
        for _ in 0..OF_ADDRESS {
            customers.push(connect_and_request(address).await);
        }
        // The oldest first, and never one with a request.
        for mut stream in idle {
            let read = timeout(LONG, stream.read(&mut [0])).await.expect("it is closed");
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        go_on.notify_one();
        let is_answered = timeout(LONG, is_answered(&mut under_way)).await.expect("it goes on");
        assert!(is_answered, "a request that is under way is never cut");
        served.abort();
    }

    /// What works on each request for ever, and is notified of it.
    fn busy() -> (MethodRouter, Arc<Notify>) {
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        let handler = move || async move {
            begins.notify_one();
            pending::<&str>().await
        };
        (any(handler), begun)
    }

    /// So many connections on each of which this request is under way.
    async fn keep_busy(
        address: SocketAddr,
        request: &str,
        begun: &Notify,
        connections: usize,
    ) -> Vec<TcpStream> {
        let mut under_way = Vec::new();
        for _ in 0..connections {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            timeout(LONG, begun.notified()).await.expect("it is under way");
            under_way.push(stream);
        }
        under_way
    }

    #[tokio::test]
    async fn without_a_place_a_probe_is_answered_and_an_order_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (busy, begun) = busy();
        let site: Router = Router::new().route("/busy", busy);
        let served = tokio::spawn(async move { serve(&listener, &site, &probes(), &[]).await });
        // It works without this body.
        let request = "DELETE /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":7}";
        let _under_way = keep_busy(address, request, &begun, OF_ADDRESS).await;

        let mut probe = TcpStream::connect(address).await.unwrap();
        send(&mut probe, "/healthz").await;
        assert!(timeout(LONG, is_answered(&mut probe)).await.expect("it is served"));
        let mut order = TcpStream::connect(address).await.unwrap();
        let request = "POST /order HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":7}";
        order.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(LONG, order.read_to_string(&mut answer)).await;
        read.expect("its connection is closed").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        for header in
            ["connection: close", "retry-after: 30", "content-type: application/problem+json"]
        {
            assert!(head.lines().any(|line| line == header), "{head}");
        }
        assert!(body.contains("\"error_type\":\"resource_unavailable\""), "{body}");
        served.abort();
    }

    /// Of an upload: so many bytes that a slow machine is not a slow client.
    const PIECE: usize = 4_096;

    /// Begins an upload of three pieces.
    async fn begin_upload(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = 3 * PIECE;
        let head = format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn an_upload_that_makes_progress_is_not_cut_for_a_newcomer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(Notify::new());
        let comes = Arc::clone(&came);
        let upload = move |mut body: Body| {
            let comes = Arc::clone(&comes);
            async move {
                while let Some(Ok(_)) = body.frame().await {
                    comes.notify_one();
                }
                "done"
            }
        };
        let site: Router =
            Router::new().route("/upload", post(upload)).route("/quick", get(|| async { "done" }));
        let served = tokio::spawn(async move { serve(&listener, &site, &probes(), &[]).await });
        let send_piece = async |stream: &mut TcpStream| {
            stream.write_all(&[b'x'; PIECE]).await.unwrap();
            timeout(LONG, came.notified()).await.expect("it is read");
        };

        let (mut upload, mut silent) = (begin_upload(address).await, begin_upload(address).await);
        send_piece(&mut upload).await;
        send_piece(&mut silent).await;
        let mut idle = Vec::new();
        for _ in 2..OF_ADDRESS {
            idle.push(connect_and_request(address).await);
        }
        send_piece(&mut upload).await;
        for _ in 1..OF_ADDRESS {
            idle.push(connect_and_request(address).await);
        }
        let read = timeout(LONG, silent.read(&mut [0])).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        send_piece(&mut upload).await;
        let is_answered = timeout(LONG, is_answered(&mut upload)).await.expect("it goes on");
        assert!(is_answered, "it is cut");
        served.abort();
    }

    /// The length of an answer that no buffer holds.
    const LENGTH: usize = 256 << 10;

    /// A service with small buffers, and all clients that an address may have, who have such an answer to
    /// read.
    async fn with_unread_answers() -> (SocketAddr, JoinHandle<()>, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        // Of its connections too.
        socket.set_send_buffer_size(4_096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        let site: Router = Router::new()
            .route("/long", get(|| async { vec![b'x'; LENGTH] }))
            .route("/quick", get(|| async { "done" }));
        let served = tokio::spawn(async move { serve(&listener, &site, &probes(), &[]).await });
        let mut unread = Vec::new();
        for _ in 0..OF_ADDRESS {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            send(&mut stream, "/long").await;
            timeout(LONG, stream.readable()).await.expect("it is answered").unwrap();
            unread.push(stream);
        }
        (address, served, unread)
    }

    /// The service's buffers are the system's, which hold megabytes.
    #[tokio::test]
    async fn a_client_that_reads_all_the_time_keeps_its_place() {
        const LONGEST: usize = 16 << 20;
        const OFTEN: Duration = Duration::from_millis(100);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (busy, begun) = busy();
        let site: Router = Router::new()
            .route("/busy", busy)
            .route("/long", get(|| async { vec![b'x'; LONGEST] }))
            .route("/quick", get(|| async { "done" }));
        let served = tokio::spawn(async move { serve(&listener, &site, &probes(), &[]).await });
        let request = "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n";
        let _under_way = keep_busy(address, request, &begun, OF_ADDRESS - 1).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut reader = socket.connect(address).await.unwrap();
        send(&mut reader, "/long").await;
        timeout(LONG, reader.readable()).await.expect("it is answered").unwrap();
        let (started, mut read) = (Instant::now(), 0);
        while started.elapsed() < 4 * limits::STALLED {
            // 16 kB/s.
            let due = usize::try_from(started.elapsed().as_millis()).unwrap() * 16;
            let mut piece = vec![0; due - read];
            timeout(LONG, reader.read_exact(&mut piece)).await.expect("it has come").unwrap();
            let last = Instant::now();
            read = due;
            let is_lost = is_newcomer_served(address).await;
            if last.elapsed() > limits::STALLED / 2 {
                println!("this machine reads too little by itself");
                break;
            }
            assert!(!is_lost, "it has lost its place");
            tokio::time::sleep(OFTEN).await;
        }
        served.abort();
    }

    async fn is_newcomer_served(address: SocketAddr) -> bool {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, "/quick").await;
        timeout(LONG, is_answered(&mut stream)).await.expect("it is served or closed")
    }

    #[tokio::test]
    async fn clients_that_do_not_read_keep_nobody_of_their_address_out() {
        let (address, served, mut unread) = with_unread_answers().await;
        let begun = Instant::now();
        while !is_newcomer_served(address).await {
            assert!(begun.elapsed() < limits::WRITE / 2, "newcomers are kept out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut read = Vec::new();
        let _ = timeout(LONG, unread[0].read_to_end(&mut read)).await.expect("it is closed");
        assert!(read.len() < LENGTH, "the oldest has lost its place");
        served.abort();
    }

    #[tokio::test]
    async fn clients_that_read_a_trickle_keep_nobody_of_their_address_out() {
        const OFTEN: Duration = Duration::from_millis(100);
        let (address, served, mut slow) = with_unread_answers().await;
        let begun = Instant::now();
        // 80 B a second, of what has come at once.
        while begun.elapsed() < 2 * limits::STALLED {
            for stream in &mut slow {
                let mut read = [0; 8];
                timeout(LONG, stream.read_exact(&mut read)).await.expect("it has come").unwrap();
            }
            tokio::time::sleep(OFTEN).await;
        }
        assert!(is_newcomer_served(address).await, "a newcomer is kept out");
        drop(slow);
        served.abort();
    }
}
