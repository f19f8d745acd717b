//! What a client has sent before it closes a channel arrives, as with OpenSSH's server.
#![cfg(test)]

use paygress_sshd::{Account, Password, new_host_key, serve};
use russh::client::{Config, Handle, Handler, connect_stream};
use russh::keys::PublicKeyOrCertificate;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PASSWORD: &str = "a good password";
const TIMEOUT: Duration = Duration::from_secs(60);
/// More than a pipe takes, and less than the window of a channel.
const BYTES: usize = 512 << 10;
/// So many that what happens rarely happens to one of them.
const CHANNELS: usize = 16;

struct AnyServer;

impl Handler for AnyServer {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A client that is logged in, and what its server runs until it is dropped.
async fn login(home: &Path) -> (Handle<AnyServer>, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let account = Account::new("alice", Password::new(PASSWORD), home);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = connect_stream(Arc::new(Config::default()), stream, AnyServer).await.unwrap();
    assert!(client.authenticate_password("alice", PASSWORD).await.unwrap().success());
    (client, stop)
}

#[tokio::test]
async fn a_port_gets_all_of_a_channel_that_is_closed_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (client, _stop) = login(home.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().into();
    for _ in 0..CHANNELS {
        let channel =
            client.channel_open_direct_tcpip("127.0.0.1", port, "127.0.0.1", 0).await.unwrap();
        channel.data_bytes(vec![b'x'; BYTES]).await.unwrap();
        channel.close().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        let read = stream.read_to_end(&mut received);
        let read = tokio::time::timeout(TIMEOUT, read).await.expect("it ends");
        assert_eq!(read.unwrap(), BYTES);
    }
}

#[tokio::test]
async fn a_command_gets_all_of_a_channel_that_is_closed_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (client, _stop) = login(home.path()).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(false, "cat > received; touch done").await.unwrap();
    channel.data_bytes(vec![b'x'; BYTES]).await.unwrap();
    channel.close().await.unwrap();
    let started = Instant::now();
    while !home.path().join("done").exists() {
        assert!(started.elapsed() < TIMEOUT, "the command does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        std::fs::metadata(home.path().join("received")).unwrap().len(),
        u64::try_from(BYTES).unwrap()
    );
}
