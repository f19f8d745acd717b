//! Pulling and pushing components.

use crate::artifact::{Artifact, Encoded, Package};
use crate::credentials::{CredentialHelpers, Credentials};
use crate::digest::Digest;
use crate::error::{AuthFileError, Error};
use crate::manifest::{Manifest, ManifestError};
use crate::reference::{Reference, RegistryHost};
use crate::repository::{Access, RepositoryClient, checked};
use hyper::body::Bytes;
use paygress_http_client::{HttpClient, Timeouts};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// How registries are used.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// A file in the form of docker's `config.json` or podman's `auth.json`. It is read again
    /// whenever a registry requires credentials.
    pub auth_file: Option<PathBuf>,
    pub credential_helpers: CredentialHelpers,
    /// Registries that are spoken to by plain HTTP, credentials included. Others are spoken to by
    /// TLS, unless they are on this machine.
    pub plain_http: BTreeSet<RegistryHost>,
    /// `whole` is also the limit of a whole call, with all its requests.
    pub timeouts: Timeouts,
}

/// A client for all registries.
///
/// ```no_run
/// use paygress_oci::{Keys, Reference, Registry, RegistryOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let auth_file = Some("/etc/paygress/auth.json".into());
/// let registry = Registry::open(RegistryOptions { auth_file, ..RegistryOptions::default() }).await?;
/// let reference: Reference = "registry.example/policies/pricing:1.2".parse()?;
/// let artifact = registry.pull(&reference, 32 << 20).await?;
///
/// let mut keys = Keys::default();
/// keys.add("release", &std::fs::read_to_string("cosign.pub")?)?;
/// let signatures = registry.signatures(&reference, &artifact.manifest_digest).await?;
/// let key = keys.verify_image(&artifact.manifest_digest, &signatures)?;
/// println!("{} is signed by {key}", reference.pinned(artifact.manifest_digest));
/// # Ok(())
/// # }
/// ```
pub struct Registry {
    http: HttpClient,
    credentials: Credentials,
    plain_http: BTreeSet<RegistryHost>,
}

impl Registry {
    /// As [`Registry::with_options`], for async callers: files are read on a blocking thread.
    pub async fn open(options: RegistryOptions) -> Result<Self, Error> {
        let path = options.auth_file.clone().unwrap_or_default();
        let opening = tokio::task::spawn_blocking(move || Self::with_options(&options));
        opening.await.unwrap_or_else(|error| {
            let source = AuthFileError::Read(io::Error::other(error));
            Err(Error::AuthFile { path, source })
        })
    }

    /// With the credentials of this file, or with none; otherwise with the default options. Reads
    /// the file and the system's certificates, which blocks.
    pub fn new(auth_file: Option<&Path>) -> Result<Self, Error> {
        let auth_file = auth_file.map(Path::to_owned);
        Self::with_options(&RegistryOptions { auth_file, ..RegistryOptions::default() })
    }

    pub fn with_options(options: &RegistryOptions) -> Result<Self, Error> {
        let credentials =
            Credentials::new(options.auth_file.as_deref(), options.credential_helpers)?;
        let plain_http = options.plain_http.clone();
        Ok(Self { http: HttpClient::new(options.timeouts)?, credentials, plain_http })
    }

    /// Fetches a component of at most `limit_bytes`.
    pub async fn pull(&self, reference: &Reference, limit_bytes: usize) -> Result<Artifact, Error> {
        self.within_timeout(reference, async {
            let mut client = self.client(reference, Access::Pull);
            let (manifest_digest, manifest) = component_manifest(&mut client, reference).await?;
            let layer =
                manifest.component().map_err(|source| not_a_component(reference, source))?;
            let component = client.blob(layer, limit_bytes).await?.into();
            Ok(Artifact { component, manifest_digest, annotations: manifest.annotations })
        })
        .await
    }

    /// The digest of the component that is at a reference now, without fetching the component.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, Error> {
        self.within_timeout(reference, async {
            let mut client = self.client(reference, Access::Pull);
            let (digest, manifest) = component_manifest(&mut client, reference).await?;
            manifest.component().map_err(|source| not_a_component(reference, source))?;
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
        let Encoded { config, manifest, digest } = package.encode();
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            let subject = reference.to_string();
            return Err(Error::DigestMismatch { subject, expected, found: digest });
        }
        self.within_timeout(reference, async {
            let mut client = self.client(reference, Access::Push);
            client.put_blob(&Bytes::copy_from_slice(package.component)).await?;
            client.put_blob(&config.into()).await?;
            let version = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
            client.put_manifest(&version, manifest).await
        })
        .await?;
        Ok(digest)
    }

    pub(crate) fn client<'a>(
        &'a self,
        reference: &'a Reference,
        access: Access,
    ) -> RepositoryClient<'a> {
        RepositoryClient::new(&self.http, &self.credentials, &self.plain_http, reference, access)
    }

    /// Gives up a call that takes longer than all its requests together may.
    pub(crate) async fn within_timeout<T>(
        &self,
        reference: &Reference,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.http.timeouts().whole;
        let timed_out = |_| Error::TimedOut { registry: reference.registry().to_owned(), limit };
        tokio::time::timeout(limit, call).await.map_err(timed_out)?
    }
}

async fn component_manifest(
    client: &mut RepositoryClient<'_>,
    reference: &Reference,
) -> Result<(Digest, Manifest), Error> {
    let mut bytes = client.manifest(&reference.version()).await?;
    if let Some(expected) = reference.digest() {
        bytes = checked(bytes, expected, &format!("the manifest of {reference}"))?;
    }
    let manifest = Manifest::parse(&bytes).map_err(|source| not_a_component(reference, source))?;
    Ok((Digest::of(&bytes), manifest))
}

fn not_a_component(reference: &Reference, source: ManifestError) -> Error {
    Error::NotAComponent { reference: reference.to_string(), source }
}
