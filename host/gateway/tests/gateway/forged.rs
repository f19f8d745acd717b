//! Packets over iroh from an address that is not their sender's.

use crate::endpoint::{Client, GREETING, start};
use crate::support::{LONG, alice};
use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, RelayMode};
use iroh_tickets::endpoint::EndpointTicket;
use paygress_gateway::Rejection;
use std::collections::HashSet;
use tokio::net::UdpSocket;

/// More than the gateway takes of one address at once.
const PACKETS: usize = 150;
/// No lease has it: the gateway answers at once.
const PROTOCOL: &[u8] = b"paygress/ssh/1/ssh-pod-zzzzzzzzzz";

/// The id of the connection that a client begins, of its first packet: RFC 9000, 17.2.
fn connection_id(packet: &[u8]) -> &[u8] {
    &packet[6..6 + usize::from(packet[5])]
}

/// The customer has the address as well. Nobody there answers the gateway for whoever forges it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_forges_an_address_keeps_nobody_out_who_has_it() {
    let (ticket, gateway) = start().await;
    let to: EndpointTicket = ticket.to_string().parse().unwrap();
    let to = to.endpoint_addr();
    let forger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    forger.connect(to.ip_addrs().next().unwrap()).await.unwrap();
    // Where a client sends the packets that are then forged.
    let decoy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let decoy_addr = EndpointAddr::new(to.id).with_ip_addr(decoy.local_addr().unwrap());
    let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled);
    let client = Box::pin(builder.bind()).await.unwrap();
    let (mut packet, mut answer) = ([0; 2_048], [0; 2_048]);
    let mut known = HashSet::new();
    while known.len() < PACKETS {
        let mut connecting = Box::pin(client.connect(decoy_addr.clone(), PROTOCOL));
        let first = loop {
            let length = tokio::select! {
                _ = &mut connecting => panic!("nobody answers"),
                received = decoy.recv(&mut packet) => received.unwrap(),
            };
            if known.insert(connection_id(&packet[..length]).to_vec()) {
                break &packet[..length];
            }
        };
        forger.send(first).await.unwrap();
        let answered = forger.recv(&mut answer);
        tokio::time::timeout(LONG, answered).await.expect("an answer").unwrap();
    }
    Client::connect(&ticket, &alice()).await.echoes(GREETING).await;
    assert_eq!(gateway.counts.rejections(Rejection::TooFast), 0);
    client.close().await;
    gateway.stop().await;
}
