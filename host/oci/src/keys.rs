//! Who signed it: keys on the curve P-256, and cosign's words for what they sign.

use crate::digest::Digest;
use crate::reference::Reference;
use crate::signatures::Signature;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::PublicKey;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature as Ecdsa, SigningKey as Secret, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

const KIND: &str = "cosign container image signature";

/// Why a key is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It needs a password.
    #[error(
        "the key is encrypted, and no password is asked for: make one with `openssl genpkey -algorithm EC -pkeyopt \
         ec_paramgen_curve:P-256`, which `cosign import-key-pair` takes too"
    )]
    Encrypted,
    /// It is in the form of `openssl ecparam`.
    #[error("the key is in an older form: convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    Older,
    /// It is not a private key.
    #[error(
        "this is not a private key on the curve P-256 in PEM, which begins -----BEGIN PRIVATE KEY-----"
    )]
    NotPrivate,
    /// It is not a public key.
    #[error(
        "{0}: this is not a public key on the curve P-256 in PEM, which begins -----BEGIN PUBLIC KEY-----, as cosign.pub"
    )]
    NotPublic(String),
    /// There is one of this name.
    #[error("{0}: there is another key of this name")]
    Twice(String),
}

/// Why something is not known to be from somebody whom we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Nobody signed it.
    #[error("there is no signature")]
    NoSignature,
    /// Somebody signed it, or it has changed since.
    #[error("no signature is by a known key ({known}), or what was signed has changed since")]
    UnknownKey {
        /// The names of the keys that are known.
        known: String,
    },
    /// A signature was carried here from elsewhere.
    #[error("the signature by {key} is for another artefact, {digest:?}")]
    OtherArtefact {
        /// Whose signature it is.
        key: String,
        /// What it is for, as it says itself.
        digest: String,
    },
    /// It is no signature.
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
            return Err(KeyError::Twice(name.to_owned()));
        }
        self.0.insert(name.to_owned(), key);
        Ok(())
    }

    /// Adds the key in this file, by its path.
    pub fn add_file(&mut self, path: &Path) -> Result<(), String> {
        let name = path.display().to_string();
        let pem = std::fs::read_to_string(path)
            .map_err(|error| format!("{name} cannot be read: {error}"))?;
        self.add(&name, &pem).map_err(|error| error.to_string())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Who signed the artefact with this digest. One good signature is enough; if there is none,
    /// the error tells of the one that came nearest.
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
        let payload: Payload = serde_json::from_slice(&signature.payload)
            .map_err(|_| Unverified::Malformed("its payload is not cosign's"))?;
        if payload.critical.kind != KIND {
            return Err(Unverified::Malformed("its payload is of another type than cosign's"));
        }
        let signed = payload.critical.image.digest;
        if signed != digest.to_string() {
            return Err(Unverified::OtherArtefact { key: name.to_owned(), digest: signed });
        }
        Ok(name)
    }

    /// Who signed these bytes, with a signature as `cosign sign-blob` and [`SigningKey::sign_blob`]
    /// write it.
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
        Unverified::OtherArtefact { .. } => 3,
    }
}

/// What cosign signs, as far as it is read.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// What is signed for an artefact.
pub(crate) fn payload(reference: &Reference, digest: &Digest) -> Vec<u8> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let payload = serde_json::json!({
        "critical": {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}, "type": KIND},
        "optional": null,
    });
    crate::manifest::written(&payload)
}

/// A private key.
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
            return Err(KeyError::Older);
        }
        Secret::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| KeyError::NotPrivate)
    }

    /// Signs bytes, as `cosign sign-blob` does. The same bytes have the same signature.
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
