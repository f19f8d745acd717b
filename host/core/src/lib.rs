//! `paygress-core`: the words of the trade, and the desk.
//!
//! This room knows what an order is and in which states it may be; it knows nothing of WebAssembly,
//! Kubernetes, Cashu wallets, Nostr relays or SQL. Those rooms implement the traits below and are
//! handed to the [`orders::OrderService`]:
//!
//! ```text
//! door ─ Request ─▶ appraise ─▶ decide ─▶ rehearse ─▶ redeem ─▶ launch ─▶ ready ─▶ answer
//!                   Till        Policy    Cluster     Till      Cluster   Cluster  Courier
//!                   └────────── each state is in the Ledger before the effect that it announces ──────────┘
//! ```
//!
//! A door (Nostr, HTTP) turns bytes into a [`protocol::Request`], hands it to the desk, and brings
//! the answer back.

pub mod backend;
pub mod limits;
pub mod model;
pub mod orders;
pub mod protocol;
pub mod sanitize;

pub use backend::cluster::Cluster;
pub use backend::policy::Policy;
pub use backend::responder::Responder;
pub use backend::store::Ledger;
pub use backend::wallet::Wallet;
pub use model::refusal::{ErrorType, Refusal};
