//! Fetches the components of resources, and applies them.

use crate::applier::Applier;
use crate::desired::{
    ApplyStatus, Completeness, DesiredPolicy, FetchError, Reconcile, UntrustedComponent,
};
use async_trait::async_trait;
use paygress_oci::{ComponentFetcher, Digest};
use paygress_policy::Publisher;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Components that are cached from one reconciliation to the next.
const CACHED: usize = 8;

/// Applies the desired policies of resources with a [`Publisher`].
pub struct PolicyReconciler {
    applier: Arc<Applier>,
    components: Components,
}

/// Fetches components.
struct Components {
    fetcher: Arc<ComponentFetcher>,
    /// Components from registries, by the version of the resource: a tag that moves is not
    /// followed. Not locked while a registry answers: another one may be faster.
    pulled: Mutex<HashMap<String, Vec<u8>>>,
}

impl PolicyReconciler {
    #[must_use]
    pub fn new(publisher: Arc<Publisher>, fetcher: Arc<ComponentFetcher>) -> Self {
        let components = Components { fetcher, pulled: Mutex::default() };
        Self { applier: Arc::new(Applier::new(publisher)), components }
    }
}

impl Components {
    fn pulled(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner)
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
        let known = self.pulled().get(version).cloned();
        if let Some(component) = known {
            return Ok(component);
        }
        let component = self.fetcher.pull(&reference).await?.component;
        let mut pulled = self.pulled();
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
        let component = self.components.verified(version, component).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_oci::testing::{BlobBehavior, RequiredAuth, TestRegistry};
    use paygress_oci::{
        Keys, Package, Registry, RegistryOptions, SignatureMode, Timeouts, VerificationPolicy,
    };
    use std::collections::BTreeMap;
    use std::time::Duration;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 a policy";

    async fn registry() -> (TestRegistry, String) {
        let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
        let reference = format!("oci://{}/policies/pricing:1", server.host());
        let package = Package {
            component: COMPONENT,
            exports: &["paygress:policy/pricing@1.0.0".to_owned()],
            imports: &[],
            author: None,
            created: None,
            annotations: &BTreeMap::new(),
        };
        let client = Registry::new(None).unwrap();
        client.push(&reference.parse().unwrap(), &package).await.unwrap();
        (server, reference)
    }

    /// The hanging one is first in the queue, and stays there: its time-out is an error here.
    #[tokio::test]
    async fn a_registry_that_hangs_does_not_delay_another_one() {
        let (hanging, slow) = registry().await;
        let (answering, quick) = registry().await;
        hanging.set_blob_behavior(BlobBehavior::Stall);
        let timeouts = Timeouts::all(Duration::from_secs(30));
        let options = RegistryOptions { timeouts, ..RegistryOptions::default() };
        let verification = VerificationPolicy::new(Keys::default(), SignatureMode::Off);
        let registry = Registry::with_options(&options).unwrap();
        let fetcher = ComponentFetcher::new(registry, Arc::new(verification), 1 << 20);
        let components = Components { fetcher: Arc::new(fetcher), pulled: Mutex::default() };
        let pull = |version: &'static str, reference: &str| {
            components.verified(version, UntrustedComponent::Oci(reference.to_owned()))
        };
        let mut slow = std::pin::pin!(pull("slow 1", &slow));
        for version in ["quick 1", "quick 2"] {
            tokio::select! {
                biased;
                found = &mut slow => panic!("{found:?}"),
                found = pull(version, &quick) => assert_eq!(found.unwrap(), COMPONENT),
            }
        }
        // What was pulled is not pulled again.
        drop(answering);
        assert_eq!(pull("quick 1", &quick).await.unwrap(), COMPONENT);
        assert_eq!(components.pulled().len(), 2);
    }
}
