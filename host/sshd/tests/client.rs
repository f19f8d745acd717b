//! The client against a hostile server.
#![cfg(test)]

use futures::stream;
use paygress_sshd::client::{Client, WindowSize};
use paygress_sshd::new_host_key;
use russh::Channel;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use std::sync::Arc;
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
        Client::login(address, "user", "any password"),
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
    let client = Client::login(address, "user", "any password").await.unwrap();
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
