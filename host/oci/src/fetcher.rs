//! Where components come from: a registry, and a judgement of whose they are.

use crate::error::Error;
use crate::keys::Unverified;
use crate::reference::{Reference, ReferenceError};
use crate::registry::{Artifact, Registry};
use crate::verification::{SignatureMode, VerificationPolicy};
use std::sync::Arc;

/// Registries and known keys.
pub struct ComponentFetcher {
    registry: Registry,
    trust: Arc<VerificationPolicy>,
    limit_bytes: usize,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is named in a way that names nothing.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It could not be had.
    #[error(transparent)]
    Registry(#[from] Error),
    /// It is nobody's whom we know.
    #[error("{what}: {why}")]
    Unverified {
        /// The reference or file.
        what: String,
        /// Why.
        why: Unverified,
    },
}

impl ComponentFetcher {
    /// Components of at most so many bytes.
    #[must_use]
    pub fn new(registry: Registry, trust: Arc<VerificationPolicy>, limit_bytes: usize) -> Self {
        Self { registry, trust, limit_bytes }
    }

    /// The component of this reference, verified.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn pull(&self, reference: &str) -> Result<Artifact, FetchError> {
        let reference: Reference = reference.parse()?;
        let artifact = self.registry.pull(&reference, self.limit_bytes).await?;
        if self.trust.wanted() != SignatureMode::Off {
            let what = reference.to_string();
            let signatures = match self
                .registry
                .signatures(&reference, &artifact.manifest_digest)
                .await
            {
                Ok(signatures) => signatures,
                Err(why) if self.trust.wanted() == SignatureMode::Required => {
                    return Err(why.into());
                }
                Err(why) => {
                    tracing::warn!(what, %why, "a policy is taken although its signatures cannot be read");
                    return Ok(artifact);
                }
            };
            self.trust
                .image(&what, &artifact.manifest_digest, &signatures)
                .map_err(|why| FetchError::Unverified { what, why })?;
        }
        Ok(artifact)
    }

    /// Judges a component that is here, with the signature that came with it.
    ///
    /// # Errors
    /// [`FetchError::Unverified`].
    pub fn judge(
        &self,
        what: &str,
        component: &[u8],
        signature: Option<&str>,
    ) -> Result<(), FetchError> {
        self.trust
            .blob(what, component, signature)
            .map_err(|why| FetchError::Unverified { what: what.to_owned(), why })
    }
}
