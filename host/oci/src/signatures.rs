//! The signatures of an artefact lie beside it, where cosign keeps them: at the tag `sha256-….sig`.

use crate::digest::Digest;
use crate::error::Error;
use crate::keys::{SigningKey, payload};
use crate::manifest::{Descriptor, Manifest, SIMPLE_SIGNING, describe_signatures, written};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::repository::{Access, RepositoryClient};
use hyper::body::Bytes;
use std::collections::BTreeMap;

/// Signatures of one artefact.
const SIGNATURES: usize = 50;
/// One signature's payload.
const PAYLOAD_BYTES: usize = 64 << 10;
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// A signature as it was found. [`Keys::verify_image`](crate::Keys::verify_image) says what it is
/// worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What was signed: JSON that names the artefact.
    pub payload: Vec<u8>,
    /// The signature: base64 of DER.
    pub signature: String,
}

impl Registry {
    /// The signatures of the artefact with this digest, in the repository of the reference.
    pub async fn signatures(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vec<Signature>, Error> {
        self.in_time(reference, async {
            let mut session = RepositoryClient::new(self, reference, Access::Pull);
            let mut found = Vec::new();
            for mut layer in present(&mut session, reference, digest)
                .await?
                .layers
                .into_iter()
                .filter(is_signature)
            {
                let payload = session.blob(&layer, PAYLOAD_BYTES).await?.into();
                found.push(Signature {
                    payload,
                    signature: layer.annotations.remove(ANNOTATION).unwrap_or_default(),
                });
            }
            Ok(found)
        })
        .await
    }

    /// Signs the artefact with this digest, and puts the signature beside those that are there. Of
    /// two who sign at the same moment one may be lost: registries have no way to add.
    pub async fn sign(
        &self,
        reference: &Reference,
        digest: &Digest,
        key: &SigningKey,
    ) -> Result<(), Error> {
        let payload = Bytes::from(payload(reference, digest));
        let mut layer = Descriptor::of(SIMPLE_SIGNING, &payload);
        layer.annotations.insert(ANNOTATION.to_owned(), key.sign_blob(&payload));
        self.in_time(reference, async {
            let mut session = RepositoryClient::new(self, reference, Access::Push);
            let Manifest { mut layers, annotations, .. } =
                present(&mut session, reference, digest).await?;
            if layers.contains(&layer) {
                return Ok(());
            }
            if layers.len() >= SIGNATURES {
                let reason = format!("there are {SIGNATURES} already, and no more are read");
                return Err(Error::Signatures { reference: reference.to_string(), reason });
            }
            layers.push(layer);
            let (config, described) = describe_signatures(&layers);
            session.put_blob(&payload).await?;
            session.put_blob(&config.into()).await?;
            session
                .put_manifest(&tag(digest), written(&Manifest::new(described, layers, annotations)))
                .await
        })
        .await
    }
}

/// The manifest of the signatures that are there; an empty one if there is none.
async fn present(
    session: &mut RepositoryClient<'_>,
    reference: &Reference,
    digest: &Digest,
) -> Result<Manifest, Error> {
    let bytes = match session.manifest(&tag(digest)).await {
        Err(Error::Missing(_)) => {
            return Ok(Manifest::new(describe_signatures(&[]).1, Vec::new(), BTreeMap::new()));
        }
        other => other?,
    };
    let at = format!("{}/{}:{}", reference.registry(), reference.repository(), tag(digest));
    let wrong = |reason| Error::Signatures { reference: at.clone(), reason };
    let manifest = Manifest::read(&bytes).map_err(wrong)?;
    match manifest.layers.len() {
        ..=SIGNATURES => Ok(manifest),
        many => Err(wrong(format!("there are {many}, and at most {SIGNATURES} are read"))),
    }
}

fn is_signature(layer: &Descriptor) -> bool {
    layer.media_type == SIMPLE_SIGNING
}

fn tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}
