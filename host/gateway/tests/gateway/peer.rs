//! A client of iroh alone, as others write theirs, that chooses its way.

use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, RelayMode, RelayUrl};
use iroh_tickets::endpoint::EndpointTicket;
use paygress_core::model::ids::PodName;
use paygress_gateway::{ByteStream, GatewayTicket};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;

pub(crate) enum Transport {
    /// From this address, without a relay.
    Direct(Ipv4Addr),
    /// By the ticket's relay, without a UDP socket.
    Relayed,
}

pub(crate) struct Peer {
    endpoint: Endpoint,
    gateway: EndpointAddr,
}

impl Peer {
    pub(crate) async fn new(ticket: &GatewayTicket, transport: Transport) -> Self {
        let ticket: EndpointTicket = ticket.to_string().parse().unwrap();
        let given = ticket.endpoint_addr();
        let mut gateway = EndpointAddr::new(given.id);
        let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
        let builder = match transport {
            Transport::Direct(source) => {
                for address in given.ip_addrs() {
                    gateway = gateway.with_ip_addr(*address);
                }
                let builder = builder.relay_mode(RelayMode::Disabled);
                builder.bind_addr(SocketAddr::from((source, 0))).unwrap()
            }
            Transport::Relayed => {
                let relays: Vec<RelayUrl> = given.relay_urls().cloned().collect();
                for relay in &relays {
                    gateway = gateway.with_relay_url(relay.clone());
                }
                builder.relay_mode(RelayMode::custom(relays))
            }
        };
        Self { endpoint: Box::pin(builder.bind()).await.unwrap(), gateway }
    }

    /// A connection to a pod's SSH port.
    pub(crate) async fn open(&self, pod: &PodName) -> Box<dyn ByteStream> {
        let protocol = format!("paygress/ssh/1/{pod}");
        let connected = self.endpoint.connect(self.gateway.clone(), protocol.as_bytes());
        let connection = Box::pin(connected).await.unwrap();
        // It stays open as long as its streams.
        let (send, receive) = connection.open_bi().await.unwrap();
        Box::new(tokio::io::join(receive, send))
    }

    /// A port of 127.0.0.1 that leads to a pod, for SSH clients.
    pub(crate) async fn bridge(self: Arc<Self>, pod: PodName) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (peer, pod) = (Arc::clone(&self), pod.clone());
                tokio::spawn(async move {
                    let mut opened = peer.open(&pod).await;
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut opened).await;
                });
            }
        });
        port
    }
}
