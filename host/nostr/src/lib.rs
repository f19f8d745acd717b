//! `paygress-nostr`: a door. Customers' NIP-17 messages come in, answers and offers go out.
//!
//! ```text
//! relays ─▶ Tap ─▶ seen? ─▶ letter::open ─▶ wire::Request ─▶ desk.submit ─▶ remember
//!          (every receipt,  (every check of      │
//!           backpressure)    NIP-17, 44, 59)     └─ refused ─▶ Post
//! desk ─▶ Post (the courier) ─▶ letter::seal ─▶ the customer's 10050 relays, or the relay of receipt
//! ```
//!
//! - `gift_wrap.rs`: sealing and opening, and what is wrong with a letter.
//! - `connection.rs`: relays, one client for ours and one, without our key, for strangers'.
//! - `inbox.rs`: subscriptions that lose nothing, durable dedupe.
//! - `replies.rs`: answers. `offers.rs`: what is published. `address.rs`: which relays of strangers
//!   we connect to.
//! - `client.rs`: the other side, for `paygress order`.
//!
//! This is the only room that knows nostr-sdk.

mod address;
pub mod client;
mod connection;
pub mod gift_wrap;
pub mod http_auth;
mod inbox;
mod offers;
mod replies;

pub use connection::{Connection, Error, Settings};
pub use inbox::Inbox;
pub use nostr_sdk::{Keys, PublicKey, RelayUrl};
pub use offers::OfferPublisher;
pub use replies::ReplyPublisher;

use nostr_sdk::ToBech32;

/// A public key as people write it: `npub1…`.
#[must_use]
pub fn npub(key: &PublicKey) -> String {
    let Ok(npub) = key.to_bech32();
    npub
}

/// A secret key as people keep it: `nsec1…`.
#[must_use]
pub fn nsec(keys: &Keys) -> String {
    let Ok(nsec) = keys.secret_key().to_bech32();
    nsec
}
