//! `paygress gateway`: the gateway in a process of its own, with health and metrics.

use super::info::KnownGateway;
use super::open::OpenGateway;
use crate::config::{Config, GatewayConfig};
use anyhow::{Context, Result};
use async_trait::async_trait;
use paygress_core::backend::cluster::ClusterHealth;
use paygress_core::backend::gateway::{GatewayCounts, GatewayHealth, GatewayInfo};
use paygress_core::readiness::{UnreadyReason, unready_backends};
use paygress_core::{Cluster, Ledger};
use paygress_http::{GatewayServer, GatewayServerSettings};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// The health of the gateway, and of what it depends on.
struct StandaloneHealth {
    ledger: Arc<dyn Ledger>,
    cluster: Arc<dyn ClusterHealth>,
    known: Arc<KnownGateway>,
}

#[async_trait]
impl GatewayHealth for StandaloneHealth {
    async fn unready_reasons(&self) -> Vec<UnreadyReason> {
        let mut reasons = unready_backends(&*self.ledger, &*self.cluster).await;
        reasons.extend(self.known.unready_reason());
        reasons
    }

    fn warnings(&self) -> Vec<&'static str> {
        self.known.warning().into_iter().collect()
    }

    fn counts(&self) -> GatewayCounts {
        self.known.counts().unwrap_or_default()
    }
}

/// The gateway, without the service. Its sockets are open, and it serves nobody yet.
pub struct StandaloneGateway {
    gateway: OpenGateway,
    server: Option<GatewayServer>,
}

impl StandaloneGateway {
    /// Opens its sockets.
    ///
    /// # Errors
    /// What cannot be opened or read.
    pub async fn open(
        config: &Config,
        settings: &GatewayConfig,
        ledger: Arc<dyn Ledger>,
        cluster: impl Into<Cluster>,
    ) -> Result<Self> {
        let cluster: Cluster = cluster.into();
        let streams = cluster.features.pod_streams().context("the cluster has no way to pods")?;
        let gateway = OpenGateway::open(config, settings, Arc::clone(&ledger), streams).await?;
        let server = match settings.http.clone() {
            Some(http) => {
                let settings = GatewayServerSettings {
                    bind: http.listen,
                    operator_token: http.operator_token,
                };
                let known = Arc::clone(&gateway.known);
                let health = Arc::new(StandaloneHealth { ledger, cluster: cluster.health, known });
                Some(GatewayServer::bind(settings, health).await?)
            }
            None => None,
        };
        Ok(Self { gateway, server })
    }

    /// Where its health and metrics are, if they are served.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(GatewayServer::address)
    }

    /// Serves until `stop` is `true` or its sender is dropped.
    pub async fn serve(self, stop: watch::Receiver<bool>) {
        let Self { gateway, server } = self;
        let health = async {
            match server {
                Some(server) => server.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gateway.serve(None, stop) => {}
            () = health => {}
        }
    }
}
