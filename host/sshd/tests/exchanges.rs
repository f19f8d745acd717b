//! Exchanges of keys: which ones there are, how many before a login, and uploads meanwhile.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use bytes::Bytes;
use futures::future::join_all;
use paygress_sshd::{Account, KEY_EXCHANGES, Password, new_host_key, serve};
use russh::client::{Config, Handle, Handler, Session, connect_stream};
use russh::keys::PublicKeyOrCertificate;
use russh::{AlgorithmKind, ChannelMsg, Error, Limits, Names, Preferred, kex};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

const PASSWORD: &str = "a good password";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Counts the exchanges with its server, which may be any.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU32>);

impl Counter {
    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Handler for Counter {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        _: &Names,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The address of a server, and what it runs until it is dropped.
async fn start(home: &Path) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let account = Account::new("alice", Password::new(PASSWORD), home);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
    (address, stop)
}

/// A connection by this exchange alone.
async fn connect(
    address: SocketAddr,
    name: kex::Name,
    counter: Counter,
) -> Result<Handle<Counter>, Error> {
    let preferred = Preferred { kex: vec![name].into(), ..Preferred::default() };
    let config = Config { preferred, ..Config::default() };
    let stream = TcpStream::connect(address).await.unwrap();
    connect_stream(Arc::new(config), stream, counter).await
}

#[tokio::test]
async fn quick_exchanges_are_offered_and_no_others() {
    let home = tempfile::tempdir().unwrap();
    let (address, _stop) = start(home.path()).await;
    for slow in [kex::DH_GEX_SHA256, kex::DH_G15_SHA512, kex::DH_G16_SHA512, kex::DH_G18_SHA512] {
        assert!(!KEY_EXCHANGES.contains(&slow), "{slow:?}");
    }
    for name in kex::ALL_KEX_ALGORITHMS {
        let connected = connect(address, **name, Counter::default()).await;
        if KEY_EXCHANGES.contains(name) {
            assert!(connected.is_ok(), "{name:?}: {:?}", connected.err());
        } else {
            let refused = connected.err();
            let is_negotiated =
                matches!(refused, Some(Error::NoCommonAlgo { kind: AlgorithmKind::Kex, .. }));
            assert!(is_negotiated, "{name:?}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_exchanges_keys_and_does_not_log_in_is_disconnected() {
    let home = tempfile::tempdir().unwrap();
    let (address, _stop) = start(home.path()).await;
    let counter = Counter::default();
    let client = connect(address, kex::CURVE25519, counter.clone()).await.unwrap();
    let exchanging = async { while client.rekey_soon().await.is_ok() {} };
    tokio::time::timeout(TIMEOUT, exchanging).await.expect("it is disconnected");
    let count = counter.count();
    println!("disconnected after {count} exchanges");
    assert!((2..=200).contains(&count), "{count}");
}

/// The way to a server on which all takes a while, in each direction.
async fn long_way(address: SocketAddr) -> DuplexStream {
    let (client, pipe) = duplex(64 << 10);
    let server = TcpStream::connect(address).await.unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (split(pipe), split(server));
    tokio::spawn(delayed(from_client, to_server));
    tokio::spawn(delayed(from_server, to_client));
    client
}

async fn delayed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    const DELAY: Duration = Duration::from_millis(50);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let read = async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            if sender.send((Instant::now() + DELAY, piece[..count].to_vec())).is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// Sends so many bytes, which the server counts.
async fn upload(client: &Handle<Counter>, bytes: usize) {
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(false, "wc -c").await.unwrap();
    let (mut read, write) = channel.split();
    let send = async {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let mut left = bytes;
        while left > 0 {
            let count = left.min(piece.len());
            write.data_bytes(piece.slice(..count)).await.unwrap();
            left -= count;
        }
        write.eof().await.unwrap();
    };
    let receive = async {
        let mut counted = Vec::new();
        while let Some(message) = read.wait().await {
            if let ChannelMsg::Data { data } = message {
                counted.extend_from_slice(&data);
            }
        }
        counted
    };
    let ((), counted) = tokio::join!(send, receive);
    assert_eq!(String::from_utf8_lossy(&counted).trim(), bytes.to_string());
}

/// The bytes of all uploads; with `PAYGRESS_SSH_BYTES` as many as that. Beyond a gigabyte a server with
/// russh's own limits begins an exchange, while more is under way than it takes then.
fn upload_bytes() -> usize {
    std::env::var("PAYGRESS_SSH_BYTES").map_or(32 << 20, |bytes| bytes.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_once_over_a_long_way_are_whole() {
    const UPLOADS: usize = 8;
    let all = upload_bytes();
    let home = tempfile::tempdir().unwrap();
    let (address, _stop) = start(home.path()).await;
    // A client that begins exchanges meanwhile, and one that never does.
    for rekey_write_limit in [all / 4, usize::MAX] {
        let limits = Limits {
            rekey_write_limit,
            rekey_read_limit: usize::MAX,
            rekey_time_limit: Duration::MAX,
        };
        let (config, counter) = (Config { limits, ..Config::default() }, Counter::default());
        let stream = long_way(address).await;
        let client = connect_stream(Arc::new(config), stream, counter.clone()).await;
        let mut client = client.unwrap();
        assert!(client.authenticate_password("alice", PASSWORD).await.unwrap().success());
        join_all((0..UPLOADS).map(|_| upload(&client, all / UPLOADS))).await;
        assert_eq!(counter.count() > 1, rekey_write_limit < all, "{rekey_write_limit}");
    }
}
