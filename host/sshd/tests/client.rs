//! The client in front of a server that means harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use paygress_sshd::client::Client;
use paygress_sshd::new_host_key;
use russh::Channel;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_server_that_never_begins_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let login = tokio::time::timeout(
        Duration::from_secs(1),
        Client::login(address, "user", "any password"),
    );
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap_or(0);
    };
    let (login, ended) = tokio::join!(login, tokio::time::timeout(Duration::from_secs(20), server));
    assert!(login.is_err(), "it has not answered");
    ended.expect("the connection ends with who wanted it");
}

/// Takes every login, and then says nothing any more.
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
async fn a_server_that_says_nothing_does_not_keep_who_has_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let config = Arc::new(Config { keys: vec![new_host_key().unwrap()], ..Config::default() });
        russh::server::run_stream(config, stream, Mute).await.unwrap().await
    });
    let client = Client::login(address, "user", "any password").await.unwrap();
    let (_keys, input) = mpsc::channel(1);
    let (shown, screen) = mpsc::channel(1);
    let terminal = tokio::spawn(client.terminal((80, 24), input, shown));
    // Whether it is told so before or after it has begun to wait: it ends.
    drop(screen);
    tokio::time::timeout(Duration::from_secs(40), terminal)
        .await
        .expect("the terminal ends")
        .unwrap()
        .unwrap();
}
