//! Why an errand at a registry failed. No text holds credentials, nor a registry's own words, which
//! may repeat them.

use crate::digest::Digest;
use std::path::PathBuf;

/// Why an artefact or a signature did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The auth file cannot be used.
    #[error("the auth file {path}: {reason}")]
    AuthFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials are in a program's custody.
    #[error(
        "the credentials of {host} are kept by the helper {helper:?}, which is not run: write them as auths → {host:?} → auth"
    )]
    Helper {
        /// Which registry.
        host: String,
        /// Which helper keeps them.
        helper: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// No connection, or one that broke.
    #[error("{host} cannot be reached: {cause}")]
    Away {
        /// Which host.
        host: String,
        /// What the network said.
        cause: String,
    },
    /// It took too long.
    #[error("{host} was not done within {seconds} s")]
    Slow {
        /// Which host.
        host: String,
        /// How long it had.
        seconds: u64,
    },
    /// The registry does not know us.
    #[error("{host} wants credentials: write them into the auth file, as auths → {host:?} → auth")]
    Anonymous {
        /// Which registry.
        host: String,
    },
    /// The registry knows us, and says no.
    #[error("{host} denies {what}: the credentials are wrong, or do not suffice")]
    Denied {
        /// Which registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It is not there.
    #[error("{0} is not there")]
    Missing(String),
    /// The registry says no for another reason.
    #[error("{host} refused {what}: HTTP {status} {code}")]
    Refused {
        /// Which host.
        host: String,
        /// What was asked for.
        what: String,
        /// The status of HTTP.
        status: u16,
        /// The code of the distribution specification, or nothing.
        code: String,
    },
    /// Credentials would be overheard where the registry wants them sent.
    #[error("{host} wants tokens fetched from {realm:?}: that has to be https")]
    Realm {
        /// Which registry.
        host: String,
        /// The host of the realm.
        realm: String,
    },
    /// A blob is somewhere where it is not fetched from.
    #[error("{host} redirects {what} where it is not fetched from: {reason}")]
    Redirect {
        /// Which host.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It answered what no registry answers.
    #[error("{host} answered what no registry answers: {reason}")]
    Garbage {
        /// Which host.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is too large.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// How many bytes it might have.
        limit: usize,
    },
    /// The bytes are others than those that were asked for.
    #[error("{what} was tampered with: it should be {expected}, and is {found}")]
    Tampered {
        /// What was read.
        what: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// It is no artefact of ours.
    #[error("{reference} is not a WebAssembly component: {reason}")]
    Unfit {
        /// Which artefact.
        reference: String,
        /// What it is instead.
        reason: String,
    },
    /// There is something else at the tag of the signatures, or too many of them.
    #[error("the signatures at {reference} cannot be used: {reason}")]
    Signatures {
        /// Where they are.
        reference: String,
        /// What is wrong with them.
        reason: String,
    },
}
