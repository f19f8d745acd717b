//! Credentials for registries, from a file in the form of docker's `config.json` or podman's
//! `auth.json`.
//!
//! The file is read each time a registry requires credentials, so one that is rotated is used from
//! then on. This module finds the entry for a repository; `docker_credential` decodes it, and
//! `credential_helper.rs` runs a helper if [`CredentialHelpers::Run`] allows it.

use crate::credential_helper::HelperRunner;
use crate::error::{AuthFileError, DecodeError, Error, HelperError};
use crate::reference::Reference;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const MAX_FILE_BYTES: u64 = 1 << 20;
const DOCKER_HUB: &str = "registry-1.docker.io";
/// What docker and podman write for Docker Hub.
const DOCKER_HUB_NAMES: [&str; 3] = [DOCKER_HUB, "docker.io", "index.docker.io"];
/// What docker requests from a helper for Docker Hub.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// Whether credential helpers (`credsStore`, `credHelpers`) may be run. They are programs named by
/// the auth file, and run with the rights of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialHelpers {
    #[default]
    Refuse,
    Run,
}

/// Credentials of one repository, wiped when they are dropped.
pub(crate) enum Credential {
    /// The value after `Basic `.
    Basic(Zeroizing<String>),
    /// A refresh token of OAuth 2.
    IdentityToken(Zeroizing<String>),
}

/// Where credentials come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    file: Option<PathBuf>,
    helpers: CredentialHelpers,
    runner: HelperRunner,
}

/// What the file has for a repository.
enum Lookup {
    Nothing,
    Credential(Credential),
    /// The name of the helper that has to be run.
    Helper(String),
}

/// The parts of `config.json` that are read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, AuthConfig>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize, Serialize)]
struct AuthConfig {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// A file in the form that `docker_credential` reads, with one entry.
#[derive(Serialize)]
struct SingleAuth<'a> {
    auths: BTreeMap<&'a str, AuthConfig>,
}

impl Credentials {
    /// Reads the file once, so that one that cannot be used is known at the start.
    pub(crate) fn new(file: Option<&Path>, helpers: CredentialHelpers) -> Result<Self, Error> {
        if let Some(path) = file {
            let check = || AuthFile::read(path)?.check();
            check().map_err(|source| Error::AuthFile { path: path.to_owned(), source })?;
        }
        Ok(Self { file: file.map(Path::to_owned), helpers, runner: HelperRunner::default() })
    }

    /// The credentials for this repository, if there are any.
    pub(crate) async fn get(&self, reference: &Reference) -> Result<Option<Credential>, Error> {
        let Some(path) = self.file.clone() else { return Ok(None) };
        let (helpers, registry) = (self.helpers, reference.registry().to_owned());
        let repository = reference.repository().to_owned();
        // Reading a file blocks.
        let lookup = move || lookup(&path, helpers, &registry, &repository);
        let found = tokio::task::spawn_blocking(lookup).await.unwrap_or_else(|error| {
            let source = AuthFileError::Read(io::Error::other(error));
            Err(Error::AuthFile { path: self.file.clone().unwrap_or_default(), source })
        })?;
        match found {
            Lookup::Nothing => Ok(None),
            Lookup::Credential(credential) => Ok(Some(credential)),
            Lookup::Helper(helper) => self.run_helper(reference.registry(), &helper).await,
        }
    }

    async fn run_helper(&self, registry: &str, helper: &str) -> Result<Option<Credential>, Error> {
        let failed = |source| Error::Helper {
            registry: registry.to_owned(),
            helper: helper.to_owned(),
            source,
        };
        if !is_helper_name(helper) {
            return Err(failed(HelperError::NotRun));
        }
        let server = if registry == DOCKER_HUB { DOCKER_HUB_SERVER } else { registry };
        let found = self.runner.run(helper, server).await.map_err(failed)?;
        found.map(credential).transpose().map_err(|_| failed(HelperError::Malformed))
    }
}

fn lookup(
    path: &Path,
    helpers: CredentialHelpers,
    registry: &str,
    repository: &str,
) -> Result<Lookup, Error> {
    let wrong = |source| Error::AuthFile { path: path.to_owned(), source };
    let file = AuthFile::read(path).map_err(wrong)?;
    let entry = file.entry(registry, repository);
    let helper = file.helper(registry);
    match (entry, helper, helpers) {
        (_, Some(helper), CredentialHelpers::Run) => Ok(Lookup::Helper(helper.to_owned())),
        (Some((key, entry)), _, _) if entry.has_credentials() => {
            decode(key, entry).map(Lookup::Credential).map_err(wrong)
        }
        (_, Some(helper), CredentialHelpers::Refuse) => Err(not_allowed(registry, helper)),
        (entry, None, _) => match (&file.creds_store, helpers, entry) {
            (Some(store), CredentialHelpers::Run, _) => Ok(Lookup::Helper(store.clone())),
            (Some(store), CredentialHelpers::Refuse, Some(_)) => Err(not_allowed(registry, store)),
            _ => Ok(Lookup::Nothing),
        },
    }
}

