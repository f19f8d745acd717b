//! The gateway's sockets, and what customers know of them.

use super::info::{KnownGateway, Tickets};
use super::keys;
use super::leases::StoredLeases;
use crate::config::{Config, GatewayConfig, IrohConfig, JumpHostConfig};
use crate::private_file::directory_of;
use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use paygress_core::Ledger;
use paygress_core::backend::gateway::GatewayInfo;
use paygress_core::backend::pod_streams::PodStreams;
use paygress_core::listen_addresses;
use paygress_core::model::gateway::JumpHostAddress;
use paygress_core::model::host_key::HostKey;
use paygress_gateway::{
    EndpointKey, EndpointOptions, Gateway, GatewayHostKey, GatewayTicket, IrohEndpoint, JumpHost,
};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A gateway with open sockets, that serves nobody yet.
pub struct OpenGateway {
    gateway: Gateway,
    leases: Arc<StoredLeases>,
    pub(super) known: Arc<KnownGateway>,
}

fn key_directory<'a>(config: &'a Config, gateway: &'a GatewayConfig) -> &'a Path {
    gateway.keys.as_deref().unwrap_or_else(|| directory_of(&config.ledger))
}

/// A key of this directory, read or made off the async threads.
async fn load_key<K: Send + 'static>(directory: &Path, load: fn(&Path) -> Result<K>) -> Result<K> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || load(&directory)).await?
}

/// The jump host, as customers know it.
fn jump_host_address(
    config: &Config,
    jump_host: &JumpHostConfig,
    port: u16,
    key: &GatewayHostKey,
) -> Result<JumpHostAddress> {
    Ok(JumpHostAddress {
        host: jump_host.host.clone().unwrap_or_else(|| config.ssh_host.clone()),
        port: jump_host.port.unwrap_or(port),
        host_key: HostKey::parse(&key.public_line()?)?,
    })
}

fn endpoint_options(key: EndpointKey, iroh: &IrohConfig) -> EndpointOptions {
    EndpointOptions {
        key,
        udp: iroh.bind.clone(),
        external: iroh.external.clone(),
        relays: iroh.relays.clone(),
    }
}

/// What offers say of the gateway, as far as it follows from the configuration and from keys that
/// exist.
pub(crate) struct Offered {
    /// None: it is off, or listens on any port that is free.
    pub(crate) jump_host: Option<JumpHostAddress>,
    /// None: it is off, or only its process knows its addresses.
    pub(crate) ticket: Option<GatewayTicket>,
}

impl Offered {
    /// Reads the keys, and makes none that are missing.
    ///
    /// # Errors
    /// Its keys cannot be read.
    pub(crate) fn read(config: &Config, gateway: &GatewayConfig) -> Result<Self> {
        let directory = key_directory(config, gateway);
        let mut offered = Self { jump_host: None, ticket: None };
        if let Some(jump_host) = &gateway.jump_host {
            let (key, port) = (keys::existing_host_key(directory)?, jump_host.listen.port());
            let address = jump_host_address(config, jump_host, port, &key)?;
            offered.jump_host = Some(address).filter(|address| address.port != 0);
        }
        if let Some(iroh) = &gateway.iroh {
            let mut options = endpoint_options(keys::existing_endpoint_key(directory)?, iroh);
            if options.external.is_empty() {
                let own = iroh.bind.iter().filter(|it| !it.ip().is_unspecified() && it.port() != 0);
                options.external = own.copied().collect();
            }
            let is_found = !options.external.is_empty() || !options.relays.is_empty();
            offered.ticket = is_found.then(|| options.ticket());
        }
        Ok(offered)
    }
}

/// The gateway that another process serves, with the same configuration and keys.
///
/// # Errors
/// Its keys cannot be read.
pub async fn of_other_process(
    config: &Config,
    gateway: &GatewayConfig,
) -> Result<Arc<dyn GatewayInfo>> {
    let directory = key_directory(config, gateway);
    let mut known = KnownGateway::default();
    if let Some(jump_host) = &gateway.jump_host {
        let key = load_key(directory, keys::host_key).await?;
        let port = jump_host.listen.port();
        known.jump_host = Some(jump_host_address(config, jump_host, port, &key)?);
    }
    if let Some(iroh) = &gateway.iroh {
        let key = load_key(directory, keys::endpoint_key).await?;
        let ticket = endpoint_options(key, iroh).ticket();
        known.tickets = Some(Tickets::Configured(ticket));
    }
    Ok(Arc::new(known))
}

impl OpenGateway {
    /// Opens its sockets.
    ///
    /// # Errors
    /// What cannot be opened or read.
    pub async fn open(
        config: &Config,
        gateway: &GatewayConfig,
        ledger: Arc<dyn Ledger>,
        streams: Arc<dyn PodStreams>,
    ) -> Result<Self> {
        let directory = key_directory(config, gateway);
        let leases = Arc::new(StoredLeases::new(ledger));
        let mut served = Gateway::new(leases.clone(), streams);
        let mut known = KnownGateway { counts: Some(served.counts()), ..KnownGateway::default() };
        if let Some(jump_host) = &gateway.jump_host {
            let listen = jump_host.listen;
            let listener = TcpListener::bind(&listen_addresses(listen)[..])
                .await
                .with_context(|| format!("GATEWAY_SSH_LISTEN: {listen} cannot be listened on"))?;
            let key = load_key(directory, keys::host_key).await?;
            let port = listener.local_addr()?.port();
            known.jump_host = Some(jump_host_address(config, jump_host, port, &key)?);
            served = served.with_jump_host(JumpHost::new(listener, key));
        }
        if let Some(iroh) = &gateway.iroh {
            let key = load_key(directory, keys::endpoint_key).await?;
            let options = endpoint_options(key, iroh);
            let endpoint = IrohEndpoint::bind(options).await.context("GATEWAY_IROH_BIND")?;
            known.tickets = Some(Tickets::Endpoint(endpoint.clone()));
            served = served.with_endpoint(endpoint);
        }
        Ok(Self { gateway: served, leases, known: Arc::new(known) })
    }

    /// What answers show of it.
    #[must_use]
    pub fn info(&self) -> Arc<dyn GatewayInfo> {
        self.known.clone()
    }

    /// Serves until `stop` is `true` or its sender is dropped. `ends` notifies of leases that this
    /// process has ended.
    pub fn serve(
        self,
        ends: Option<watch::Receiver<()>>,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, ()> {
        let Self { gateway, leases, known } = self;
        let ways = known.ways();
        tracing::info!(
            jump_host = ways.jump_host.is_some(),
            endpoint = ways.iroh.map(|iroh| iroh.endpoint_id),
            "the gateway serves"
        );
        let served = async move {
            tokio::select! {
                () = gateway.serve(stop) => {}
                () = leases.watch(ends) => {}
            }
        };
        served.boxed()
    }
}
