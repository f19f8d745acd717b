//! The client against a hostile server.
#![cfg(test)]

use futures::stream;
use paygress_sshd::client::{Client, HostKeyCheck, LoginError, WindowSize};
use paygress_sshd::{PrivateKey, new_host_key};
use russh::Channel;
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, EcdsaCurve};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::test]
async fn the_connection_to_a_server_that_never_answers_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let login = tokio::time::timeout(
        Duration::from_secs(1),
        Client::login(address, "user", "any password", HostKeyCheck::AcceptAny),
    );
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap_or(0);
    };
    let (login, ended) = tokio::join!(login, tokio::time::timeout(Duration::from_secs(20), server));
    assert!(login.is_err(), "the server has not answered");
    ended.expect("the connection is closed with its client");
}

/// Accepts every login, and answers nothing after it.
struct Mute;

impl Handler for Mute {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_mute_server_does_not_keep_a_terminal_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let config = Arc::new(Config { keys: vec![new_host_key().unwrap()], ..Config::default() });
        russh::server::run_stream(config, stream, Mute).await.unwrap().await
    });
    let check = HostKeyCheck::AcceptAny;
    let client = Client::login(address, "user", "any password", check).await.unwrap();
    let (output, screen) = mpsc::channel(1);
    let size = WindowSize { columns: 80, rows: 24 };
    let terminal = tokio::spawn(client.terminal(size, stream::pending(), output));
    // Whether the receiver is dropped before or after the terminal waits for it, the terminal ends.
    drop(screen);
    tokio::time::timeout(Duration::from_secs(40), terminal)
        .await
        .expect("the terminal ends")
        .unwrap()
        .unwrap();
}

/// A server between the client and the pod: it has a key of its own, and wants the password.
#[derive(Clone, Default)]
struct Impostor {
    attempts: Arc<AtomicU32>,
}

impl Handler for Impostor {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::Accept)
    }
}

impl Impostor {
    async fn start(&self, keys: Vec<PrivateKey>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, impostor) = (Arc::new(Config { keys, ..Config::default() }), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let session =
                    russh::server::run_stream(config.clone(), stream, impostor.clone()).await;
                tokio::spawn(async move { session.unwrap().await });
            }
        });
        address
    }
}

fn ecdsa() -> PrivateKey {
    let kind = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
    PrivateKey::random(&mut safe_rng(), kind).unwrap()
}

#[tokio::test]
async fn a_server_with_another_host_key_gets_no_password() {
    let (pod, pod_ecdsa) = (new_host_key().unwrap(), ecdsa());
    let known = [&pod, &pod_ecdsa].map(|key| key.public_key().to_openssh().unwrap());
    let check = |keys: &[String]| HostKeyCheck::one_of(keys.iter().map(String::as_str)).unwrap();
    let impostor = Impostor::default();
    // Of the same kinds, of one of them, and of a kind of which no key is known.
    for (keys, known) in [
        (vec![new_host_key().unwrap(), ecdsa()], &known[..]),
        (vec![ecdsa()], &known[..]),
        (vec![ecdsa()], &known[..1]),
    ] {
        let address = impostor.start(keys).await;
        let login = Client::login(address, "alice", "a secret", check(known)).await;
        assert!(matches!(login, Err(LoginError::WrongHostKey)));
    }
    assert_eq!(impostor.attempts.load(Ordering::Relaxed), 0, "the password was sent");
    // The pod proves itself with the key that is known, whatever others it has.
    let address = impostor.start(vec![pod, pod_ecdsa]).await;
    for check in [check(&known[..1]), check(&known[1..]), check(&known), HostKeyCheck::AcceptAny] {
        let login = Client::login(address, "alice", "a secret", check.clone()).await;
        assert!(login.is_ok(), "{check:?}");
    }
    assert_eq!(impostor.attempts.load(Ordering::Relaxed), 4);
}