fn not_allowed(registry: &str, helper: &str) -> Error {
    Error::HelperNotAllowed { registry: registry.to_owned(), helper: helper.to_owned() }
}

impl AuthFile {
    fn read(path: &Path) -> Result<Self, AuthFileError> {
        let file = File::open(path).map_err(AuthFileError::Read)?;
        let mut bytes = Zeroizing::new(Vec::<u8>::new());
        let mut bounded = file.take(MAX_FILE_BYTES.saturating_add(1));
        let length = bounded.read_to_end(&mut bytes).map_err(AuthFileError::Read)?;
        if u64::try_from(length).is_ok_and(|length| length > MAX_FILE_BYTES) {
            return Err(AuthFileError::TooLarge { limit: MAX_FILE_BYTES });
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| AuthFileError::Json { line: error.line(), category: error.classify() })
    }

    fn check(&self) -> Result<(), AuthFileError> {
        let given = self.auths.iter().filter(|(_, entry)| entry.has_credentials());
        given.map(|(key, entry)| decode(key, entry)).try_for_each(|entry| entry.map(drop))?;
        let helpers = self.cred_helpers.values().chain(&self.creds_store);
        match helpers.into_iter().find(|name| !is_helper_name(name)) {
            Some(name) => Err(AuthFileError::HelperName(name.clone())),
            None => Ok(()),
        }
    }

    /// The most specific entry for a repository; one for a part of a registry is not for the rest
    /// of it.
    fn entry(&self, registry: &str, repository: &str) -> Option<(&str, &AuthConfig)> {
        let matching = self.auths.iter().filter_map(|(key, entry)| {
            let (host, path) = parse_key(key);
            let is_parent = repository
                .strip_prefix(path)
                .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'));
            (is_name_of(host, registry) && is_parent).then_some((
                (path.len(), entry.has_credentials(), host == registry),
                key,
                entry,
            ))
        });
        let best = matching.max_by_key(|(rank, _, _)| *rank);
        best.map(|(_, key, entry)| (key.as_str(), entry))
    }

    fn helper(&self, registry: &str) -> Option<&str> {
        let is_whole_registry = |key: &str| {
            let (host, path) = parse_key(key);
            path.is_empty() && is_name_of(host, registry)
        };
        let found = self.cred_helpers.iter().find(|(key, _)| is_whole_registry(key));
        found.map(|(_, helper)| helper.as_str()).filter(|helper| !helper.is_empty())
    }
}

impl AuthConfig {
    fn has_credentials(&self) -> bool {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        given(&self.auth) || given(&self.username) || given(&self.identitytoken)
    }

    /// Without empty texts, which docker writes for "none".
    fn without_empty(self) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            auth: given(self.auth),
            username: given(self.username),
            password: given(self.password),
            identitytoken: given(self.identitytoken),
        }
    }
}

/// Host and path of a key; docker's older keys are URLs with the version of the API as their path.
fn parse_key(key: &str) -> (&str, &str) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_end_matches('/');
    (host, if matches!(path, "v1" | "v2") { "" } else { path })
}

fn is_name_of(host: &str, registry: &str) -> bool {
    let is_docker_hub = |host| DOCKER_HUB_NAMES.iter().any(|name| name.eq_ignore_ascii_case(host));
    host.eq_ignore_ascii_case(registry) || (registry == DOCKER_HUB && is_docker_hub(host))
}

fn is_helper_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn decode(key: &str, entry: &AuthConfig) -> Result<Credential, AuthFileError> {
    let auths = BTreeMap::from([(key, entry.clone().without_empty())]);
    let retrieved = retrieve(&SingleAuth { auths }, key);
    let wrong = |source| AuthFileError::Entry { key: key.to_owned(), source };
    retrieved.and_then(credential).map_err(wrong)
}

fn retrieve(entry: &SingleAuth<'_>, key: &str) -> Result<DockerCredential, DecodeError> {
    let json = serde_json::to_vec(entry).map_err(|_| DecodeError::Malformed)?;
    let json = Zeroizing::new(json);
    get_credential_from_reader(json.as_slice(), key).map_err(|error| match error {
        CredentialRetrievalError::CredentialMismatchError => DecodeError::Mismatch,
        _ => DecodeError::Malformed,
    })
}

fn credential(found: DockerCredential) -> Result<Credential, DecodeError> {
    match found {
        DockerCredential::IdentityToken(token) => {
            Ok(Credential::IdentityToken(Zeroizing::new(token)))
        }
        DockerCredential::UsernamePassword(user, _) if user.is_empty() || user.contains(':') => {
            Err(DecodeError::UserName)
        }
        DockerCredential::UsernamePassword(user, password) => {
            let password = Zeroizing::new(password);
            let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
            Ok(Credential::Basic(Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()))))
        }
    }
}

#[cfg(test)]
mod tests;
