//! Why a request to a registry failed. No text contains credentials, nor a registry's own error
//! message, which may repeat them.

use crate::digest::Digest;
use crate::manifest::ManifestError;
use paygress_http_client::{HttpError, SetupError};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an artifact or a signature was not transferred.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the auth file {path} cannot be used")]
    AuthFile {
        path: PathBuf,
        #[source]
        source: AuthFileError,
    },
    /// The credentials are kept by a credential helper, and running it is not allowed.
    #[error(
        "the credentials of {registry} are kept by the helper {helper:?}, which is not run: write them as auths → {registry:?} → auth"
    )]
    HelperNotAllowed { registry: String, helper: String },
    #[error("the credential helper {helper:?} gave no credentials for {registry}")]
    Helper {
        registry: String,
        helper: String,
        #[source]
        source: HelperError,
    },
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Http(#[from] HttpError),
    /// All requests of one call together took too long.
    #[error("{registry} did not complete within {} s", .limit.as_secs_f64())]
    TimedOut { registry: String, limit: Duration },
    /// The registry requires credentials, and there are none.
    #[error(
        "{registry} requires credentials: write them into the auth file, as auths → {registry:?} → auth"
    )]
    Unauthenticated { registry: String },
    #[error("{registry} denies {subject}: the credentials are wrong, or do not suffice")]
    Denied { registry: String, subject: String },
    /// An identity token can be exchanged for access tokens only.
    #[error("{registry} requires a user name and a password, but there is an identity token only")]
    PasswordRequired { registry: String },
    #[error("{0} is not there")]
    NotFound(String),
    /// `code` is that of the distribution specification.
    #[error("{registry} rejected {subject}: HTTP {status} {}", .code.as_deref().unwrap_or_default())]
    Rejected { registry: String, subject: String, status: u16, code: Option<String> },
    #[error(
        "{registry} is busy with {subject} (HTTP {status}): try again {}", later(.retry_after.as_ref())
    )]
    Busy {
        registry: String,
        subject: String,
        status: u16,
        /// As the registry says.
        retry_after: Option<Duration>,
    },
    #[error(
        "{registry} does not speak TLS: give it a certificate, or name it in REGISTRY_PLAIN_HTTP if its network is closed"
    )]
    NotTls { registry: String },
    /// Credentials could be overheard where the registry wants them sent.
    #[error("{registry} wants tokens fetched from {realm:?}, which is not https")]
    InsecureRealm { registry: String, realm: String },
    /// A registry cannot have us send requests into the operator's own network.
    #[error(
        "{registry} wants tokens fetched from {realm:?}, which is a private address: name the realm's host in the registry's configuration"
    )]
    PrivateRealm { registry: String, realm: String },
    #[error("{registry} sent an invalid response")]
    InvalidResponse {
        registry: String,
        #[source]
        source: ResponseError,
    },
    #[error("{subject} has more than {limit} bytes")]
    TooLarge { subject: String, limit: usize },
    /// The bytes are not those that were requested.
    #[error("{subject} was tampered with: its digest is {found} instead of {expected}")]
    DigestMismatch { subject: String, expected: Digest, found: Digest },
    #[error("{reference} is not a WebAssembly component")]
    NotAComponent {
        reference: String,
        #[source]
        source: ManifestError,
    },
    /// The signatures of an artifact cannot be read, or no more can be added.
    #[error("the signatures at {reference} cannot be used")]
    Signatures {
        reference: String,
        #[source]
        source: SignaturesError,
    },
}

fn later(retry_after: Option<&Duration>) -> String {
    match retry_after.map(Duration::as_secs).filter(|seconds| *seconds > 0) {
        Some(seconds) => format!("in {seconds} s"),
        None => "later".to_owned(),
    }
}

/// What is wrong with an auth file. Its content is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it has more than {limit} bytes")]
    TooLarge { limit: u64 },
    // Without its source: that quotes the file.
    #[error("it is not docker's config.json: line {line}: {category:?}")]
    Json { line: usize, category: serde_json::error::Category },
    #[error("auths → {key:?} has no valid credentials: auth is the base64 of user:password")]
    Entry {
        key: String,
        #[source]
        source: DecodeError,
    },
    #[error("{0:?} is not the name of a credential helper")]
    HelperName(String),
}

/// Why the credentials of an entry cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("it cannot be decoded")]
    Malformed,
    #[error("the user name is empty or has a colon")]
    UserName,
    #[error("auth and username, password differ")]
    Mismatch,
}

/// Why a credential helper gave nothing. What it printed is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    #[error("it cannot be run")]
    NotRun,
    #[error("it failed")]
    Failed,
    #[error("its output is malformed")]
    Malformed,
    #[error("it was killed: it did not end within {} s", .limit.as_secs_f64())]
    TimedOut { limit: Duration },
    #[error("it was killed: it printed more than {limit} bytes")]
    TooLarge { limit: u64 },
}

/// What is invalid in a registry's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    #[error("it requires credentials without an authentication scheme that is supported")]
    NoChallenge,
    #[error("the realm for tokens is not a URL")]
    InvalidRealm,
    #[error("the location of an upload is not on the same server")]
    UploadElsewhere,
    #[error("the realm's response has no token")]
    NoToken,
}

/// What is wrong with the manifest of signatures.
#[derive(Debug, thiserror::Error)]
pub enum SignaturesError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("there are {count}, and at most {limit} are read")]
    TooMany { count: usize, limit: usize },
    #[error("there are {limit} already, and no more are read")]
    Full { limit: usize },
}
