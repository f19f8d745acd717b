//! Keys on the curve P-256, and the signatures that they make: those of cosign and openssl.

use crate::bundle::{self, Bundle, BundleError, Material, Signed};
use crate::digest::Digest;
use crate::signature::{PayloadError, Signature, signed_digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::PublicKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
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
    #[error(
        "there is no signature; make one by `paygress policy sign`, or `paygress policy push --sign`"
    )]
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
    /// It is by a certificate that was made for it, and that nothing here can verify.
    #[error(
        "the signature is keyless, by a certificate: it is not verified; sign with a key, as by `cosign sign --key`"
    )]
    Keyless,
    #[error("the signature cannot be used: {0}")]
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
        let (payload, signature) = match signature {
            Signature::Bundle(text) => return self.verify_bundle(digest, text),
            Signature::Simple { payload, signature } => (payload, signature),
        };
        let name = self.verify_blob(payload, signature)?;
        let signed = signed_digest(payload).map_err(|error| match error {
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

    /// The name of the key that signed these bytes, with a signature as [`SigningKey::sign_blob`] and
    /// `cosign sign-blob` write it: base64, or a bundle.
    pub fn verify_blob(&self, bytes: &[u8], signature: &str) -> Result<&str, Unverified> {
        let (digest, signature) = (Digest::of(bytes), signature.trim());
        if signature.is_empty() {
            return Err(Unverified::NoSignature);
        }
        if bundle::is_bundle(signature) {
            return self.verify_bundle(&digest, signature);
        }
        let der = BASE64_STANDARD.decode(signature).map_err(|_| {
            Unverified::Malformed("it is neither the base64 of a signature nor a Sigstore bundle")
        })?;
        self.signer(&digest, &der)
    }

    /// The name of the key that signed what has this digest, or a statement about it.
    fn verify_bundle(&self, digest: &Digest, text: &str) -> Result<&str, Unverified> {
        let malformed = |BundleError(what)| Unverified::Malformed(what);
        let bundle = Bundle::parse(text).map_err(malformed)?;
        let signed = match &bundle.signed {
            Signed::Artifact => *digest,
            Signed::Statement(statement) => Digest::of(&bundle::signed_bytes(statement)),
        };
        let mut signers = bundle.signatures.iter().map(|der| self.signer(&signed, der));
        let first = signers.next().unwrap_or(Err(Unverified::NoSignature));
        let name = first.or_else(|error| signers.find_map(Result::ok).ok_or(error));
        let name = name.map_err(|error| match (bundle.material, error) {
            (Material::Certificate, Unverified::UnknownKey { .. }) => Unverified::Keyless,
            (_, error) => error,
        })?;
        let Signed::Statement(statement) = &bundle.signed else { return Ok(name) };
        let named = bundle::signed_digests(statement).map_err(malformed)?;
        if !named.contains(&digest.to_string()) {
            let digest = named.into_iter().next().unwrap_or_default();
            return Err(Unverified::OtherArtifact { key: name.to_owned(), digest });
        }
        Ok(name)
    }

    /// The name of the key that made this signature of what has this digest.
    fn signer(&self, digest: &Digest, der: &[u8]) -> Result<&str, Unverified> {
        let signature = Ecdsa::from_der(der)
            .map_err(|_| Unverified::Malformed("it is not ECDSA on P-256 in DER"))?;
        let is_signer =
            |key: &VerifyingKey| key.verify_prehash(digest.as_bytes(), &signature).is_ok();
        let signer = self.0.iter().find(|(_, key)| is_signer(key));
        let unknown =
            || Unverified::UnknownKey { known: self.names().collect::<Vec<_>>().join(", ") };
        signer.map(|(name, _)| name.as_str()).ok_or_else(unknown)
    }
}

fn nearness(error: &Unverified) -> u8 {
    match error {
        Unverified::NoSignature => 0,
        Unverified::Malformed(_) => 1,
        Unverified::Keyless => 2,
        Unverified::UnknownKey { .. } => 3,
        Unverified::OtherArtifact { .. } => 4,
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
