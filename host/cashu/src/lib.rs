//! `paygress-cashu`: the till. One drawer for each mint, one purse, one seed.
//!
//! ```text
//! Till (till.rs) ─▶ Drawer (drawer.rs) ─▶ Purse (purse.rs)    on disk before the mint is asked
//!   token.rs           │   pay.rs: Lightning
//!   offline checks     └─▶ Mint (client.rs) ─▶ HTTP           an end to every wait, answer and queue; health.rs
//! ```
//!
//! - `token.rs`: what can be read from a token offline. Strangers' bytes; nothing is asked of
//!   anybody.
//! - `transactions.rs`: the operator's side: balance, send, pay, restore, entries for an audit.
//! - `seed.rs`: the mnemonic, which alone brings all money back (NUT-13).
//! - `test_mint.rs`, `fault_proxy.rs` (feature `mint`): a mint of our own with fake Lightning, and
//!   a bad way to it: for the demo and
//!   for tests.
//!
//! cdk has the protocol: tokens, blinding, signatures, derivation. What is written down before and
//! after each request is this room's own, since its one rule is stricter than a wallet's: an
//! operation whose answer was lost stays open, with its very words, until the mint tells how it
//! ended. It is never given up because something else went wrong.
//!
//! This is the only room that knows cdk.

mod client;
#[cfg(feature = "mint")]
pub mod fault_proxy;
mod health;
mod melt;
mod mint_wallet;
mod seed;
#[cfg(feature = "mint")]
pub mod test_mint;
mod token;
mod transactions;
mod wallet;
mod wallet_store;

pub use health::State as Health;
pub use melt::Melted;
pub use seed::{Seed, SeedError};
pub use transactions::{MintBalance, Transaction, WalletError};
pub use wallet::{CashuWallet, OpenError, Settings};
pub use wallet_store::{OperationState, WalletStore};
