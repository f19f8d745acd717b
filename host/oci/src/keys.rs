//! Keys on the curve P-256, and the signatures that they make: those of cosign and openssl.

use crate::digest::Digest;
use crate::signature::{PayloadError, Signature, signed_digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::PublicKey;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature as Ecdsa, SigningKey as Secret, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

/// Why a key is not accepted. No source of a parser is kept: it could describe a private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the key is encrypted, which is not supported: make one with `openssl genpkey -algorithm EC -pkeyopt \
         ec_paramgen_curve:P-256`, which `cosign import-key-pair` accepts too"
    )]
    Encrypted,
    /// As `openssl ecparam` writes it.
    #[error("the key is in an older form: convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    OldFormat,
    #[error(
        "this is not a private key on the curve P-256 in PEM, which begins -----BEGIN PRIVATE KEY-----"
    )]
    NotPrivate,
    #[error(
        "{0}: this is not a public key on the curve P-256 in PEM, which begins -----BEGIN PUBLIC KEY-----, as cosign.pub"
    )]
    NotPublic(String),
    #[error("{0}: there is another key of this name")]
    Duplicate(String),
}

/// Why a file with a public key is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{name} cannot be read: {error}")]
    Read { name: String, error: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why something is not known to be signed by a known key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("there is no signature")]
    NoSignature,
    /// It is signed by another key, or has changed since.
    #[error("no signature is by a known key ({known}), or what was signed has changed since")]
    UnknownKey {
        /// The names of the known keys.
        known: String,
    },
    /// A valid signature of something else was copied.
    #[error("the signature by {key} is for another artifact, {digest:?}")]
    OtherArtifact { key: String, digest: String },
    #[error("the signature is malformed: {0}")]
    Malformed(&'static str),
}

/// Public keys, by the names that the operator gives them.
#[derive(Clone, Debug, Default)]
pub struct Keys(BTreeMap<String, VerifyingKey>);

impl Keys {
    /// Adds a key in PEM, as in `cosign.pub`.
    pub fn add(&mut self, name: &str, pem: &str) -> Result<(), KeyError> {
        let key = VerifyingKey::from_public_key_pem(pem.trim())
            .map_err(|_| KeyError::NotPublic(name.to_owned()))?;
        if self.0.contains_key(name) {
            return Err(KeyError::Duplicate(name.to_owned()));
        }
        self.0.insert(name.to_owned(), key);
        Ok(())
    }

    /// Adds the key in this file, named by its path.
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeyFileError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(pem) => Ok(self.add(&name, &pem)?),
            Err(error) => Err(KeyFileError::Read { name, error }),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The name of the key that signed the artifact with this digest. One valid signature is
    /// enough; if there is none, the error is about the one that came nearest.
    pub fn verify_image(
        &self,
        digest: &Digest,
        signatures: &[Signature],
    ) -> Result<&str, Unverified> {
        let mut nearest = Unverified::NoSignature;
        for signature in signatures {
            match self.verify_one(digest, signature) {
                Ok(name) => return Ok(name),
                Err(error) if nearness(&error) > nearness(&nearest) => nearest = error,
                Err(_) => (),
            }
        }
        Err(nearest)
    }

    fn verify_one(&self, digest: &Digest, signature: &Signature) -> Result<&str, Unverified> {
        let name = self.verify_blob(&signature.payload, &signature.signature)?;
        let signed = signed_digest(&signature.payload).map_err(|error| match error {
            PayloadError::Malformed => Unverified::Malformed("its payload is not cosign's"),
            PayloadError::OtherType => {
                Unverified::Malformed("its payload is of another type than cosign's")
            }
        })?;
        if signed != digest.to_string() {
            return Err(Unverified::OtherArtifact { key: name.to_owned(), digest: signed });
        }
        Ok(name)
    }

    /// The name of the key that signed these bytes, with a signature as `cosign sign-blob` and
    /// [`SigningKey::sign_blob`] write it.
    pub fn verify_blob(&self, bytes: &[u8], signature: &str) -> Result<&str, Unverified> {
        let signature = signature.trim();
        if signature.is_empty() {
            return Err(Unverified::NoSignature);
        }
        let der = BASE64_STANDARD
            .decode(signature)
            .map_err(|_| Unverified::Malformed("it is not base64"))?;
        let signature = Ecdsa::from_der(&der)
            .map_err(|_| Unverified::Malformed("it is not ECDSA on P-256 in DER"))?;
        let signer = self.0.iter().find(|(_, key)| key.verify(bytes, &signature).is_ok());
        let unknown =
            || Unverified::UnknownKey { known: self.names().collect::<Vec<_>>().join(", ") };
        signer.map(|(name, _)| name.as_str()).ok_or_else(unknown)
    }
}

fn nearness(error: &Unverified) -> u8 {
    match error {
        Unverified::NoSignature => 0,
        Unverified::Malformed(_) => 1,
        Unverified::UnknownKey { .. } => 2,
        Unverified::OtherArtifact { .. } => 3,
    }
}

/// A private key. It is never shown.
#[derive(Clone)]
pub struct SigningKey(Secret);

impl SigningKey {
    /// Reads a key in PKCS #8, in PEM and not encrypted.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let first = pem.lines().find(|line| line.starts_with("-----BEGIN ")).unwrap_or_default();
        if first.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        if first.contains("EC PRIVATE KEY") || first.contains("EC PARAMETERS") {
            return Err(KeyError::OldFormat);
        }
        Secret::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| KeyError::NotPrivate)
    }

    /// Signs bytes, as `cosign sign-blob` does. The same bytes always get the same signature.
    #[must_use]
    pub fn sign_blob(&self, bytes: &[u8]) -> String {
        let signature: Ecdsa = self.0.sign(bytes);
        BASE64_STANDARD.encode(signature.to_der())
    }

    /// The public key in PEM, for [`Keys::add`] and `cosign verify`.
    #[must_use]
    pub fn public_pem(&self) -> String {
        PublicKey::from(self.0.verifying_key())
            .to_public_key_pem(LineEnding::LF)
            .unwrap_or_default()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}
