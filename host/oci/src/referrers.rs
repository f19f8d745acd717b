//! Bundles that refer to an artifact, as cosign 3 attaches them: by the registry's list of referrers,
//! or by the index that clients keep at a tag if the registry has no such list.

use crate::bundle::{BUNDLE, MAX_SIGNATURE_BYTES, SIGN_PREDICATE};
use crate::digest::Digest;
use crate::error::{Error, SignaturesError};
use crate::manifest::{Index, Manifest, ManifestError, Referrer};
use crate::reference::Reference;
use crate::repository::{RepositoryClient, checked};
use crate::signature::MAX_SIGNATURES;
use std::collections::BTreeMap;

/// What a bundle states, so that attestations need not be fetched.
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
/// The type of cosign's configuration, which some registries list as that of the artifact.
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";

/// The bundles that may be signatures of the artifact with this digest.
pub(crate) async fn bundles(
    client: &mut RepositoryClient<'_>,
    reference: &Reference,
    digest: &Digest,
) -> Result<Vec<String>, Error> {
    let Some(bytes) = client.referrers(digest).await? else { return Ok(Vec::new()) };
    let wrong = |source| {
        let (registry, repository) = (reference.registry(), reference.repository());
        Error::Signatures { reference: format!("{registry}/{repository}@{digest}"), source }
    };
    let unreadable = |source: ManifestError| wrong(source.into());
    let listed = Index::parse(&bytes).map_err(unreadable)?.manifests;
    let possible = listed.into_iter().filter(may_be_signature);
    let (typed, mut untyped): (Vec<Referrer>, Vec<Referrer>) = possible.partition(is_bundle);
    let (count, limit) = (typed.len().saturating_add(untyped.len()), MAX_SIGNATURES);
    let too_many = || wrong(SignaturesError::TooMany { count, limit });
    untyped.truncate(limit.saturating_sub(typed.len()));
    if typed.len() > limit {
        return Err(too_many());
    }
    let mut found = Vec::new();
    for Referrer { digest, artifact_type, .. } in typed.into_iter().chain(untyped) {
        let bytes = match client.manifest(&digest.to_string()).await {
            // The index at a tag may list what was deleted since.
            Err(Error::NotFound(_)) => continue,
            bytes => bytes?,
        };
        let bytes = checked(bytes, digest, &format!("the manifest of {reference}'s signature"))?;
        let manifest = match Manifest::parse(&bytes) {
            Err(_) if artifact_type.as_deref() != Some(BUNDLE) => continue,
            manifest => manifest.map_err(unreadable)?,
        };
        let layer = manifest.layers.iter().find(|layer| layer.media_type == BUNDLE);
        // The index that cosign keeps at a tag has no annotations.
        if let Some(layer) = layer
            && may_state_signature(&manifest.annotations)
        {
            let bundle = client.blob(layer, MAX_SIGNATURE_BYTES).await?;
            found.push(String::from_utf8_lossy(&bundle).into_owned());
        }
    }
    // Among those that were not looked at there may be one.
    if found.is_empty() && count > limit {
        return Err(too_many());
    }
    Ok(found)
}

fn is_bundle(referrer: &Referrer) -> bool {
    referrer.artifact_type.as_deref() == Some(BUNDLE)
}

fn may_be_signature(referrer: &Referrer) -> bool {
    let artifact_type = referrer.artifact_type.as_deref().unwrap_or_default();
    ["", BUNDLE, EMPTY_CONFIG].contains(&artifact_type)
        && may_state_signature(&referrer.annotations)
}

fn may_state_signature(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(PREDICATE).is_none_or(|predicate| predicate == SIGN_PREDICATE)
}
