//! Whose policies are taken.

use crate::digest::Digest;
use crate::keys::{Keys, Unverified};
use crate::signatures::Signature;

/// What the operator wants of signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureMode {
    /// Nobody looks at them.
    #[default]
    Off,
    /// What is not signed by a known key is taken, and the log says so.
    Warn,
    /// What is not signed by a known key is not taken.
    Required,
}

/// Known keys, and what follows when none of them has signed.
#[derive(Clone, Debug, Default)]
pub struct VerificationPolicy {
    keys: Keys,
    wanted: SignatureMode,
}

impl VerificationPolicy {
    /// These keys; without any, everything but [`SignatureMode::Off`] takes nothing for signed.
    #[must_use]
    pub fn new(keys: Keys, wanted: SignatureMode) -> Self {
        Self { keys, wanted }
    }

    /// What is wanted.
    #[must_use]
    pub fn wanted(&self) -> SignatureMode {
        self.wanted
    }

    /// Judges a file with the signature beside it. `what` is its name, for the log.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn blob(
        &self,
        what: &str,
        bytes: &[u8],
        signature: Option<&str>,
    ) -> Result<(), Unverified> {
        self.judge(what, || self.keys.verify_blob(bytes, signature.unwrap_or_default()))
    }

    /// Judges an artefact with its signatures.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn image(
        &self,
        what: &str,
        digest: &Digest,
        signatures: &[Signature],
    ) -> Result<(), Unverified> {
        self.judge(what, || self.keys.verify_image(digest, signatures))
    }

    fn judge<'a>(
        &self,
        what: &str,
        verdict: impl FnOnce() -> Result<&'a str, Unverified>,
    ) -> Result<(), Unverified> {
        match self.wanted {
            SignatureMode::Off => Ok(()),
            SignatureMode::Warn => {
                match verdict() {
                    Ok(key) => tracing::debug!(what, key, "a policy's signature is good"),
                    Err(why) => {
                        tracing::warn!(what, %why, "a policy is taken although it is not signed as it should be")
                    }
                }
                Ok(())
            }
            SignatureMode::Required => {
                let key = verdict()?;
                tracing::debug!(what, key, "a policy's signature is good");
                Ok(())
            }
        }
    }
}
