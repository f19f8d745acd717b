//! Fetches the components of resources, and applies them.

use crate::applier::Applier;
use crate::desired::{
    ApplyStatus, Completeness, DesiredPolicy, FetchError, Reconcile, UntrustedComponent,
};
use async_trait::async_trait;
use paygress_oci::{ComponentFetcher, Digest};
use paygress_policy::Publisher;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Components that are cached from one reconciliation to the next.
const CACHED: usize = 8;

/// Applies the desired policies of resources with a [`Publisher`].
pub struct PolicyReconciler {
    applier: Arc<Applier>,
    fetcher: Arc<ComponentFetcher>,
    /// Components from registries, by the version of the resource: a tag that moves is not
    /// followed.
    pulled: Mutex<HashMap<String, Vec<u8>>>,
}

impl PolicyReconciler {
    #[must_use]
    pub fn new(publisher: Arc<Publisher>, fetcher: Arc<ComponentFetcher>) -> Self {
        Self { applier: Arc::new(Applier::new(publisher)), fetcher, pulled: Mutex::default() }
    }

    async fn verified(
        &self,
        version: &str,
        component: UntrustedComponent,
    ) -> Result<Vec<u8>, FetchError> {
        let reference = match component {
            UntrustedComponent::Inline { component, signature } => {
                self.fetcher.verify("the component", &component, signature.as_deref())?;
                return Ok(component);
            }
            UntrustedComponent::Oci(reference) => reference,
        };
        let mut pulled = self.pulled.lock().await;
        if let Some(component) = pulled.get(version) {
            return Ok(component.clone());
        }
        let component = self.fetcher.pull(&reference).await?.component;
        if pulled.len() >= CACHED {
            pulled.clear();
        }
        pulled.insert(version.to_owned(), component.clone());
        Ok(component)
    }
}

#[async_trait]
impl Reconcile for PolicyReconciler {
    async fn fetch(
        &self,
        version: &str,
        component: UntrustedComponent,
        digest: Option<&str>,
    ) -> Result<Vec<u8>, FetchError> {
        let component = self.verified(version, component).await?;
        let found = Digest::of(&component);
        match digest.map(|digest| digest.trim_start_matches("sha256:")) {
            Some(digest) if digest != found.hex() => Err(FetchError::DigestMismatch { found }),
            _ => Ok(component),
        }
    }

    async fn reconcile(
        &self,
        desired: Vec<DesiredPolicy>,
        completeness: Completeness,
    ) -> Vec<ApplyStatus> {
        let applier = Arc::clone(&self.applier);
        let aborted =
            ApplyStatus::Waiting("the last reconciliation failed; see the log".to_owned());
        let aborted = vec![aborted; desired.len()];
        // Compiling takes long.
        tokio::task::spawn_blocking(move || applier.apply(desired, completeness))
            .await
            .unwrap_or(aborted)
    }
}
