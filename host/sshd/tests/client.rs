//! The client against a hostile server.
#![cfg(test)]

use futures::stream;
use paygress_sshd::client::{
    Client, HostKeyCheck, LoginError, ProofError, WindowSize, proved_host_keys, try_login,
};
use paygress_sshd::{
    Account, HostKeySecret, HostKeys, Password, PrivateKey, new_host_key, parse_keys,
    password_prompt, serve,
};
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, EcdsaCurve};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session};
use russh::{Channel, ChannelId};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

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

/// Opens channels to whoever has logged in, and runs any command.
struct ChannelOpens {
    /// Whether each of them was rejected.
    rejected: mpsc::UnboundedSender<bool>,
}

impl ChannelOpens {
    /// Many of a kind, and one of each other.
    const CHANNELS: usize = 1_006;
}

impl Handler for ChannelOpens {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let (client, rejected, host) = (session.handle(), self.rejected.clone(), "127.0.0.1");
        tokio::spawn(async move {
            let report = |opened: Result<Channel<Msg>, russh::Error>| {
                let is_rejected = matches!(opened, Err(russh::Error::ChannelOpenFailure(_)));
                let _ = rejected.send(is_rejected);
            };
            for _ in 0..1_000 {
                report(client.channel_open_forwarded_tcpip(host, 22, host, 1).await);
            }
            report(client.channel_open_forwarded_streamlocal("/socket").await);
            report(client.channel_open_agent().await);
            report(client.channel_open_session().await);
            report(client.channel_open_direct_tcpip(host, 22, host, 1).await);
            report(client.channel_open_direct_streamlocal("/socket").await);
            report(client.channel_open_x11(host, 1).await);
        });
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        session.data(id, "in\n")?;
        session.exit_status_request(id, 0)?;
        session.eof(id)?;
        session.close(id)
    }
}

#[tokio::test]
async fn a_server_that_opens_channels_gets_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (rejected, mut rejections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let config = Arc::new(Config { keys: vec![new_host_key().unwrap()], ..Config::default() });
        russh::server::run_stream(config, stream, ChannelOpens { rejected }).await.unwrap().await
    });
    let check = HostKeyCheck::AcceptAny;
    let client = Client::login(address, "user", "any password", check).await.unwrap();
    let all = async {
        for number in 0..ChannelOpens::CHANNELS {
            assert_eq!(rejections.recv().await, Some(true), "channel {number}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("each has its answer");
    assert_eq!(client.run("any command").await.unwrap().stdout, "in\n");
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

/// A server with its host keys in this directory, which it proves by this secret, for a user with
/// this login, until the sender is dropped.
async fn proving(
    directory: &Path,
    secret: &HostKeySecret,
    password: Password,
    keys: &str,
) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let account =
        Account { keys: parse_keys(keys).unwrap(), ..Account::new("alice", password, "/") };
    let host_keys = HostKeys::proved(directory, secret.clone()).unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, account, host_keys, stopped));
    (address, stop)
}

/// Whoever logs in by password or by key, and after a restart.
#[tokio::test]
async fn a_server_proves_the_same_host_keys_as_long_as_its_directory_lives() {
    let directory = tempfile::tempdir().unwrap();
    let secret = HostKeySecret::derive(b"a test", "a pod");
    let key = new_host_key().unwrap().public_key().to_openssh().unwrap();
    let mut proved = Vec::new();
    for (password, keys) in [(Password::new("a secret"), ""), (Password::none(), key.as_str())] {
        let (address, _stop) = proving(directory.path(), &secret, password, keys).await;
        proved.push(proved_host_keys(address, &secret).await.unwrap());
    }
    assert_eq!(proved[0], proved[1]);
    let kinds: Vec<&str> = proved[0].iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256"]);
    assert!(!directory.path().join("ssh_host_rsa_key").exists(), "all of them are proved");
}

#[tokio::test]
async fn a_proof_is_no_login_and_its_name_no_user() {
    let directory = tempfile::tempdir().unwrap();
    let secret = HostKeySecret::derive(b"a test", "a pod");
    let (address, _stop) = proving(directory.path(), &secret, Password::new("a secret"), "").await;
    let known = proved_host_keys(address, &secret).await.unwrap();
    let check = HostKeyCheck::one_of(known.iter().map(String::as_str)).unwrap();
    let name = format!("paygress-host-keys-{}", "0".repeat(64));
    let refused = Client::login(address, &name, "a secret", check.clone()).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
    assert!(Client::login(address, "alice", "a secret", check).await.is_ok());
}

