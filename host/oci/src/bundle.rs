//! Sigstore bundles, as cosign 3 writes them: a signature in JSON, with what it takes to verify it.
//!
//! Read is what a known key can sign: a signature of a file (`messageSignature`), or a statement about
//! an artifact in an envelope (`dsseEnvelope`). Certificates and transparency logs are not read: who
//! signed is decided by the operator's keys alone.

use crate::digest::Digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The type of bundles, in each of their versions up to the one that is read.
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A bundle, or what else a file with a signature has. A bundle with the proofs of a transparency log
/// has 10 KiB.
pub const MAX_SIGNATURE_BYTES: usize = 256 << 10;
/// Of one envelope: each is tried with each key.
const MAX_ENVELOPE_SIGNATURES: usize = 8;
const BUNDLE_TYPES: &str = "application/vnd.dev.sigstore.bundle";
const STATEMENT: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPES: &str = "https://in-toto.io/Statement/";
/// What `cosign sign` states. Other statements are about an artifact, and do not say that it may run.
pub(crate) const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What is signed, and by which signatures; any of them may be by a known key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) signed: Signed,
    /// In DER.
    pub(crate) signatures: Vec<Vec<u8>>,
    pub(crate) material: Material,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The artifact's own bytes.
    Artifact,
    /// These bytes, which name the artifacts.
    Statement(Vec<u8>),
}

/// What the bundle says of its signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Material {
    Key,
    /// Made for one signature, for an identity.
    Certificate,
}

/// Why a text is not a bundle that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BundleError(pub(crate) &'static str);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleJson {
    media_type: String,
    verification_material: MaterialJson,
    message_signature: Option<MessageSignatureJson>,
    dsse_envelope: Option<EnvelopeJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MaterialJson {
    public_key: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct MessageSignatureJson {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvelopeJson {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignatureJson>,
}

#[derive(Deserialize)]
struct EnvelopeSignatureJson {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatementJson {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<SubjectJson>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct SubjectJson {
    digest: BTreeMap<String, String>,
}

/// Whether a text is meant as a bundle, and not as a signature alone.
pub(crate) fn is_bundle(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

impl Bundle {
    pub(crate) fn parse(text: &str) -> Result<Self, BundleError> {
        if text.len() > MAX_SIGNATURE_BYTES {
            return Err(BundleError("it has more than 256 KiB"));
        }
        let json: BundleJson = serde_json::from_str(text)
            .map_err(|_| BundleError("it is JSON, and not a Sigstore bundle"))?;
        if !json.media_type.starts_with(BUNDLE_TYPES) {
            return Err(BundleError("it is JSON of another type than a Sigstore bundle"));
        }
        let material = match json.verification_material.public_key {
            Some(_) => Material::Key,
            None => Material::Certificate,
        };
        match (json.message_signature, json.dsse_envelope) {
            (Some(message), None) => Ok(Self {
                signed: Signed::Artifact,
                signatures: vec![decode(&message.signature)?],
                material,
            }),
            (None, Some(envelope)) if envelope.signatures.len() > MAX_ENVELOPE_SIGNATURES => {
                Err(BundleError("its envelope has more than 8 signatures"))
            }
            (None, Some(envelope)) if envelope.payload_type == STATEMENT => Ok(Self {
                signed: Signed::Statement(decode(&envelope.payload)?),
                signatures: envelope
                    .signatures
                    .iter()
                    .map(|signature| decode(&signature.sig))
                    .collect::<Result<_, _>>()?,
                material,
            }),
            (None, Some(_)) => Err(BundleError("its envelope is not of an in-toto statement")),
            _ => Err(BundleError("the bundle has no signature")),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, BundleError> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| BundleError("its bundle is not base64 where it should"))
}

/// What is signed of a statement: DSSE's pre-authentication encoding.
pub(crate) fn signed_bytes(statement: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {STATEMENT} {} ", STATEMENT.len(), statement.len());
    [head.as_bytes(), statement].concat()
}

/// The digests of the artifacts that a statement of cosign's signs.
pub(crate) fn signed_digests(statement: &[u8]) -> Result<Vec<String>, BundleError> {
    let statement: StatementJson = serde_json::from_slice(statement)
        .map_err(|_| BundleError("its statement cannot be read"))?;
    if !statement.kind.starts_with(STATEMENT_TYPES) {
        return Err(BundleError("its statement is not in-toto's"));
    }
    if statement.predicate_type != SIGN_PREDICATE {
        return Err(BundleError(
            "it is an attestation about the artifact, and not a signature by `cosign sign`",
        ));
    }
    let digests = statement.subject.into_iter().filter_map(|mut subject| {
        let digest = subject.digest.remove("sha256")?;
        format!("sha256:{digest}").parse::<Digest>().ok().map(|digest| digest.to_string())
    });
    Ok(digests.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_statement_is_signed_as_the_specification_says() {
        // The example of the DSSE protocol, with the type that is read here.
        let expected = b"DSSEv1 28 application/vnd.in-toto+json 11 hello world";
        assert_eq!(signed_bytes(b"hello world"), expected);
    }

    proptest! {
        #[test]
        fn any_bundle_is_survived(text in r#"\{("mediaType":"application/vnd.dev.sigstore.bundle.v0.3\+json",)?[ -~]{0,80}\}?"#) {
            let _ = Bundle::parse(&text);
            let _ = signed_digests(text.as_bytes());
        }
    }
}
