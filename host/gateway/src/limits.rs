//! The limits of the gateway for external clients, each with its reason.

use paygress_core::networks::NETWORKS;
use std::time::Duration;

/// Connections to the jump host at the same time: each costs two descriptors and, with a pod, a
/// third.
pub(crate) const CONNECTIONS: usize = 4_096;
/// What all of these need, and as many sessions over iroh (`SESSIONS_OVER_IROH`): these share a socket, and
/// have one of a pod each.
pub const FILE_DESCRIPTORS: usize = 4 * CONNECTIONS;
/// Of these, those that have not authenticated: see [`Startups`](crate::startups::Startups). Each
/// costs some 40 kB…
pub(crate) const STARTUPS: [usize; 3] = [64, 30, 256];
/// …and those of one address, or of one /64 of IPv6: a site behind one address fits, and a flood
/// from there costs nobody elsewhere a connection.
pub(crate) const STARTUPS_OF_ONE: [usize; 3] = [16, 30, 64];
/// SSH handshakes a second, and at once, for each of the networks that an address is in: each costs
/// some milliseconds of a core. One that comes sooner waits and is not refused: a customer who
/// shares an address with a flood waits behind at most [`STARTUPS_OF_ONE`] others…
pub(crate) const SSH_HANDSHAKES: [[u32; 2]; NETWORKS] = [[32, 256], [128, 512], [256, 1_024]];
/// …and what a client that has not authenticated sends beyond so much counts as another handshake: russh
/// takes exchanges of keys again at any time, in half a kilobyte each. Most logins send less.
pub(crate) const HANDSHAKE_BYTES: u64 = 4 << 10;
/// A client of the jump host that has not authenticated by then is disconnected, as with OpenSSH's
/// `LoginGraceTime`.
pub(crate) const LOGIN_GRACE: Duration = Duration::from_secs(120);
/// Failed attempts in one connection: OpenSSH's `MaxAuthTries`, and the first one, by which a client
/// asks for the methods.
pub(crate) const AUTH_TRIES: usize = 7;
/// The answer to a wrong password takes so long…
pub(crate) const PASSWORD_DELAY: Duration = Duration::from_secs(1);
/// …and to any other attempt.
pub(crate) const REJECTION_DELAY: Duration = Duration::from_millis(10);
/// Keeps the way through firewalls open; a dead client is noticed by TCP.
pub(crate) const SSH_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Connections of one lease at the same time, by both ways: an editor, a few terminals and a
/// parallel copy fit, and the pod's own server takes hardly more.
pub(crate) const SESSIONS_OF_LEASE: usize = 64;
/// Of these, over iroh, those that have not proved themselves: there the pod's own server
/// authenticates, and whoever knows the name of the pod may connect. While there are so many, one more
/// takes the place of another: see [`Sessions`](crate::sessions::Sessions). The rest is for others.
pub(crate) const UNPROVEN_SESSIONS_OF_LEASE: usize = 48;
/// Both sides of a session that has proved itself have sent as much: more than a greeting, and less
/// than any exchange of keys…
pub(crate) const PROOF_BYTES: usize = 512;
/// …and since then it has stayed open for this long. The pod's own server, and OpenSSH's, disconnects
/// a client that has not logged in after 120 seconds.
pub(crate) const POD_LOGIN_GRACE: Duration = Duration::from_secs(130);
/// Forwarded channels of one connection to the jump host: `ProxyJump` needs one.
pub(crate) const CHANNELS: usize = 8;
/// What a client may send ahead on one channel.
pub(crate) const WINDOW: u32 = 1 << 20;
/// The longest packet of it: russh keeps a buffer that is as long until the connection ends.
pub(crate) const PACKET: u32 = 16_384;
/// While too much waits: renewed when it is used up, so that the client can try again.
pub(crate) const NARROW_WINDOW: u32 = 2;
/// What may wait for the pods of one connection. Windows that were given before still add to it.
pub(crate) const WAITING_BYTES: usize = 512 << 10;
/// More than this only waits if the client ignores its windows.
pub(crate) const EXCESS_BYTES: usize = 16 << 20;
/// What may wait for one pod in all its connections. Beyond that those end in which more than
/// [`WAITING_BYTES`] wait: a pod that reads nothing must not cost all others the gateway's memory…
pub(crate) const WAITING_BYTES_OF_LEASE: usize = 32 << 20;
/// …and of one pod it is less, a [share](paygress_core::keyed_limit::share) of what may wait for all,
/// where that is more than half used. Where that share is less than [`WAITING_BYTES`] it counts
/// for each connection too, down to [`PIECE_BYTES`]: the sum of all connections is bounded.
pub(crate) const WAITING_BYTES_OF_ALL: usize = 128 << 20;
/// How long one packet of a client that is too far ahead is held before the next is read.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// Handshakes of iroh at the same time: see [`Startups`](crate::startups::Startups). A customer's takes
/// less than a second…
pub(crate) const HANDSHAKES: [usize; 3] = [128, 30, 256];
/// …of one address, or of one endpoint by a relay…
pub(crate) const HANDSHAKES_OF_ONE: [usize; 3] = [32, 30, 64];
/// …beyond this many, and beyond [`UNVALIDATED_OF_SOURCE`], a client must prove its address first, which
/// costs us nothing…
pub(crate) const UNVALIDATED_HANDSHAKES: usize = 24;
/// …and each is done by then.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections of one remote endpoint at the same time. Its key costs nothing, so that the other
/// limits count too.
pub(crate) const CONNECTIONS_OF_ENDPOINT: usize = 32;
/// New connections a second, and at once, for each of the networks that an address is in, and as for one
/// address for one endpoint by a relay: each costs a handshake and a lookup. In a second one provider
/// fills little more than a quarter of [`HANDSHAKES`]: others have the time for theirs. An endpoint by a relay
/// that exceeds it is refused as often, and then gets no answer…
pub(crate) const OF_SOURCE: [[u32; 2]; NETWORKS] = [[4, 64], [16, 128], [64, 256]];
/// …besides, of those that need not prove their address first. They are counted apart: whoever forges
/// addresses uses up nothing of their owners'. They are fewer than [`OF_LEASE`] for the same reason…
pub(crate) const UNVALIDATED_OF_SOURCE: [[u32; 2]; NETWORKS] = [[2, 32], [8, 64], [16, 128]];
/// …and of one lease, from one [origin](crate::origin::Origin): anybody who knows its name may connect,
/// as to a port of the node, and keeps out nobody from elsewhere. A script that runs one command after
/// another fits.
pub(crate) const OF_LEASE: [[u32; 2]; NETWORKS] = [[8, 128], [16, 192], [32, 256]];
/// Addresses, networks and endpoints whose rate is known at the same time. Beyond that the wider networks
/// of addresses are counted alone, and new endpoints are refused.
pub(crate) const RATED: usize = 16_384;
/// How long a connection may be without its stream: SSH clients send their greeting at once.
pub(crate) const FIRST_STREAM: Duration = Duration::from_secs(20);
/// Sessions over iroh at the same time. One more takes the place of one that has not proved itself.
pub(crate) const SESSIONS_OVER_IROH: u64 = 4_096;
/// What one of these may have under way from its client, and as much to it: our client takes no more…
pub(crate) const QUIC_WINDOW: u32 = 1_250_000;
/// …and what all of them have to share, each way: see
/// [`WindowPermits`](crate::windows::WindowPermits). With as much for the other way it is less than the
/// memory of `paygress gateway` in the cluster…
pub(crate) const QUIC_WINDOWS: usize = 160 << 20;
/// …but each has as much as this: a piece of what is copied.
pub(crate) const LEAST_QUIC_WINDOW: u32 = 32_768;
/// Either end notices within five seconds that the other is gone. The client takes the shorter
/// time-out of the two, so that this holds for any client.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
/// Several are lost before the connection is.
pub(crate) const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// How long the lookup of a lease may take: less than [`IDLE`], after which an incoming connection
/// of iroh that was not accepted is dropped without a word.
pub(crate) const LOOKUP: Duration = Duration::from_secs(3);
/// How long the way to a pod may take.
pub(crate) const OPEN: Duration = Duration::from_secs(10);
/// How long a pod's SSH server may take to hang up, or to begin its greeting, before its client is let
/// through…
pub(crate) const GREETING: Duration = Duration::from_millis(100);
/// …and how often in all a server is tried that hangs up. With [`UNPROVEN_SESSIONS_OF_LEASE`] connections
/// that have not logged in it does so on 59 of 100, and so on 12 of 100 customers. Each try may be one of
/// the API server's streams, which whoever connects over iroh causes.
pub(crate) const GREETING_TRIES: usize = 4;
/// Read of a greeting at once.
pub(crate) const GREETING_BYTES: usize = 256;
/// When one side has ended, the other one may send what is under way.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// Read and written at once: the largest packet of SSH…
pub(crate) const PIECE_BYTES: usize = 32_768;
/// …and while less than this is read.
pub(crate) const IDLE_PIECE_BYTES: usize = 2_048;
/// Read for a channel of the jump host at once: a record of TLS, which is what comes from the API server…
pub(crate) const CHANNEL_PIECE_BYTES: usize = 16_384;
/// …and how many of these wait for the client's connection. russh writes all of them at once, and keeps a
/// buffer that is as long until the connection ends.
pub(crate) const QUEUED_PIECES: usize = 3;
/// For a client to take the reason why it is disconnected.
pub(crate) const DISCONNECT: Duration = Duration::from_secs(1);
/// For the connections to end when the gateway stops.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);
/// After a failed `accept`, most likely because the process is out of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Before an endpoint of iroh that has failed is opened again, and the longest pause between attempts.
pub(crate) const REOPEN_FIRST: Duration = Duration::from_millis(500);
pub(crate) const REOPEN_LONGEST: Duration = Duration::from_secs(60);

/// How long our client tries to connect.
pub(crate) const CONNECT: Duration = Duration::from_secs(15);
/// How long it waits for the rest when its input has ended…
pub(crate) const CLIENT_LINGER: Duration = Duration::from_secs(5);
/// …and for the gateway to learn of the end: `ssh` waits for its `ProxyCommand`.
pub(crate) const CLIENT_CLOSE: Duration = Duration::from_millis(500);
/// A ticket's text: an id, and more addresses than a machine has.
pub(crate) const TICKET_BYTES: usize = 4_096;
