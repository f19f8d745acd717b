//! `paygress-core`: the order service and the traits that it needs.
//!
//! It knows what an order is and which states it goes through. It knows nothing of WebAssembly,
//! Kubernetes, Cashu wallets, Nostr relays, HTTP or SQL: other crates implement the traits of
//! [`backend`] and are handed to the [`orders::OrderService`].
//!
//! ```text
//! transport ─ NewOrder ─▶ verify ─▶ decide ─▶ dry run ─▶ receive ─▶ launch ─▶ ready ─▶ respond
//!                         Wallet    Policy    Cluster    Wallet     Cluster   Cluster  Responder
//!                         └──── every state is in the Ledger before the effect that it announces ────┘
//! ```
//!
//! - [`model`]: ids, amounts, orders, leases, error codes. Plain data.
//! - [`backend`]: the traits, split by reader.
//! - [`orders`]: the order service.
//! - [`protocol`]: requests and responses of both transports, as types.
//! - [`limits`]: every limit that untrusted input meets. [`keyed_limit`]: how many of something a
//!   customer or a host has. [`recent`]: what was seen lately. [`every_nth`]: when to look at what
//!   piles up. [`networks`]: which addresses share limits. [`backoff`]: pauses between attempts.
//!   [`logged_failures`]: which failures are logged. [`live_leases`]: when leases end.
//!   [`readiness`]: why a process cannot serve. [`sanitize`]: untrusted text for terminals.
//!   [`FileLock`]: files that one process has alone.
//!
//! ```
//! use paygress_core::protocol::{Request, Response};
//!
//! // A transport parses what it received…
//! let refusal = Request::parse(r#"{"cashu_token": "cashuB…", "tier": 7}"#).unwrap_err();
//! // …and sends what the order service answers.
//! assert!(Response::from(&refusal).to_json().contains("invalid_request"));
//! ```

pub mod backend;
pub mod backoff;
mod byte_budget;
mod coalesced;
mod error_chain;
pub mod every_nth;
mod file_lock;
pub mod keyed_limit;
pub mod limits;
mod listen_addresses;
pub mod live_leases;
pub mod logged_failures;
pub mod model;
pub mod networks;
pub mod orders;
pub mod protocol;
pub mod readiness;
pub mod recent;
pub mod sanitize;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use backend::cluster::Cluster;
pub use backend::policy::Policy;
pub use backend::responder::Responder;
pub use backend::store::Ledger;
pub use backend::wallet::Wallet;
pub use error_chain::error_chain;
pub use file_lock::FileLock;
pub use listen_addresses::listen_addresses;
pub use model::refusal::{ErrorType, Refusal};
