//! The endpoint of iroh, on loopback and without a relay.

use crate::support::{LONG, Running, alice, bob, pod, silent, until};
use iroh::Endpoint;
use iroh::endpoint::{ConnectionError, presets};
use paygress_core::model::ids::PodName;
use paygress_gateway::{
    ClientError, EndpointKey, EndpointOptions, GatewayTicket, IrohEndpoint, Rejection, Tunnel, Way,
    connect, verify_endpoint,
};
use std::future::{pending, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

pub(crate) const GREETING: &[u8] = b"SSH-2.0-test\r\n";
/// So many that what happens rarely happens to one of them.
const CLIENTS: usize = 24;
/// Those of one remote endpoint that the gateway has at the same time.
const OF_ENDPOINT: u64 = 32;
/// Sessions of one lease that have not proved themselves.
const UNPROVEN: usize = 48;

async fn bind() -> IrohEndpoint {
    let mut options = EndpointOptions::new(EndpointKey::generate());
    options.udp = vec!["127.0.0.1:0".parse().unwrap()];
    IrohEndpoint::bind(options).await.unwrap()
}

pub(crate) async fn start() -> (GatewayTicket, Running) {
    let endpoint = bind().await;
    // As customers get it.
    let ticket = endpoint.ticket().unwrap().to_string().parse().unwrap();
    (ticket, Running::start(|gateway| gateway.with_endpoint(endpoint)))
}

/// A client that runs, with its standard input and output.
pub(crate) struct Client {
    keyboard: DuplexStream,
    screen: DuplexStream,
    ended: JoinHandle<Result<(), ClientError>>,
}

impl Client {
    fn run(tunnel: Tunnel) -> Self {
        let ((keyboard, input), (output, screen)) = (duplex(65_536), duplex(65_536));
        let ended = tokio::spawn(tunnel.run(input, output, pending()));
        Self { keyboard, screen, ended }
    }

    pub(crate) async fn connect(ticket: &GatewayTicket, pod: &PodName) -> Self {
        Self::run(connect(ticket, pod).await.unwrap())
    }

    pub(crate) async fn echoes(&mut self, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        let (sent, read) =
            tokio::join!(self.keyboard.write_all(bytes), self.screen.read_exact(&mut received));
        sent.unwrap();
        read.unwrap();
        assert!(received == bytes, "{} bytes come back as they were", bytes.len());
    }

    pub(crate) async fn end(self) -> Result<(), ClientError> {
        tokio::time::timeout(LONG, self.ended).await.expect("the client ends").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_until_the_client_ends() {
    let (ticket, gateway) = start().await;
    let mut client = Client::connect(&ticket, &alice()).await;
    client.echoes(GREETING).await;
    client.echoes(&vec![7; 3 << 20]).await;
    assert_eq!(gateway.counts.open_sessions(Way::Iroh), 1);
    client.keyboard.shutdown().await.unwrap();
    client.end().await.unwrap();
    until("the session ends", || gateway.counts.open_sessions(Way::Iroh) == 0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_live_leases_are_served() {
    let (ticket, gateway) = start().await;
    gateway.leases.end(&bob());
    for unknown in [bob(), pod("ssh-pod-zzzzzzzzzz"), pod("no name of a pod of ours")] {
        let error = connect(&ticket, &unknown).await.unwrap_err();
        assert!(matches!(error, ClientError::UnknownLease), "{error:?}");
    }
    assert_eq!(gateway.counts.rejections(Rejection::UnknownLease), 3);
    // A lease that comes later is served by the same endpoint.
    gateway.leases.add(bob(), Vec::new(), None);
    Client::connect(&ticket, &bob()).await.echoes(GREETING).await;
    gateway.stop().await;
}

/// Clients whose sessions are open. There are many: the end of their stream must not reach any of
/// them before its reason.
async fn clients(ticket: &GatewayTicket, pod: &PodName) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(ticket, pod).await;
        client.echoes(GREETING).await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_cuts_its_sessions_and_no_others() {
    let (ticket, gateway) = start().await;
    let cut = clients(&ticket, &alice()).await;
    let mut staying = clients(&ticket, &bob()).await;
    gateway.leases.end(&alice());
    for client in cut {
        let error = client.end().await.unwrap_err();
        assert!(matches!(error, ClientError::LeaseEnded), "{error:?}");
    }
    for client in &mut staying {
        client.echoes(GREETING).await;
    }
    gateway.stop().await;
    for client in staying {
        let error = client.end().await.unwrap_err();
        assert!(matches!(error, ClientError::Stopping), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_answer_is_named_as_the_reason() {
    let (ticket, gateway) = start().await;
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&ticket, &silent()).await;
        client.keyboard.write_all(GREETING).await.unwrap();
        let error = client.end().await.unwrap_err();
        assert!(matches!(error, ClientError::PodUnreachable), "{error:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_stopped_ends_at_once() {
    let (ticket, gateway) = start().await;
    let tunnel = connect(&ticket, &alice()).await.unwrap();
    let (_keyboard, input) = duplex(64);
    let run = tunnel.run(input, tokio::io::sink(), ready(()));
    tokio::time::timeout(LONG, run).await.expect("it ends").unwrap();
    until("the gateway knows", || gateway.counts.open_sessions(Way::Iroh) == 0).await;
    gateway.stop().await;
}

/// The client is iroh alone, as others write theirs.
#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_has_a_bounded_number_of_connections() {
    let (ticket, gateway) = start().await;
    let ticket: iroh_tickets::endpoint::EndpointTicket = ticket.to_string().parse().unwrap();
    let endpoint = Box::pin(Endpoint::builder(presets::Minimal).bind()).await.unwrap();
    let protocol = format!("paygress/ssh/1/{}", alice());
    let mut connections = Vec::new();
    for _ in 0..=OF_ENDPOINT {
        let addr = ticket.endpoint_addr().clone();
        let connected = Box::pin(endpoint.connect(addr, protocol.as_bytes()));
        connections.push(connected.await.unwrap());
    }
    until("all have been decided on", || {
        let open = gateway.counts.open_sessions(Way::Iroh);
        open + gateway.counts.rejections(Rejection::TooMany) == OF_ENDPOINT + 1
    })
    .await;
    assert_eq!(gateway.counts.rejections(Rejection::TooMany), 1);
    until("one is closed", || connections.iter().any(|it| it.close_reason().is_some())).await;
    let reasons: Vec<ConnectionError> =
        connections.iter().filter_map(iroh::endpoint::Connection::close_reason).collect();
    let [ConnectionError::ApplicationClosed(close)] = &reasons[..] else { panic!("{reasons:?}") };
    assert!(close.reason.starts_with(b"too many connections"), "{close}");
    endpoint.close().await;
    gateway.stop().await;
}

/// Whoever knows the name of a pod, which is no secret, has as many keys as they like.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_all_places_of_a_pod_keeps_no_customer_out() {
    let (ticket, gateway) = start().await;
    let mut held = Vec::new();
    for _ in 0..UNPROVEN {
        let mut client = Client::connect(&ticket, &alice()).await;
        client.echoes(GREETING).await;
        held.push(client);
    }
    let mut customer = Client::connect(&ticket, &alice()).await;
    customer.echoes(GREETING).await;
    let error = held.remove(0).end().await.unwrap_err();
    assert!(matches!(error, ClientError::TooMany), "{error:?}");
    assert_eq!(gateway.counts.rejections(Rejection::NotAuthenticated), 1);
    for client in &mut held {
        client.echoes(GREETING).await;
    }
    customer.echoes(GREETING).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_has_failed_is_opened_again() {
    let endpoint = bind().await;
    let served = endpoint.clone();
    let gateway = Running::start(|gateway| gateway.with_endpoint(served));
    let before = endpoint.ticket().unwrap();
    let mut cut = Client::connect(&before, &alice()).await;
    cut.echoes(GREETING).await;
    endpoint.close().await;
    cut.end().await.unwrap_err();
    until("it is open again", || !endpoint.is_closed()).await;
    let ticket = endpoint.ticket().unwrap();
    assert_eq!(ticket.endpoint_id(), before.endpoint_id());
    Client::connect(&ticket, &alice()).await.echoes(GREETING).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_the_endpoint_without_a_pod() {
    let (ticket, running) = start().await;
    verify_endpoint(&ticket).await.unwrap();
    assert_eq!(running.counts.sessions(Way::Iroh), 0);
    running.stop().await;
    let gone = verify_endpoint(&ticket).await.unwrap_err();
    assert_eq!(gone.code(), "gateway-unreachable");
}
