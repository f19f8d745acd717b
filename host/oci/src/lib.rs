//! `paygress-oci`: policies in OCI registries, and their signatures.
//!
//! ```text
//! "oci://registry.example/policies/pricing:1.2"
//!      │ reference.rs
//!      ▼
//! registry.rs: pull, push ───▶ repository.rs ──▶ challenge.rs, credentials.rs, retry.rs
//!      │   artifact.rs            one repository's requests, by paygress-http-client;
//!      │   manifest.rs            digests checked
//!      ▼
//! signatures.rs, referrers.rs: the signatures beside an artifact, as cosign keeps them
//!      │   signature.rs: their payload; bundle.rs: those of cosign 3
//!      ▼
//! keys.rs: is one of them by a known key? ──▶ verification.rs: is it accepted without?
//! ```
//!
//! [`ComponentFetcher`] (`fetcher.rs`) does all of this for the service, as the operator configured
//! it. The crate sends HTTP requests and reads the auth file; if [`CredentialHelpers::Run`] allows
//! it, it runs credential helpers. It touches nothing else, and does not know what a component
//! does. `testing.rs` (feature `testing`) is a registry in memory.
//!
//! What a registry sends is untrusted until its digest is checked, and a component is untrusted
//! until [`Keys::verify_image`] has named the key that signed it. A signature is for bytes, not for
//! a name or a time: a registry can serve an older component that was signed too, or another one by
//! the same key. A reference that is pinned to a digest is safe from that.
//!
//! ```no_run
//! use paygress_oci::{
//!     ComponentFetcher, Keys, Registry, RegistryOptions, SignatureMode, VerificationPolicy,
//! };
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut keys = Keys::default();
//! keys.add_file(Path::new("cosign.pub"))?;
//! let verification = VerificationPolicy::new(keys, SignatureMode::Required);
//! let registry = Registry::open(RegistryOptions::default()).await?;
//! let fetcher = ComponentFetcher::new(registry, Arc::new(verification), 32 << 20);
//! let artifact = fetcher.pull("oci://registry.example/policies/pricing:1.2").await?;
//! println!("{} bytes, manifest {}", artifact.component.len(), artifact.manifest_digest);
//! # Ok(())
//! # }
//! ```

mod artifact;
mod bundle;
mod challenge;
mod credential_helper;
mod credentials;
mod digest;
mod error;
mod fetcher;
mod keys;
mod manifest;
mod reference;
mod referrers;
mod registry;
mod repository;
mod retry;
mod signature;
mod signatures;
#[cfg(feature = "testing")]
pub mod testing;
mod verification;

pub use artifact::{Artifact, Package};
pub use bundle::MAX_SIGNATURE_BYTES;
pub use credentials::CredentialHelpers;
pub use digest::{Digest, DigestError};
pub use error::{AuthFileError, DecodeError, Error, HelperError, ResponseError, SignaturesError};
pub use fetcher::{ComponentFetcher, FetchError};
pub use keys::{KeyError, KeyFileError, Keys, SigningKey, Unverified};
pub use manifest::ManifestError;
pub use paygress_http_client::{HttpError, Timeouts};
pub use reference::{Reference, ReferenceError, RegistryHost};
pub use registry::{Registry, RegistryOptions};
pub use signature::Signature;
pub use verification::{SignatureMode, VerificationPolicy};
