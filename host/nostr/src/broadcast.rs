//! One event to several relays at once, by a program that sends nothing else.

use crate::error::{RelayError, RelayFailures};
use crate::visits::visit;
use nostr_sdk::{Event, RelayUrl};
use paygress_core::error_chain;
use paygress_http_client::Reach;
use std::collections::HashMap;
use std::time::Duration;

/// What became of an event.
#[derive(Debug)]
pub struct Broadcast {
    /// The relays that have confirmed it.
    pub accepted: Vec<RelayUrl>,
    /// Why the others have not.
    pub failures: RelayFailures,
}

/// Brings an event to all of these relays within this time, in the open or encrypted, and wherever
/// they are: for programs that reach no more than whoever names the relays. A relay that wants
/// authentication gets it from a key of this visit alone.
pub async fn broadcast(event: &Event, relays: &[RelayUrl], within: Duration) -> Broadcast {
    let visits = relays.iter().map(|relay| async move {
        let visited = tokio::time::timeout(within, visit(relay, event, Reach::Any)).await;
        (relay, visited.unwrap_or(Err(RelayError::Timeout)))
    });
    let (mut accepted, mut failures) = (Vec::new(), HashMap::new());
    for (relay, visited) in futures::future::join_all(visits).await {
        match visited {
            Ok(()) => accepted.push(relay.clone()),
            Err(error) => drop(failures.insert(relay.clone(), error_chain(&error))),
        }
    }
    Broadcast { accepted, failures: failures.into() }
}
