//! `paygress-core`: the words of the trade, and the desk.
//!
//! This room knows what an order is and in which states it may be; it knows nothing of WebAssembly, Kubernetes, Cashu
//! wallets, Nostr relays or SQL. Those rooms implement the traits below and are handed to the [`desk::Desk`]:
//!
//! ```text
//! door ─ Request ─▶ appraise ─▶ decide ─▶ rehearse ─▶ redeem ─▶ launch ─▶ ready ─▶ answer
//!                   Till        Policy    Cluster     Till      Cluster   Cluster  Courier
//!                   └────────── each state is in the Ledger before the effect that it announces ──────────┘
//! ```
//!
//! A door (Nostr, HTTP) turns bytes into a [`wire::Request`], hands it to the desk, and brings the answer back.

pub mod cluster;
pub mod courier;
pub mod desk;
pub mod identity;
pub mod ledger;
pub mod limits;
pub mod login;
pub mod order;
pub mod plain;
pub mod policy;
pub mod refusal;
pub mod secret;
pub mod shell;
pub mod till;
pub mod units;
pub mod wire;

pub use cluster::Cluster;
pub use courier::Courier;
pub use ledger::Ledger;
pub use policy::Policy;
pub use refusal::{ErrorType, Refusal};
pub use till::Till;
