//! A relay of our own in this process, for the demo and for tests.

use nostr_relay_builder::builder::{RateLimit, RelayBuilderNip42, RelayBuilderNip42Mode};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::RelayUrl;
use std::time::Duration;

/// How long the port of a stopped relay may stay taken.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A relay on 127.0.0.1; it ends when this is dropped.
pub struct Relay {
    relay: LocalRelay,
    builder: RelayBuilder,
}

impl Relay {
    /// Starts one on a free port. `private`: it wants authentication (NIP-42), and shows wraps only
    /// to their receiver.
    ///
    /// # Errors
    /// In words.
    pub async fn start(private: bool) -> Result<Self, String> {
        let mut builder = RelayBuilder::default()
            .rate_limit(RateLimit { max_reqs: 500, notes_per_minute: 100_000 });
        if private {
            builder = builder
                .nip42(RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Read })
                .auth_dm(true);
        }
        // A fixed port, so that the relay can come back at the same address.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .map_err(|error| error.to_string())?;
        let builder = builder.port(free.port());
        Self::run(builder).await
    }

    async fn run(builder: RelayBuilder) -> Result<Self, String> {
        let relay = LocalRelay::new(builder.clone());
        relay.run().await.map_err(|error| error.to_string())?;
        Ok(Self { relay, builder })
    }

    /// Its address.
    pub async fn url(&self) -> RelayUrl {
        self.relay.url().await
    }

    /// Stops it. [`Relay::restart`] brings it back with all that it stored.
    pub fn stop(&self) {
        self.relay.shutdown();
    }

    /// Starts it again at the same address, with what it stored.
    ///
    /// # Errors
    /// In words.
    pub async fn restart(&mut self) -> Result<(), String> {
        let begun = std::time::Instant::now();
        loop {
            match Self::run(self.builder.clone()).await {
                Ok(relay) => *self = relay,
                // Its old connections hold the port until their ends have noticed.
                Err(_) if begun.elapsed() < TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}
