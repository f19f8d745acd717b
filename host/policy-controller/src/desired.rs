//! What the controller asks of the policies: types and the trait between the two.

use crate::resource::Mode;
use async_trait::async_trait;
use paygress_cluster::connection::RequestError;
use paygress_core::backend::policy::{Configured, Slot};
use paygress_oci::{Digest, Error as RegistryError, FetchError as FetcherError};

/// A component as a resource names it, not verified yet.
#[derive(Debug)]
pub enum UntrustedComponent {
    /// From a ConfigMap, with the signature beside it.
    Inline { component: Vec<u8>, signature: Option<String> },
    /// The reference of an artifact in a registry.
    Oci(String),
}

/// There is no component.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("there is no ConfigMap {0} in this namespace")]
    NoConfigMap(String),
    #[error(
        "the ConfigMap {name} has no binaryData {key}; create it with `kubectl create configmap {name} --from-file={key}=…`"
    )]
    NoKey { name: String, key: String },
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
    #[error("the component's digest is {found}, not the one in the resource")]
    DigestMismatch { found: Digest },
}

impl FetchError {
    /// Whether the component was fetched, and then not accepted.
    #[must_use]
    pub fn is_unverified(&self) -> bool {
        matches!(
            self,
            Self::DigestMismatch { .. }
                | Self::Fetcher(
                    FetcherError::Unverified { .. }
                        | FetcherError::Registry(RegistryError::DigestMismatch { .. })
                )
        )
    }
}

/// The desired policy of one resource.
#[derive(Debug)]
pub struct DesiredPolicy {
    pub slot: Slot,
    pub mode: Mode,
    /// None while it cannot be fetched or verified.
    pub component: Option<Vec<u8>>,
    /// A JSON object.
    pub settings: String,
    /// The resource's uid and generation: unique to the resource and to each change of its spec.
    pub version: String,
}

/// Whether the desired policies are all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// The spec of a resource could not be read.
    Partial,
}

/// The result of applying a desired policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyStatus {
    /// It decides. When it takes its settings.
    Active(Configured),
    /// It is called beside the active one.
    Shadowing(Configured),
    /// It is not valid; the reason.
    Refused(String),
    /// It is not known to be invalid, and not active; the reason.
    Waiting(String),
    /// It was active until the operator activated another one; which.
    Superseded(String),
}

/// Fetches components, and applies desired policies.
#[async_trait]
pub trait Reconcile: Send + Sync {
    /// The component, once its signature, and its digest if one is given, are verified.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(
        &self,
        version: &str,
        component: UntrustedComponent,
        digest: Option<&str>,
    ) -> Result<Vec<u8>, FetchError>;

    /// Applies all desired policies or none; returns the status of each, in the same order. Changes
    /// nothing while the set is partial or one of the policies has no component.
    async fn reconcile(
        &self,
        desired: Vec<DesiredPolicy>,
        completeness: Completeness,
    ) -> Vec<ApplyStatus>;
}
