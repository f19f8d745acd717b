//! `paygress-oci`: policies come from OCI registries, and a signature says whose they are.
//!
//! ```text
//! "oci://registry.example/policies/pricing:1.2"
//!      │ reference.rs                       web.rs: HTTP with an end to everything
//!      ▼                                      ▲
//! registry.rs ─▶ session.rs: one errand at one registry ─▶ auth.rs: tokens and passwords
//!  pull, push    manifest.rs: what it keeps there
//!      │
//!      ▼
//! signatures.rs: the signatures beside an artefact, as cosign keeps them ─▶ keys.rs: are they ours?
//! ```
//!
//! `fetcher.rs` puts them together for the service: what is pulled is judged by `verification.rs`,
//! as the operator wants it.
//!
//! What a registry sends is a stranger's until its digest is checked, and a component is a
//! stranger's until [`Keys::verify_image`] has named the key that signed it. A signature is for
//! bytes, and not for a name or a time: whoever may write to the registry can put an older
//! component there that was signed too, or another of the same signer. A reference that is pinned
//! to a digest is safe from that.
//!
//! `testing.rs` (feature `testing`) is a registry in memory. Nothing here knows what a component
//! does: this is the only room that knows registries and signatures.

mod auth;
mod digest;
mod error;
mod fetcher;
mod http;
mod keys;
mod manifest;
mod reference;
mod registry;
mod repository;
mod signatures;
#[cfg(feature = "testing")]
pub mod testing;
mod verification;

pub use digest::{Digest, DigestError};
pub use error::Error;
pub use fetcher::{ComponentFetcher, FetchError};
pub use http::Timeouts;
pub use keys::{KeyError, Keys, SigningKey, Unverified};
pub use reference::{Reference, ReferenceError};
pub use registry::{Artifact, Package, Registry};
pub use signatures::Signature;
pub use verification::{SignatureMode, VerificationPolicy};
