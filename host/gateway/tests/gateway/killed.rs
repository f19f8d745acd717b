//! A gateway that is killed: its sessions end soon, and a new one with the same key has the old
//! ticket.

use crate::endpoint::{Client, GREETING};
use crate::process::{GATEWAY, Process, Settings};
use crate::support::bob;
use paygress_gateway::{ClientError, EndpointKey, GatewayTicket};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_s_sessions_end_within_five_seconds_and_the_old_ticket_works_again() {
    let key = EndpointKey::generate().to_text();
    // Free a moment ago.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = Settings { key: key.expose(), udp: &udp, ..Settings::default() };
    let mut gateway = Process::start(GATEWAY, &settings);
    let text = gateway.value("ticket");
    let ticket: GatewayTicket = text.parse().unwrap();
    // What a connection takes on this machine now.
    let started = Instant::now();
    let mut client = Client::connect(&ticket, &bob()).await;
    client.echoes(GREETING).await;
    let usual = started.elapsed();

    gateway.kill();
    let killed = Instant::now();
    let error = client.end().await.unwrap_err();
    let took = killed.elapsed();
    println!("the session of a killed gateway ended after {took:?}");
    assert!(matches!(error, ClientError::Lost(_)), "{error:?}");
    assert!(took < Duration::from_secs(5) + 10 * usual, "{took:?}, a connection {usual:?}");

    let mut gateway = Process::start(GATEWAY, &settings);
    assert_eq!(gateway.value("ticket"), text);
    let started = Instant::now();
    Client::connect(&ticket, &bob()).await.echoes(GREETING).await;
    let took = started.elapsed();
    println!("the old ticket worked after {took:?}");
    assert!(took < Duration::from_secs(2) + 10 * usual, "{took:?}, before {usual:?}");
}
