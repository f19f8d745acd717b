//! The signatures of an artifact, where cosign keeps them: beside it, at the tag `sha256-….sig`, and
//! from version 3 on as artifacts that refer to it (`referrers.rs`).

use crate::digest::Digest;
use crate::error::{Error, SignaturesError};
use crate::keys::SigningKey;
use crate::manifest::{Descriptor, Manifest, to_json};
use crate::reference::Reference;
use crate::referrers::bundles;
use crate::registry::Registry;
use crate::repository::{Access, RepositoryClient};
use crate::signature::{MAX_SIGNATURES, SIMPLE_SIGNING, Signature, payload, signatures_config};
use hyper::body::Bytes;
use paygress_core::error_chain;
use std::collections::BTreeMap;

const MAX_PAYLOAD_BYTES: usize = 64 << 10;
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

impl Registry {
    /// The signatures of the artifact with this digest, in the repository of the reference.
    pub async fn signatures(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vec<Signature>, Error> {
        self.within_timeout(reference, async {
            let mut client = self.client(reference, Access::Pull);
            let layers = signatures_manifest(&mut client, reference, digest).await?.layers;
            let mut found = Vec::new();
            for mut layer in layers.into_iter().filter(is_signature) {
                let payload = client.blob(&layer, MAX_PAYLOAD_BYTES).await?.into();
                let signature = layer.annotations.remove(ANNOTATION).unwrap_or_default();
                found.push(Signature::Simple { payload, signature });
            }
            match bundles(&mut client, reference, digest).await {
                Ok(bundles) => found.extend(bundles.into_iter().map(Signature::Bundle)),
                Err(error) if found.is_empty() => return Err(error),
                // A registry that cannot list referrers may still have signatures at the tag.
                Err(error) => tracing::debug!(
                    reference = %reference,
                    error = error_chain(&error),
                    "referrers cannot be read"
                ),
            }
            Ok(found)
        })
        .await
    }

    /// Signs the artifact with this digest, and adds the signature to those that are there. If two
    /// clients sign at the same moment, one signature may be lost: registries cannot append.
    pub async fn sign(
        &self,
        reference: &Reference,
        digest: &Digest,
        key: &SigningKey,
    ) -> Result<(), Error> {
        let payload = Bytes::from(payload(reference, digest));
        let mut layer = Descriptor::of(SIMPLE_SIGNING, &payload);
        layer.annotations.insert(ANNOTATION.to_owned(), key.sign_blob(&payload));
        self.within_timeout(reference, async {
            let mut client = self.client(reference, Access::Push);
            let Manifest { mut layers, annotations, .. } =
                signatures_manifest(&mut client, reference, digest).await?;
            if layers.contains(&layer) {
                return Ok(());
            }
            if layers.len() >= MAX_SIGNATURES {
                let source = SignaturesError::Full { limit: MAX_SIGNATURES };
                return Err(Error::Signatures { reference: reference.to_string(), source });
            }
            layers.push(layer);
            let (config, descriptor) = signatures_config(&layers);
            client.put_blob(&payload).await?;
            client.put_blob(&config.into()).await?;
            let manifest = Manifest::new(descriptor, layers, annotations);
            client.put_manifest(&tag(digest), to_json(&manifest)).await
        })
        .await
    }
}

/// The manifest of the signatures that are there; an empty one if there is none.
async fn signatures_manifest(
    client: &mut RepositoryClient<'_>,
    reference: &Reference,
    digest: &Digest,
) -> Result<Manifest, Error> {
    let bytes = match client.manifest(&tag(digest)).await {
        Err(Error::NotFound(_)) => {
            return Ok(Manifest::new(signatures_config(&[]).1, Vec::new(), BTreeMap::new()));
        }
        other => other?,
    };
    let wrong = |source| {
        let (registry, repository) = (reference.registry(), reference.repository());
        Error::Signatures { reference: format!("{registry}/{repository}:{}", tag(digest)), source }
    };
    let manifest = Manifest::parse(&bytes).map_err(|error| wrong(error.into()))?;
    match manifest.layers.len() {
        ..=MAX_SIGNATURES => Ok(manifest),
        count => Err(wrong(SignaturesError::TooMany { count, limit: MAX_SIGNATURES })),
    }
}

fn is_signature(layer: &Descriptor) -> bool {
    layer.media_type == SIMPLE_SIGNING
}

fn tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}
