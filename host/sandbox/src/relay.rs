//! A Nostr relay in this process.

use crate::error::{Result, during};
use nostr_relay_builder::builder::{
    PolicyResult, RateLimit, RelayBuilderNip42, RelayBuilderNip42Mode, WritePolicy,
};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{Event, RelayUrl};
use std::net::SocketAddr;
use std::time::Duration;

/// How long the port of a stopped relay may stay taken.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Takes no event, for this reason.
#[derive(Debug)]
struct Refusing(&'static str);

impl WritePolicy for Refusing {
    fn admit_event<'a>(&'a self, _: &'a Event, _: &'a SocketAddr) -> BoxedFuture<'a, PolicyResult> {
        Box::pin(async { PolicyResult::Reject(self.0.to_owned()) })
    }
}

/// A relay on 127.0.0.1; it ends when this is dropped.
pub struct Relay {
    relay: LocalRelay,
    builder: RelayBuilder,
}

impl Relay {
    /// Starts one on a free port.
    pub async fn start() -> Result<Self> {
        Self::bind(unlimited()).await
    }

    /// Starts one that wants authentication for reading (NIP-42) and shows gift wraps only to their
    /// receiver.
    pub async fn start_private() -> Result<Self> {
        Self::start_authenticated(RelayBuilderNip42Mode::Read).await
    }

    /// As [`Relay::start_private`], and wants authentication for writing too.
    pub async fn start_guarded() -> Result<Self> {
        Self::start_authenticated(RelayBuilderNip42Mode::Both).await
    }

    /// Starts one that takes no events, and gives this reason.
    pub async fn start_refusing(reason: &'static str) -> Result<Self> {
        Self::bind(unlimited().write_policy(Refusing(reason))).await
    }

    async fn start_authenticated(mode: RelayBuilderNip42Mode) -> Result<Self> {
        let nip42 = RelayBuilderNip42 { mode };
        Self::bind(unlimited().nip42(nip42).auth_dm(true)).await
    }

    async fn bind(builder: RelayBuilder) -> Result<Self> {
        // Others may take what was free a moment ago.
        let mut more_tries = 0_u8..7;
        loop {
            // A fixed port, so that the relay can come back at the same address.
            let free = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|socket| socket.local_addr())
                .map_err(during("find a port for the relay"))?;
            match Self::run(builder.clone().port(free.port())).await {
                Err(_) if more_tries.next().is_some() => {}
                started => return started,
            }
        }
    }

    async fn run(builder: RelayBuilder) -> Result<Self> {
        let relay = LocalRelay::new(builder.clone());
        relay.run().await.map_err(during("start the relay"))?;
        Ok(Self { relay, builder })
    }

    pub async fn url(&self) -> RelayUrl {
        self.relay.url().await
    }

    /// Stops it. [`Relay::restart`] brings it back with all that it stored.
    pub fn stop(&self) {
        self.relay.shutdown();
    }

    /// Starts it again at the same address, with what it stored.
    pub async fn restart(&mut self) -> Result<()> {
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

fn unlimited() -> RelayBuilder {
    RelayBuilder::default().rate_limit(RateLimit { max_reqs: 500, notes_per_minute: 100_000 })
}
