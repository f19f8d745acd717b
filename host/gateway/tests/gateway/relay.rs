//! A relay of iroh of one's own, without TLS.

use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use std::net::SocketAddr;

/// It ends with this.
pub(crate) struct Relay {
    server: Server,
    pub(crate) url: String,
}

impl Relay {
    pub(crate) async fn start(address: &str) -> Self {
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(address.parse::<SocketAddr>().unwrap()));
        let server = Server::spawn(config).await.unwrap();
        let url = format!("http://{}", server.http_addr().unwrap());
        Self { server, url }
    }

    /// How many have come.
    pub(crate) fn clients(&self) -> u64 {
        self.server.metrics().server.accepts.get()
    }

    /// How much it has carried.
    pub(crate) fn bytes(&self) -> u64 {
        self.server.metrics().server.bytes_sent.get()
    }
}
