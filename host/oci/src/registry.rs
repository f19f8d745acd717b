//! Components come and go.

use crate::auth::AuthFile;
use crate::digest::Digest;
use crate::error::Error;
use crate::http::{HttpClient, Timeouts, within};
use crate::manifest::{Manifest, describe, written};
use crate::reference::Reference;
use crate::repository::{Access, RepositoryClient, checked};
use hyper::body::Bytes;
use std::collections::BTreeMap;
use std::path::Path;

/// The way to all registries.
pub struct Registry {
    pub(crate) web: HttpClient,
    pub(crate) auth: AuthFile,
}

/// What was pulled: its bytes are those that its digests name. Whose they are is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The component.
    pub component: Vec<u8>,
    /// The digest of the manifest: this is what is signed, and what a reference is pinned to.
    pub manifest_digest: Digest,
    /// What the publisher wrote on it.
    pub annotations: BTreeMap<String, String>,
}

/// What is to be pushed. The same package has the same digest, wherever and whenever it is pushed.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// The component.
    pub component: &'a [u8],
    /// The interfaces that it exports, as `paygress:policy/pricing@1.0.0`.
    pub exports: &'a [String],
    /// The interfaces that it imports.
    pub imports: &'a [String],
    /// Who made it.
    pub author: Option<&'a str>,
    /// When it was made, in the form of RFC 3339; none: at the beginning of time.
    pub created: Option<&'a str>,
    /// What is written on it.
    pub annotations: &'a BTreeMap<String, String>,
}

impl Registry {
    /// With the credentials of a file in the form of docker's `config.json`, or with none.
    pub fn new(auth_file: Option<&Path>) -> Result<Self, Error> {
        Self::with_patience(auth_file, Timeouts::default())
    }

    /// The same, with other limits to how long registries have.
    pub fn with_patience(auth_file: Option<&Path>, patience: Timeouts) -> Result<Self, Error> {
        let auth = auth_file.map(AuthFile::read).transpose()?.unwrap_or_default();
        Ok(Self { web: HttpClient::new(patience)?, auth })
    }

    /// Fetches a component of at most so many bytes.
    pub async fn pull(&self, reference: &Reference, limit_bytes: usize) -> Result<Artifact, Error> {
        self.in_time(reference, async {
            let mut session = RepositoryClient::new(self, reference, Access::Pull);
            let (manifest_digest, manifest) = component_manifest(&mut session, reference).await?;
            let layer = manifest.component().map_err(|reason| unfit(reference, reason))?;
            let component = session.blob(layer, limit_bytes).await?.into();
            Ok(Artifact { component, manifest_digest, annotations: manifest.annotations })
        })
        .await
    }

    /// The digest of the component that is at a reference now, without fetching the component.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, Error> {
        self.in_time(reference, async {
            let mut session = RepositoryClient::new(self, reference, Access::Pull);
            let (digest, manifest) = component_manifest(&mut session, reference).await?;
            manifest.component().map_err(|reason| unfit(reference, reason))?;
            Ok(digest)
        })
        .await
    }

    /// Publishes a component, at the reference's tag if it has one. A digest in the reference has
    /// to be the component's.
    pub async fn push(
        &self,
        reference: &Reference,
        package: &Package<'_>,
    ) -> Result<Digest, Error> {
        let (config, described, layer) = describe(package);
        let manifest = written(&Manifest::new(described, vec![layer], package.annotations.clone()));
        let digest = Digest::of(&manifest);
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            return Err(Error::Tampered { what: reference.to_string(), expected, found: digest });
        }
        self.in_time(reference, async {
            let mut session = RepositoryClient::new(self, reference, Access::Push);
            session.put_blob(&Bytes::copy_from_slice(package.component)).await?;
            session.put_blob(&config.into()).await?;
            let version = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
            session.put_manifest(&version, manifest).await
        })
        .await?;
        Ok(digest)
    }

    /// Ends an errand that takes longer than a call may.
    pub(crate) async fn in_time<T>(
        &self,
        reference: &Reference,
        errand: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        within(reference.registry(), self.web.patience.whole, errand).await
    }
}

async fn component_manifest(
    session: &mut RepositoryClient<'_>,
    reference: &Reference,
) -> Result<(Digest, Manifest), Error> {
    let mut bytes = session.manifest(&reference.version()).await?;
    if let Some(expected) = reference.digest() {
        bytes = checked(bytes, expected, &format!("the manifest of {reference}"))?;
    }
    let manifest = Manifest::read(&bytes).map_err(|reason| unfit(reference, reason))?;
    Ok((Digest::of(&bytes), manifest))
}

fn unfit(reference: &Reference, reason: String) -> Error {
    Error::Unfit { reference: reference.to_string(), reason }
}
