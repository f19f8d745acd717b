//! Only images whose digests are in a list that somebody has signed, with a key on the curve P-256:
//! another team that checks images, say. The operator has the public key, and takes each new list
//! with its signature. A list that was changed is not activated; an older one that was signed is.
//!
//! ```text
//! openssl dgst -sha256 -sign signer.key images.txt | base64 -w0 > images.sig
//! jq -n --rawfile list images.txt --rawfile signature images.sig --rawfile key signer.pub \
//!   '{list: $list, signature: $signature, key: $key}' > settings.json
//! ```

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.2", world: "images-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{SignedImages, bindings};
    bindings::export!(SignedImages with_types_in bindings);
}

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bindings::exports::paygress::policy::images::{self, ImageOffer};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{Context, ImageRef, Order, Problem, Refusal};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use paygress_plugin_settings::SettingsReader;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Signed list of images",
  "type": "object",
  "additionalProperties": false,
  "dependentRequired": {"list": ["signature", "key"]},
  "properties": {
    "list": {"type": "string", "minLength": 1, "maxLength": 60000, "description": "One image a line, as registry/repository@sha256:…; the first is the default. If omitted, no image may run."},
    "signature": {"type": "string", "minLength": 1, "maxLength": 200, "description": "The signature of the list in base64: ECDSA on P-256 with SHA-256, in DER."},
    "key": {"type": "string", "minLength": 1, "maxLength": 1000, "description": "The public key in PEM."}
  }
}"#;

/// The limits of the contract for the list that is published.
const MAX_IMAGES: usize = 64;
const MAX_LIST_BYTES: usize = 16_384;
const MAX_IMAGE_BYTES: usize = 512;

struct SignedImages;

#[derive(Clone, Debug)]
struct Settings {
    /// Each with its digest. The first is the default.
    images: Vec<String>,
}

paygress_plugin_settings::export_settings!(SignedImages, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let list = reader.string("list", "", 60_000);
    let signature = reader.string("signature", "", 200);
    let key = reader.string("key", "", 1_000);
    if list.is_empty() {
        if !signature.is_empty() || !key.is_empty() {
            reader.problem("list", "is missing: it is what was signed");
        }
        return reader.finish(Settings { images: Vec::new() });
    }
    let verifying_key = VerifyingKey::from_public_key_pem(key.trim()).ok();
    if verifying_key.is_none() {
        reader.problem("key", "must be a public key on the curve P-256 in PEM");
    }
    let der = BASE64_STANDARD.decode(signature.trim()).ok();
    let signature = der.and_then(|der| Signature::from_der(&der).ok());
    if signature.is_none() {
        reader.problem("signature", "must be a signature of ECDSA on P-256, in DER and base64");
    }
    if let (Some(key), Some(signature)) = (verifying_key, signature)
        && key.verify(list.as_bytes(), &signature).is_err()
    {
        reader.problem("signature", "is not that of this list by this key");
    }
    let mut images = Vec::new();
    for (index, line) in list.lines().enumerate() {
        match is_image(line) {
            true => images.push(line.to_owned()),
            false => {
                let number = index.saturating_add(1);
                let message = format!("line {number} must be registry/repository@sha256:…");
                reader.problem("list", message);
            }
        }
    }
    reader.finish(Settings { images })
}

/// In the complete form, with a digest and without a tag.
fn is_image(text: &str) -> bool {
    let Some((name, digest)) = text.split_once("@sha256:") else { return false };
    let Some((registry, repository)) = name.split_once('/') else { return false };
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-/".contains(&c);
    text.len() <= MAX_IMAGE_BYTES
        && digest.len() == 64
        && digest.bytes().all(is_hex)
        && (registry == "localhost" || registry.contains(['.', ':']))
        && registry.bytes().all(|c| is_plain(c) || c == b':')
        && !repository.is_empty()
        && repository.bytes().all(is_plain)
}

impl images::Guest for SignedImages {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        SETTINGS.with_borrow(|settings| match settings {
            Some(settings) => admit(&settings.images, order.image.as_deref()),
            None => admit(&[], None),
        })
    }

    fn catalog(_: Context) -> Vec<ImageOffer> {
        SETTINGS
            .with_borrow(|settings| settings.as_ref().map(Settings::catalog).unwrap_or_default())
    }
}

/// Customers write an image as it is listed, or its name without the digest: of several digests that
/// is the first.
fn admit(images: &[String], requested: Option<&str>) -> Result<ImageRef, Refusal> {
    let is_requested = |image: &&String| match requested {
        None => true,
        Some(requested) => {
            image.as_str() == requested
                || image.split_once('@').is_some_and(|(name, _)| name == requested)
        }
    };
    match images.iter().find(is_requested) {
        Some(image) => Ok(ImageRef { reference: image.clone() }),
        None => Err(Refusal {
            code: "image_not_allowed".to_owned(),
            message: "this image is not on the operator's signed list; the service's offers show what is, with digests"
                .to_owned(),
        }),
    }
}

impl Settings {
    /// As far as the contract's limits go.
    fn catalog(&self) -> Vec<ImageOffer> {
        let mut free = MAX_LIST_BYTES;
        let fits = |image: &&String| {
            let rest = free.checked_sub(image.len());
            free = rest.unwrap_or(0);
            rest.is_some()
        };
        let published = self.images.iter().take(MAX_IMAGES).take_while(fits);
        published.map(|image| ImageOffer { reference: image.clone(), description: None }).collect()
    }
}
