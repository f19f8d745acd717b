//! `paygress-cashu`: the Cashu wallets that verify, receive and refund customers' tokens. One
//! wallet for each mint, one store, one seed.
//!
//! ```text
//! order service ─▶ CashuWallet ─────────▶ MintWallet ──────────▶ WalletStore   before and after
//!                  backend.rs, verify.rs   swap.rs, send.rs,      tables.rs     each request
//! operator ──────▶ operator.rs             melt.rs, restore.rs,
//!                                          rotation.rs
//!       token.rs, conditions.rs: offline       └────────────────▶ MintClient ─▶ HTTP
//!                                                                 health.rs, spent.rs
//! ```
//!
//! cdk has the protocol: tokens, blinding, signatures, derivation. What is stored around each
//! request is this crate's own, since its rule is stricter than an interactive wallet's: an
//! operation whose response was lost stays open, with its request unchanged, until the mint
//! reports how it ended. It is never given up because something else went wrong.
//!
//! ```text
//!             stored with inputs,
//!             outputs, counters
//! (purpose) ───────▶ Open ──▶ request ──▶ signatures are valid ───────────────▶ Done
//!                     ▲          └──▶ rejected, lost or invalid: resolve
//!                     │                 ├ inputs spent, our outputs signed ───▶ Done
//!                     │                 ├ inputs spent, outputs not signed ───▶ Failed (spent elsewhere)
//!                     │                 ├ rejected, and inputs unspent,
//!                     │                 │ outputs not signed ─────────────────▶ Failed (try again)
//!                     │                 ├ abandoned, no request for 15 minutes,
//!                     │                 │ inputs unspent, outputs not signed ─▶ Failed
//!                     └─────────────────┘ otherwise: resumed at the next call or start
//! ```
//!
//! Rejected means a refusal of the server itself, with whatever status and code (`http.rs`,
//! `error.rs`). No refusal is believed before the mint has confirmed it.
//! Outputs are made from the lowest derivation counters that are free, so that a restore finds all
//! of them: `counters.rs`.
//!
//! A keyset is of one mint, on disk, before anything is derived from it: `keyset_owners.rs`.
//!
//! A [`Purpose`] is the idempotency key: at most one operation of a purpose is ever done, whatever
//! is repeated, restarted or run by several replicas. Before an order is refused its purpose is
//! closed: a replica that had the order before begins nothing more for it.
//!
//! The crate speaks HTTP to the configured mints (and to the Lightning address of a payout) and
//! writes to its database. Everything that comes from there or from a customer is untrusted:
//! bounded in size and time, verified before use, never quoted in an error. It is the only crate
//! that knows cdk. Curve operations over many proofs run off the async threads.
//!
//! # Example
//! ```
//! use paygress_cashu::{CashuWallet, Seed, Settings, WalletStore};
//! use paygress_core::backend::wallet::{Payments, TokenReader};
//! use paygress_core::model::ids::MintUrl;
//! use paygress_core::model::refusal::ErrorType;
//! use paygress_core::model::secret::Secret;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let seed = Seed::load_or_create(&directory.path().join("mnemonic")).await?;
//! let store = WalletStore::sqlite(&directory.path().join("wallet.sqlite")).await?;
//! let settings = Settings {
//!     mints: vec![MintUrl::parse("https://mint.example")?],
//!     max_balance: None,
//!     p2pk_secret_key: None,
//! };
//! let wallet = CashuWallet::open(store, seed, &settings).await?;
//! wallet.recover().await?;
//!
//! // What is no token is refused offline; `verify` and `receive` would ask the mint.
//! let refused = wallet.decode(&Secret::new("cashuBnonsense".to_owned())).await;
//! assert_eq!(refused.map_err(|refusal| refusal.code), Err(ErrorType::InvalidToken));
//! assert_eq!(wallet.balances().await?, []);
//! # Ok(())
//! # }
//! ```

mod backend;
mod client;
mod compute;
mod conditions;
mod counters;
mod crypto;
mod error;
mod failures;
mod health;
mod http;
mod keyset;
mod keyset_owners;
mod lightning_address;
mod melt;
mod mint_check;
mod mint_wallet;
mod operation;
mod operator;
mod pace;
mod purpose;
mod refusal;
mod restore;
mod rotation;
mod seed;
mod send;
mod spent;
mod state_batch;
mod swap;
mod tables;
#[cfg(test)]
mod testing;
mod token;
mod token_format;
mod verify;
mod wallet;
mod wallet_store;

pub use error::{
    KeysetConflict, LightningAddressError, MintError, MintWalletError, OperatorError,
    ResponseError, SignatureError, UnavailableReason, Unresolved,
};
pub use health::MintHealth;
pub use lightning_address::is_valid_lightning_address;
pub use melt::Melted;
pub use mint_check::{MeltLimits, MintOffer, Nut, check_mint};
pub use operation::{MintBalance, OperationState, Transaction};
pub use purpose::{PaymentHash, Purpose, RotationId, SendId, UnknownPurpose};
pub use seed::{Seed, SeedError};
pub use token::token_amount;
pub use wallet::{CashuWallet, HealthCheck, MintStatus, OpenError, Settings};
pub use wallet_store::WalletStore;