/// Asks for the password as servers with PAM do, and accepts it in no other way.
struct Interactive;

impl Handler for Interactive {
    type Error = russh::Error;

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else { return Ok(password_prompt()) };
        let password = response.next().unwrap_or_default();
        Ok(if password == "a secret" { Auth::Accept } else { Auth::reject() })
    }
}

#[tokio::test]
async fn a_login_that_is_only_tried_answers_questions_too() {
    for (password, is_taken) in [("a secret", true), ("another", false)] {
        let (stream, socket) = duplex(64 << 10);
        let config = Config {
            keys: vec![new_host_key().unwrap()],
            auth_rejection_time: Duration::ZERO,
            ..Config::default()
        };
        let server = tokio::spawn(async move {
            russh::server::run_stream(Arc::new(config), socket, Interactive).await.unwrap().await
        });
        let tried = try_login(stream, "alice", password, HostKeyCheck::AcceptAny).await;
        match is_taken {
            true => tried.unwrap(),
            false => assert!(matches!(tried, Err(LoginError::Refused)), "{tried:?}"),
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
        assert!(ended.is_ok(), "the connection is closed after the login");
    }
}

#[tokio::test]
async fn a_login_is_tried_at_a_pods_server_and_one_that_is_dropped_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let secret = HostKeySecret::derive(b"a test", "a pod");
    let (address, _stop) = proving(directory.path(), &secret, Password::new("a secret"), "").await;
    let known = new_host_key().unwrap().public_key().to_openssh().unwrap();
    let other = HostKeyCheck::one_of([known.as_str()]).unwrap();
    let login = async |password: &str, check: HostKeyCheck| {
        let stream = TcpStream::connect(address).await.unwrap();
        try_login(stream, "alice", password, check).await
    };
    assert!(login("a secret", HostKeyCheck::AcceptAny).await.is_ok());
    let refused = login("another", HostKeyCheck::AcceptAny).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let wrong = login("a secret", other).await;
    assert!(matches!(wrong, Err(LoginError::WrongHostKey)), "{wrong:?}");

    let (stream, mut server) = duplex(64);
    server.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let login = try_login(stream, "alice", "a secret", HostKeyCheck::AcceptAny);
    let login = tokio::time::timeout(Duration::from_millis(100), login).await;
    assert!(login.is_err(), "the server has not answered");
    let mut received = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), server.read_to_end(&mut received));
    ended.await.expect("the connection is closed").unwrap();
}

/// Answers each login with this instruction.
#[derive(Clone)]
struct Instructing(Option<String>);

impl Handler for Instructing {
    type Error = russh::Error;

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(instruction) = self.0.clone() else { return Ok(Auth::reject()) };
        Ok(Auth::Partial {
            name: Cow::Borrowed(""),
            instructions: Cow::Owned(instruction),
            prompts: Cow::Owned(Vec::new()),
        })
    }
}

#[tokio::test]
async fn whoever_does_not_have_the_secret_proves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let [secret, other] =
        ["a pod", "another"].map(|server| HostKeySecret::derive(b"a test", server));
    let (address, _stop) = proving(directory.path(), &other, Password::new("x"), "").await;
    let refused = proved_host_keys(address, &secret).await;
    assert!(matches!(refused, Err(ProofError::NotProved)), "{refused:?}");
    let key = new_host_key().unwrap();
    let line = key.public_key().to_openssh().unwrap();
    let forged = format!(r#"{{"host_keys":["{line}"],"mac":"{}"}}"#, "0".repeat(64));
    for instruction in [None, Some(String::new()), Some(forged), Some("[".repeat(50_000))] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Config { keys: vec![key.clone()], ..Config::default() });
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let session = russh::server::run_stream(config, stream, Instructing(instruction));
            session.await.unwrap().await
        });
        let refused = proved_host_keys(address, &secret).await;
        assert!(matches!(refused, Err(ProofError::NotProved)), "{refused:?}");
    }
    // It never listens: also while a child of another test has a copy of it, connections are refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let unreachable = proved_host_keys(address, &secret).await;
    assert!(matches!(unreachable, Err(ProofError::Unreachable(_))), "{unreachable:?}");
}
