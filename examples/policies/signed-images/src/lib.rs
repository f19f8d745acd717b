//! Only images whose digests are in a list that somebody has signed, with a key on the curve P-256:
//! another team that checks images, say. The operator has the public key, and takes each new list
//! with its signature. A list that was changed is not activated; an older one that was signed is.
//!
//! ```text
//! openssl dgst -sha256 -sign signer.key images.txt | base64 -w0 > images.sig
//! jq -n --rawfile list images.txt --rawfile signature images.sig --rawfile key signer.pub \
//!   '{list: $list, signature: $signature, key: $key}' > settings.json
//! ```

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use paygress_policy_sdk::{
    Context, ImageOffer, ImageRef, Images, MAX_CATALOG_BYTES, MAX_CATALOG_IMAGES, MAX_IMAGE_BYTES,
    Order, Problems, Refusal, RefusalCode, is_hex_of_32_bytes, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(
    title = "Signed list of images",
    extend("dependentRequired" = {"list": ["signature", "key"]})
)]
pub struct Settings {
    /// One image a line, as registry/repository@sha256:…; the first is the default. If omitted, no
    /// image may run.
    #[schemars(length(min = 1, max = 60_000))]
    list: Option<String>,
    /// The signature of the list in base64: ECDSA on P-256 with SHA-256, in DER.
    #[schemars(length(min = 1, max = 200))]
    signature: Option<String>,
    /// The public key in PEM.
    #[schemars(length(min = 1, max = 1_000))]
    key: Option<String>,
}

paygress_policy_sdk::export!(Images for Settings);

impl Images for Settings {
    fn check(&self, problems: &mut Problems) {
        match &self.list {
            Some(list) => self.check_list(list, problems),
            None if self.signature.is_some() || self.key.is_some() => {
                problems.add(&["list"], "is missing: it is what was signed");
            }
            None => {}
        }
    }

    /// Customers write an image as it is listed, or its name without the digest: of several digests
    /// that is the first.
    fn admit(&self, order: &Order, _: &Context) -> Result<ImageRef, Refusal> {
        let is_requested = |image: &&str| {
            order.image.as_deref().is_none_or(|requested| {
                *image == requested
                    || image.split_once('@').is_some_and(|(name, _)| name == requested)
            })
        };
        match self.images().find(is_requested) {
            Some(image) => Ok(ImageRef { reference: image.to_owned() }),
            None => Err(refuse(
                RefusalCode::ImageNotAllowed,
                "this image is not on the operator's signed list; the service's offers show what is, with digests",
            )),
        }
    }

    /// As far as the contract's limits go.
    fn catalog(&self, _: &Context) -> Vec<ImageOffer> {
        let mut free = MAX_CATALOG_BYTES;
        let fits = |image: &&str| {
            let rest = free.checked_sub(image.len());
            free = rest.unwrap_or(0);
            rest.is_some()
        };
        let published = self.images().take(MAX_CATALOG_IMAGES).take_while(fits);
        published
            .map(|image| ImageOffer { reference: image.to_owned(), description: None })
            .collect()
    }
}

impl Settings {
    /// Each with its digest. The first is the default.
    fn images(&self) -> impl Iterator<Item = &str> {
        self.list.as_deref().unwrap_or_default().lines()
    }

    fn check_list(&self, list: &str, problems: &mut Problems) {
        let pem = self.key.as_deref().unwrap_or_default();
        let key = VerifyingKey::from_public_key_pem(pem.trim()).ok();
        if key.is_none() {
            problems.add(&["key"], "must be a public key on the curve P-256 in PEM");
        }
        let der = BASE64_STANDARD.decode(self.signature.as_deref().unwrap_or_default().trim()).ok();
        let signature = der.and_then(|der| Signature::from_der(&der).ok());
        if signature.is_none() {
            let message = "must be a signature of ECDSA on P-256, in DER and base64";
            problems.add(&["signature"], message);
        }
        if let (Some(key), Some(signature)) = (key, signature)
            && key.verify(list.as_bytes(), &signature).is_err()
        {
            problems.add(&["signature"], "is not that of this list by this key");
        }
        for (number, _) in (1_usize..).zip(list.lines()).filter(|(_, line)| !is_image(line)) {
            let message = format!("line {number} must be registry/repository@sha256:…");
            problems.add(&["list"], message);
        }
    }
}

/// In the complete form, with a digest and without a tag.
fn is_image(text: &str) -> bool {
    let Some((name, digest)) = text.split_once("@sha256:") else { return false };
    let Some((registry, repository)) = name.split_once('/') else { return false };
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-/".contains(&c);
    text.len() <= MAX_IMAGE_BYTES
        && is_hex_of_32_bytes(digest)
        && (registry == "localhost" || registry.contains(['.', ':']))
        && registry.bytes().all(|c| is_plain(c) || c == b':')
        && !repository.is_empty()
        && repository.bytes().all(is_plain)
}
