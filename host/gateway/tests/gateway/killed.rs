//! A gateway that is killed: its sessions end soon, and a new one with the same key has the old
//! ticket.

use crate::endpoint::{Client, GREETING};
use crate::process::{GATEWAY, Process, Settings};
use crate::support::bob;
use paygress_gateway::{ClientError, EndpointKey, GatewayTicket};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Of a gateway that is killed: how long its session went on, and what a connection to it took.
async fn kill(settings: &Settings<'_>, ticket: &GatewayTicket) -> (Duration, Duration) {
    let mut gateway = Process::start(GATEWAY, settings);
    assert_eq!(gateway.value("ticket"), ticket.to_string());
    let started = Instant::now();
    let mut client = Client::connect(ticket, &bob()).await;
    client.echoes(GREETING).await;
    let usual = started.elapsed();
    gateway.kill();
    let killed = Instant::now();
    let error = client.end().await.unwrap_err();
    assert!(matches!(error, ClientError::Lost(_)), "{error:?}");
    (killed.elapsed(), usual)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_s_sessions_end_within_five_seconds_and_the_old_ticket_works_again() {
    const TRIES: usize = 3;
    let key = EndpointKey::generate().to_text();
    // Below the ports that the system gives to others: nobody else takes the free one in between.
    let free = |port: u32| {
        UdpSocket::bind(("127.0.0.1", u16::try_from(port).ok()?)).ok()?.local_addr().ok()
    };
    let udp = (22_000 + std::process::id() % 6_000..29_000).find_map(free).unwrap().to_string();
    let settings = Settings { key: key.expose(), udp: &udp, ..Settings::default() };
    let ticket: GatewayTicket = Process::start(GATEWAY, &settings).value("ticket").parse().unwrap();
    // A machine that did not let this program run is no fault of the gateway's.
    let mut tries = Vec::new();
    let mut are_short = false;
    while !are_short && tries.len() < TRIES {
        let (ended, usual) = kill(&settings, &ticket).await;
        println!(
            "the session of a killed gateway ended after {ended:?}, a connection took {usual:?}"
        );
        let mut gateway = Process::start(GATEWAY, &settings);
        assert_eq!(gateway.value("ticket"), ticket.to_string());
        let started = Instant::now();
        Client::connect(&ticket, &bob()).await.echoes(GREETING).await;
        let took = started.elapsed();
        println!("the old ticket worked after {took:?}");
        are_short = ended < Duration::from_secs(5) + 10 * usual
            && took < Duration::from_secs(2) + 10 * usual;
        tries.push((ended, took, usual));
    }
    assert!(are_short, "{tries:?}");
}
