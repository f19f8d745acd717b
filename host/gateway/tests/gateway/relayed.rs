//! A relay of one's own: what goes through it, and what does not need it.

use crate::endpoint::{Client, GREETING};
use crate::peer::{Peer, Transport};
use crate::pods::SshPod;
use crate::process::{self, Process, Settings};
use crate::relay::Relay;
use crate::support::{LONG, Pods, Running, SECRET, alice, bob, until};
use paygress_gateway::{EndpointKey, EndpointOptions, GatewayTicket, IrohEndpoint};
use paygress_sshd::client::{self, HostKeyCheck};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An endpoint on loopback that this relay leads to, and its ticket.
async fn endpoint(relay: &str) -> (GatewayTicket, IrohEndpoint) {
    let mut options = EndpointOptions::new(EndpointKey::generate());
    options.udp = vec!["127.0.0.1:0".parse().unwrap()];
    options.relays = vec![relay.parse().unwrap()];
    let endpoint = IrohEndpoint::bind(options).await.unwrap();
    (endpoint.ticket().unwrap(), endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_goes_through_a_relay_of_the_operator_s() {
    const BYTES: usize = 1_000_000;
    let relay = Relay::start("127.0.0.1:0").await;
    let (ticket, endpoint) = endpoint(&relay.url).await;
    let pod = SshPod::start(Vec::new()).await;
    let pods = Pods::of([(alice(), pod.address)]);
    let gateway = Running::start_before(pods, |gateway| gateway.with_endpoint(endpoint));
    until("the gateway is at its relay", || relay.clients() > 0).await;

    let peer = Arc::new(Peer::new(&ticket, Transport::Relayed).await);
    let port = peer.bridge(alice()).await;
    let known = HostKeyCheck::one_of([pod.host_key.as_str()]).unwrap();
    let login = client::Client::login(("127.0.0.1", port), "alice", SECRET, known);
    let client = tokio::time::timeout(LONG, login).await.expect("it logs in").unwrap();
    let done =
        client.run(&format!("head -c {BYTES} /dev/zero | tr '\\0' x; exit 3")).await.unwrap();
    assert_eq!((done.stdout.len(), done.exit_status), (BYTES, 3));
    let relayed = relay.bytes();
    assert!(relayed > u64::try_from(BYTES).unwrap(), "{relayed} bytes went by the relay");
    client.close().await;
    gateway.stop().await;
}

/// Waits until the relay carries nothing of a session any more.
async fn until_direct(relay: &mut Process, client: &mut Client) {
    let started = Instant::now();
    loop {
        let before = relay.number("bytes");
        client.echoes(&[7; 100_000]).await;
        if relay.number("bytes").saturating_sub(before) < 50_000 {
            return;
        }
        assert!(started.elapsed() < LONG, "there is no direct path");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_s_death_leaves_a_direct_session_alone() {
    /// Longer than any end may be silent.
    const AFTERWARDS: Duration = Duration::from_secs(6);
    let settings = Settings { listen: "127.0.0.1:0", ..Settings::default() };
    let mut relay = Process::start(process::RELAY, &settings);
    let (ticket, endpoint) = endpoint(&relay.value("url")).await;
    let gateway = Running::start(|gateway| gateway.with_endpoint(endpoint));
    process::until(&mut relay, "clients", |count| count > 0).await;
    let mut client = Client::connect(&ticket, &bob()).await;
    until_direct(&mut relay, &mut client).await;

    relay.kill();
    let killed = Instant::now();
    // The subject of the test is time: what goes by the relay would be given up meanwhile.
    while killed.elapsed() < AFTERWARDS {
        tokio::time::timeout(LONG, client.echoes(GREETING)).await.expect("it is there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Who comes now needs no relay either.
    Client::connect(&ticket, &bob()).await.echoes(GREETING).await;
    gateway.stop().await;
}
