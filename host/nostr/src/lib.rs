//! `paygress-nostr`: the Nostr transport. Customers' NIP-17 messages come in, responses and offers
//! go out.
//!
//! ```text
//! relays ─▶ InboxAdmitPolicy ─▶ gift_wrap::unwrap ─▶ claim the id ─▶ protocol::Request ─▶ orders.submit
//!           (every event,        (every check of      (durable         │
//!            back-pressure)       NIP-17, 44, 59)      deduplication)  └─ refused ─▶ ReplyPublisher
//! orders ─▶ ReplyPublisher ─▶ gift_wrap::gift_wrap ─▶ the relay of the request, and beside it the customer's 10050 relays
//! orders ─▶ OfferPublisher ─▶ profile, relay lists and offers on our relays
//! ```
//!
//! - `gift_wrap.rs`: wrapping and unwrapping of direct messages. `nip44.rs`: their encryption.
//! - `connection.rs`: the clients for our relays, one that reads and one that sends. `visits.rs`:
//!   visits to external ones, bounded. `address.rs`: which of them we connect to. `relay_auth.rs`:
//!   how often a relay is authenticated to.
//! - `inbox.rs` and `inbox/`: subscriptions that lose nothing, and the cursor of what was read.
//! - `replies.rs`: responses, and who waits for whom; `replies/admission.rs`: which of those that are
//!   not in the ledger are sent. `delivery.rs`: the way of one response.
//!   `offers.rs`: what is published. `offer_dates.rs`: its dates. `pod_reply.rs`: what a pod is given
//!   to write by itself.
//! - `http_auth.rs`: NIP-98 signatures, for the HTTP transport. `receipt.rs`: signed receipts.
//! - `client.rs`: the customer's side, for `paygress order` and for `paygress-top-up` in pods.
//!   `relay_check.rs`: whether a relay does what the service needs, for the operator.
//!   `broadcast.rs`: one event to several relays, for pods that answer for themselves.
//!
//! It uses `paygress-core` and relays, nothing else: no cluster, no wallet, no database of its own.
//! It is the only crate that knows nostr-sdk.
//!
//! A customer buys a pod with [`client::Client`]:
//!
//! ```no_run
//! use paygress_core::protocol::{RequestBody, Response};
//! use paygress_nostr::client::Client;
//! use paygress_nostr::{Keys, RelayUrl};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let relays = vec![RelayUrl::parse("wss://relay.example.com")?];
//! let client = Client::connect(Keys::generate(), relays).await?;
//! let offers = client.offers(None).await?;
//! let service = offers.first().ok_or("there is no offer on these relays")?.service;
//! let request = RequestBody { cashu_token: Some("cashuB…".to_owned()), ..RequestBody::default() };
//! let answer = client.ask(service, &request, Duration::from_secs(180), |_| ()).await?;
//! if let Some(Response::Access(access)) = answer.response {
//!     println!("ssh -p {} {}@{}", access.ssh_port, access.ssh_username, access.ssh_host);
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod broadcast;
pub mod client;
mod connection;
mod delivery;
mod error;
pub mod gift_wrap;
pub mod http_auth;
mod inbox;
mod nip44;
mod offer_dates;
mod offers;
mod pod_reply;
mod receipt;
mod relay_auth;
mod relay_check;
mod replies;
mod visits;

pub use broadcast::{Broadcast, broadcast};
pub use connection::{Connection, Settings};
pub use error::{Error, RelayFailures};
pub use inbox::Inbox;
pub use nostr_sdk::{EventId, Keys, PublicKey, RelayUrl};
pub use offers::OfferPublisher;
pub use receipt::{ReceiptError, ServiceReceipts, VerifiedReceipt, verify_receipt};
pub use relay_check::{ReadBack, RelayReport, check_relay};
pub use replies::{ReplyPublisher, TRANSPORT};

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
