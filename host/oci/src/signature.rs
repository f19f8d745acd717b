//! A signature of an artifact: in the form of cosign's simple signing, or in a bundle.

use crate::digest::Digest;
use crate::manifest::{Descriptor, to_json};
use crate::reference::Reference;
use serde::Deserialize;

/// Of one artifact.
pub(crate) const MAX_SIGNATURES: usize = 50;
pub(crate) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PAYLOAD_TYPE: &str = "cosign container image signature";

/// A signature as it was found. [`Keys::verify_image`](crate::Keys::verify_image) says whether it
/// is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// In the manifest of signatures, as cosign writes it up to version 2.
    Simple {
        /// What was signed: JSON that names the artifact.
        payload: Vec<u8>,
        /// Base64 of DER.
        signature: String,
    },
    /// A Sigstore bundle, as cosign writes it from version 3 on.
    Bundle(String),
}

/// The parts of a payload that are read.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    payload_type: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Why a payload does not name an artifact.
pub(crate) enum PayloadError {
    Malformed,
    OtherType,
}

/// What is signed for an artifact.
pub(crate) fn payload(reference: &Reference, digest: &Digest) -> Vec<u8> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    to_json(&serde_json::json!({
        "critical": {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}, "type": PAYLOAD_TYPE},
        "optional": null,
    }))
}

/// The digest of the artifact that a payload is for, as it was written.
pub(crate) fn signed_digest(payload: &[u8]) -> Result<String, PayloadError> {
    let payload: Payload = serde_json::from_slice(payload).map_err(|_| PayloadError::Malformed)?;
    if payload.critical.payload_type == PAYLOAD_TYPE {
        Ok(payload.critical.image.digest)
    } else {
        Err(PayloadError::OtherType)
    }
}

/// The configuration that cosign writes for signatures: an image's, with nothing in it but the
/// layers.
pub(crate) fn signatures_config(layers: &[Descriptor]) -> (Vec<u8>, Descriptor) {
    let layers = layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    let config = to_json(&serde_json::json!({
        "architecture": "", "config": {}, "created": "0001-01-01T00:00:00Z", "history": [{"created": "0001-01-01T00:00:00Z"}],
        "os": "", "rootfs": {"diff_ids": layers, "type": "layers"},
    }));
    let descriptor = Descriptor::of(IMAGE_CONFIG, &config);
    (config, descriptor)
}
