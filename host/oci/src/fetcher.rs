//! Components from registries, verified.

use crate::artifact::Artifact;
use crate::error::Error;
use crate::keys::Unverified;
use crate::reference::{Reference, ReferenceError};
use crate::registry::Registry;
use crate::verification::{SignatureMode, VerificationPolicy};
use paygress_core::error_chain;
use std::sync::Arc;

/// Fetches components and applies the operator's verification policy to them.
pub struct ComponentFetcher {
    registry: Registry,
    verification: Arc<VerificationPolicy>,
    limit_bytes: usize,
}

/// Why there is no component. The text is complete, for operators, and includes that of the
/// sources; so they are fields, and not printed again by whoever prints sources too.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("{}", error_chain(.0))]
    Registry(Error),
    #[error("{subject}: {reason}")]
    Unverified {
        /// The reference or file.
        subject: String,
        reason: Unverified,
    },
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        Self::Registry(error)
    }
}

impl ComponentFetcher {
    /// Components may have at most `limit_bytes`.
    #[must_use]
    pub fn new(
        registry: Registry,
        verification: Arc<VerificationPolicy>,
        limit_bytes: usize,
    ) -> Self {
        Self { registry, verification, limit_bytes }
    }

    /// Fetches the component of this reference and verifies it.
    pub async fn pull(&self, reference: &str) -> Result<Artifact, FetchError> {
        let reference: Reference = reference.parse()?;
        let artifact = self.registry.pull(&reference, self.limit_bytes).await?;
        if self.verification.mode() == SignatureMode::Off {
            return Ok(artifact);
        }
        let subject = reference.to_string();
        let digest = &artifact.manifest_digest;
        match self.registry.signatures(&reference, digest).await {
            Ok(signatures) => {
                let verified = self.verification.verify_image(&subject, digest, &signatures);
                verified.map_err(|reason| FetchError::Unverified { subject, reason })?;
            }
            Err(error) if self.verification.mode() == SignatureMode::Required => {
                return Err(error.into());
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(
                    subject,
                    error,
                    "a policy is accepted although its signatures cannot be read"
                );
            }
        }
        Ok(artifact)
    }

    /// Verifies a component that did not come from a registry, by the signature that came with it.
    pub fn verify(
        &self,
        subject: &str,
        component: &[u8],
        signature: Option<&str>,
    ) -> Result<(), FetchError> {
        let verified = self.verification.verify_blob(subject, component, signature);
        verified.map_err(|reason| FetchError::Unverified { subject: subject.to_owned(), reason })
    }
}
