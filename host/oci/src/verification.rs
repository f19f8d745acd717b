//! Which components are accepted, by their signatures.

use crate::digest::Digest;
use crate::keys::{Keys, Unverified};
use crate::signature::Signature;

/// What is done about components without a signature by a known key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureMode {
    /// Signatures are not checked.
    #[default]
    Off,
    /// They are accepted, with a warning in the log.
    Warn,
    /// They are rejected.
    Required,
}

/// The known keys, and what is done about components that none of them has signed.
#[derive(Clone, Debug, Default)]
pub struct VerificationPolicy {
    keys: Keys,
    mode: SignatureMode,
}

impl VerificationPolicy {
    /// Without any key, [`SignatureMode::Required`] accepts nothing.
    #[must_use]
    pub fn new(keys: Keys, mode: SignatureMode) -> Self {
        Self { keys, mode }
    }

    #[must_use]
    pub fn mode(&self) -> SignatureMode {
        self.mode
    }

    /// Verifies a file by the signature beside it. `subject` is its name, for the log.
    pub fn verify_blob(
        &self,
        subject: &str,
        bytes: &[u8],
        signature: Option<&str>,
    ) -> Result<(), Unverified> {
        self.enforce(subject, || self.keys.verify_blob(bytes, signature.unwrap_or_default()))
    }

    /// Verifies an artifact by its signatures.
    pub fn verify_image(
        &self,
        subject: &str,
        digest: &Digest,
        signatures: &[Signature],
    ) -> Result<(), Unverified> {
        self.enforce(subject, || self.keys.verify_image(digest, signatures))
    }

    fn enforce<'a>(
        &self,
        subject: &str,
        verify: impl FnOnce() -> Result<&'a str, Unverified>,
    ) -> Result<(), Unverified> {
        if self.mode == SignatureMode::Off {
            return Ok(());
        }
        match verify() {
            Ok(key) => tracing::debug!(subject, key, "a policy's signature is valid"),
            Err(error) if self.mode == SignatureMode::Required => return Err(error),
            Err(error) => {
                tracing::warn!(subject, %error, "a policy is accepted without a valid signature");
            }
        }
        Ok(())
    }
}
