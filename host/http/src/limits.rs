//! The limits of the HTTP transport for external clients, each with its reason.

use paygress_core::model::units::Seconds;
use paygress_core::networks::NETWORKS;
use std::time::Duration;

/// Connections at the same time: each costs two buffers and a task.
pub(crate) const CONNECTIONS: usize = 2_048;
/// Of these, of each of the networks that an address is in, unless it is a trusted proxy's: nobody
/// blocks the others by holding connections, whatever number of addresses they have. Where there are
/// so many, a connection that waits for its client loses its [place](crate::places::Places) to a new
/// one.
pub(crate) const CONNECTIONS_OF_ONE: [usize; NETWORKS] = [64, 256, 1_024];
/// Connections beside these, where there is no place: one request each, which is refused unless it is a
/// probe. For a new one the oldest ends of the address with most, in the networks with most…
pub(crate) const OVERFLOW: usize = 64;
/// …and so long may a request's head take there.
pub(crate) const OVERFLOW_HEAD: Duration = Duration::from_secs(2);
/// How many times `REQUESTS_PER_MINUTE` each of these networks has.
pub(crate) const ALLOWANCES: [u32; NETWORKS] = [1, 16, 256];
/// A request's head. A token in `X-Cashu` has 60 kB at the most.
pub(crate) const HEAD_BYTES: usize = 96 << 10;
/// How long a request's head may take, or the next one on an open connection.
pub(crate) const HEAD: Duration = Duration::from_secs(10);
/// How long its body may take: 64 KiB at modem speed.
pub(crate) const BODY: Duration = Duration::from_secs(20);
/// A client that reads nothing for so long is cut off.
pub(crate) const WRITE: Duration = Duration::from_secs(30);
/// How long a client may take for a byte on average, of the time in which it is waited for, where
/// another wants its place: 1 kB/s, which a shared line of 2G has.
pub(crate) const SLOWEST_BYTE: Duration = Duration::from_millis(1);
/// How far it may be [behind](crate::pace::Pace): a bad line has lost a packet, and another has been
/// sent. What it reads is known in steps of up to 128 KiB, since Linux takes 64 KiB at once and a window
/// of TCP may open only when all is read: one that reads less than 64 kB/s may seem to read nothing for so
/// long, unless its own buffers are small.
pub(crate) const STALLED: Duration = Duration::from_secs(2);
/// What Linux holds unsent before it takes no more. Else it takes megabytes, and more only once a third of
/// them is gone: a client that reads would seem to read nothing for minutes.
pub(crate) const UNSENT_BYTES: u32 = 4_096;
/// A request's body; a request has no more, and a wallet's payment is hardly longer.
pub(crate) const BODY_BYTES: usize = 128 << 10;
/// What is read of a body that the answer does not depend on, so that the client sees the answer…
pub(crate) const UNREAD_BYTES: usize = 1 << 20;
/// …in so many pieces, each of which costs the same however small it is…
pub(crate) const UNREAD_PIECES: usize = 4_096;
/// …and for how long the answer waits for it.
pub(crate) const UNREAD: Duration = Duration::from_secs(2);
/// How long a buyer waits for the pod, unless they prefer less; then they fetch the order.
pub(crate) const WAIT: Duration = Duration::from_secs(150);
/// How long a client that does not want to wait waits until it is known whether the token was
/// taken.
pub(crate) const TAKEN: Duration = Duration::from_secs(30);
/// Progress streams at the same time: each reads the ledger once a tick.
pub(crate) const STREAMS: usize = 512;
/// Of these, of one customer.
pub(crate) const STREAMS_OF_ONE: usize = 8;
/// How often a stream looks.
pub(crate) const STREAM_TICK: Duration = Duration::from_millis(500);
/// A stream ends after this; its reader opens it again.
pub(crate) const STREAM_LIFE: Duration = Duration::from_secs(3_600);
/// Terminals at the same time: each is an SSH connection.
pub(crate) const TERMINALS: usize = 128;
/// Of these, of one customer.
pub(crate) const TERMINALS_OF_ONE: usize = 8;
/// How often a terminal's browser is pinged…
pub(crate) const TERMINAL_PING: Duration = Duration::from_secs(30);
/// …and how long it may send nothing.
pub(crate) const TERMINAL_SILENCE: Duration = Duration::from_secs(100);
/// How long a terminal waits for its first message, which authenticates.
pub(crate) const TERMINAL_HELLO: Duration = Duration::from_secs(10);
/// How long a terminal's login may take.
pub(crate) const TERMINAL_LOGIN: Duration = Duration::from_secs(20);
/// One message from a terminal: what is pasted at once.
pub(crate) const TERMINAL_BYTES: usize = 64 << 10;
/// Pods of one customer that are being stopped at the same time: each polls the cluster until it is
/// done.
pub(crate) const STOPS_OF_ONE: usize = 4;
/// How long the result of `/readyz` is cached: it checks the cluster.
pub(crate) const READY_AGAIN: Duration = Duration::from_secs(2);
/// After the service was stopped: how long connections and their first requests are still taken, which
/// were on their way when their senders did not know of it. A Service of Kubernetes knows before, by the
/// `preStop` of `k8s/overlays/postgres`. Then new connections are refused.
pub(crate) const STOP_NEWCOMERS: Duration = Duration::from_secs(1);
/// How long a buyer then waits for the pod at the most: most pods start within it.
pub(crate) const STOP_ORDERS: Duration = Duration::from_secs(15);
/// When all other requests are answered at the latest: after those for orders, which need the ledger…
pub(crate) const STOP_ANSWERS: Duration = Duration::from_secs(17);
/// …and when the rest is cut: clients have had time to read. With the 5 s of `preStop` it is less than the
/// 30 s after which Kubernetes kills the process.
pub(crate) const STOP: Duration = Duration::from_secs(20);
/// A bearer token's length: shorter ones are guessed.
pub(crate) const BEARER_CHARS: std::ops::RangeInclusive<usize> = 32..=256;
/// An `Idempotency-Key`'s length: a UUID fits, and no two customers choose the same by accident.
pub(crate) const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// How often networks that have been quiet are forgotten…
pub(crate) const FORGET_RATES: Duration = Duration::from_secs(60);
/// …and how many of each width are known at most: beyond that wider ones are counted, and at last
/// all share one allowance.
pub(crate) const ADDRESSES: usize = 100_000;
/// What a QR code may hold: a payment request.
pub(crate) const QR_BYTES: usize = 2_048;
/// QR codes that are drawn at the same time: the longest takes a processor for 10 ms, which is fifty
/// times as long as another open page…
pub(crate) const QR_CODES: usize = 1;
/// …and how long one waits for its turn. The payment request is there as text too.
pub(crate) const QR_WAIT: Duration = Duration::from_secs(10);
/// How long browsers keep the answer to a preflight, which counts as a request: Chromium keeps it no
/// longer.
pub(crate) const PREFLIGHT_KEPT: Duration = Duration::from_secs(7_200);
/// How far back the operator's charts go.
pub(crate) const CHART_SECONDS: u64 = 14 * 86_400;
/// How far back the operator's history goes at the most: 2 160 hours are about 200 kB.
pub(crate) const HISTORY_DAYS: u64 = 90;
/// Leases of a page of the operator's search…
pub(crate) const PAGE_LEASES: usize = 50;
/// …and at the most, if a client wants more.
pub(crate) const PAGE_LEASES_MOST: usize = 200;
/// A parameter of that search: as long as the name of an image.
pub(crate) const SEARCH_BYTES: usize = 512;
/// Requests to pods' HTTP ports that are under way at the same time, of customers who have logged in, and
/// as many of others, to public ports: nobody who has paid nothing holds what customers have. Each costs
/// a descriptor, two buffers and a task beside its connection…
pub(crate) const APP_REQUESTS: usize = 512;
/// …of one lease: a page with some WebSockets fits, and the pod's own server takes hardly more…
pub(crate) const APP_REQUESTS_OF_LEASE: usize = 128;
/// …and of each of the networks that a client is in, those behind a trusted proxy too: so few
/// that those of customers, those of others, and the terminals and streams of one key together are
/// fewer than `CONNECTIONS_OF_ONE`, whose places they hold: no customer takes all that an address which
/// they share has. These two are [shares](paygress_core::keyed_limit::share) of all.
pub(crate) const APP_REQUESTS_OF_ONE: [usize; NETWORKS] = [22, 88, 352];
/// Of the requests of one lease with a public port, those from each network that a visitor is in: shares
/// of what the lease has. A visitor who reads as slowly as possible, or holds WebSockets open, leaves
/// some for all others, from however many networks they come.
pub(crate) const APP_VISITS_OF_ONE: [usize; NETWORKS] = [16, 64, 96];
/// How long a customer's request waits for one of these to be free, by a trusted proxy: browsers send a
/// hundred at once there (HTTP/2), and do not repeat what is refused. Connections without a proxy do not
/// wait, so that an address has no more of them than above…
pub(crate) const APP_WAIT: Duration = Duration::from_secs(5);
/// …how many wait at the same time, each of which holds a connection…
pub(crate) const APP_WAITING: usize = 256;
/// …and of these, of one address or /64: a [share](paygress_core::keyed_limit::share) of all.
pub(crate) const APP_WAITING_OF_ONE: usize = 128;
/// How many times `REQUESTS_PER_MINUTE` an address has there, and a pod's customer: a page loads many
/// files.
pub(crate) const APP_ALLOWANCE: u32 = 10;
/// The file descriptors of all connections, terminals and requests to pods that there may be.
pub const FILE_DESCRIPTORS: usize = CONNECTIONS + OVERFLOW + TERMINALS + 2 * APP_REQUESTS;
/// How long it may take to reach a pod.
pub(crate) const APP_OPEN: Duration = Duration::from_secs(10);
/// A pod that sends and takes nothing for so long is cut off, a WebSocket too.
pub(crate) const APP_IDLE: Duration = Duration::from_secs(300);
/// How long a link logs a browser in: it is opened at once, or comes by a message.
pub(crate) const APP_CODE: Seconds = Seconds(300);
/// How long it is remembered that a link was used: longer than it is good for by the clock of any
/// replica…
pub(crate) const USED_LOGINS_KEPT: Seconds = Seconds(3_600);
/// …and how many are used between two looks at that.
pub(crate) const USED_LOGINS_CHECK_EVERY: u32 = 64;
/// How long the browser stays logged in: a working day.
pub(crate) const APP_COOKIE: Seconds = Seconds(12 * 3_600);
