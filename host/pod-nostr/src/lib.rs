//! `paygress-pod-nostr`: what runs in pods and speaks Nostr, the static program `paygress-nostr`,
//! and the types that it shares with the service.
//!
//! ```text
//! service ─ Secret: ReplyRequest ─▶ paygress-nostr reply ─ NIP-17 ─▶ the customer's relays
//!         ◀─ termination message: ReplyReport ─┘
//! service ─ variables: ServiceContact ─▶ paygress-top-up ─ NIP-17 ─▶ the service's relays
//! ```
//!
//! - [`reply`]: `paygress-nostr reply` is the second init container of a pod that answers for
//!   itself. Its key is made in its memory and ends with it.
//! - [`service_contact`]: what a pod knows of the service that sold it.
//! - With the feature `program`, the program itself. Messages are wrapped and relays are visited
//!   by `paygress-nostr`, the only crate that knows nostr-sdk.

pub mod reply;
pub mod service_contact;

#[cfg(feature = "program")]
mod arguments;
#[cfg(feature = "program")]
mod host_keys;
#[cfg(feature = "program")]
mod output;
#[cfg(feature = "program")]
mod record;
#[cfg(feature = "program")]
mod send_reply;
#[cfg(feature = "program")]
mod token_input;
#[cfg(feature = "program")]
mod top_up;

#[cfg(feature = "program")]
pub use arguments::run;
pub use reply::{ReplyFileError, ReplyReport, ReplyRequest, with_ssh_host};
pub use service_contact::{NostrContact, ServiceContact};
