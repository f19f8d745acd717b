//! The service on the sandbox's parts: for the demo and for tests.

use crate::app::App;
use crate::config::Config;
use anyhow::Result;
use paygress_sandbox::{LocalCluster, Relay, Services, TestMint};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A service's configuration, and the relay, the mint and the directory that it names.
pub struct Sandbox {
    pub mint: TestMint,
    pub relay: Relay,
    pub config: Config,
    /// What [`Sandbox::config`] was read from.
    pub environment: BTreeMap<String, String>,
    /// Removed, with all that the service stored, when this is dropped.
    pub directory: tempfile::TempDir,
    _compiled: Arc<tempfile::TempDir>,
}

impl Sandbox {
    /// Starts relay and mint. `environment` and `file` are added to the settings that name them.
    ///
    /// # Errors
    /// When a part cannot be started, or the settings are wrong.
    pub async fn new(environment: &[(&str, &str)], file: &str) -> Result<Self> {
        Self::build(environment, file, "").await
    }

    /// A sandbox whose service accepts the tokens of another mint too.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub async fn accepting(mint: &str) -> Result<Self> {
        Self::build(&[], "", mint).await
    }

    async fn build(added: &[(&str, &str)], file: &str, another_mint: &str) -> Result<Self> {
        let services = Services::start().await?;
        let mut environment = services.settings().await?;
        let mints = format!("{},{another_mint}", services.mint.url());
        environment.insert("WHITELISTED_MINTS".to_owned(), mints);
        environment
            .extend(added.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let config = Config::read(Some(file), environment.clone())?;
        let Services { mint, relay, directory, compiled } = services;
        Ok(Self { mint, relay, config, environment, directory, _compiled: compiled })
    }

    /// Pods in this process, without isolation: for tests alone.
    #[must_use]
    pub fn cluster(&self) -> Arc<LocalCluster> {
        Arc::new(LocalCluster::in_process(self.directory.path().join("homes")))
    }

    /// The service with these pods, not yet running. Once it has ended another one can be built on
    /// what it stored.
    ///
    /// # Errors
    /// What cannot be opened.
    pub async fn app(&self) -> Result<App> {
        App::build(&self.config, self.cluster(), |backends| backends).await
    }
}
