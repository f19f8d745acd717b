//! Authentication at relays (NIP-42), bounded. The library answers each challenge, and subscribes
//! anew after each answer that the relay takes; and a relay challenges as often as it likes.

use nostr_sdk::signer::SignerBackend;
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{Event, Keys, Kind, NostrSigner, PublicKey, SignerError, TagKind, UnsignedEvent};
use paygress_core::recent::Recent;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Challenges of one relay that are answered within [`CHALLENGE_WINDOW`]. One of each connection
/// would do; some relays send another one with each request that comes before the answer.
pub(crate) const CHALLENGES_ANSWERED: u32 = 20;
/// After this the next one is answered again.
pub(crate) const CHALLENGE_WINDOW: Duration = Duration::from_secs(60);
/// Relays whose challenges are counted: many more than a client is connected to.
const RELAYS_COUNTED: usize = 1_024;

/// Signs the answers to relays' challenges, and nothing else: what is not signed is not sent, and
/// the library subscribes nothing anew.
pub(crate) struct RelayAuthSigner {
    keys: Keys,
    challenges: Mutex<Recent<String>>,
}

impl RelayAuthSigner {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys, challenges: Mutex::new(Recent::new(RELAYS_COUNTED, CHALLENGE_WINDOW)) }
    }

    fn admit(&self, unsigned: &UnsignedEvent) -> Result<(), SignerError> {
        let relay = unsigned.tags.find(TagKind::Relay).and_then(|tag| tag.content());
        let Some(relay) = relay.filter(|_| unsigned.kind == Kind::Authentication) else {
            return Err(refused());
        };
        let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        let challenged = challenges.insert(&relay.to_owned());
        drop(challenges);
        if challenged <= CHALLENGES_ANSWERED {
            return Ok(());
        }
        if challenged == CHALLENGES_ANSWERED.saturating_add(1) {
            tracing::warn!(
                relay,
                "the relay wants authentication again and again; it gets none for up to a minute"
            );
        }
        Err("the relay has sent too many challenges".into())
    }
}

fn refused() -> SignerError {
    "only the answers to relays' challenges are signed here".into()
}

fn not_encrypted<'a>() -> BoxedFuture<'a, Result<String, SignerError>> {
    Box::pin(async { Err(refused()) })
}

/// Without the keys.
impl fmt::Debug for RelayAuthSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAuthSigner").finish_non_exhaustive()
    }
}

impl NostrSigner for RelayAuthSigner {
    fn backend(&self) -> SignerBackend<'_> {
        self.keys.backend()
    }

    fn get_public_key(&self) -> BoxedFuture<'_, Result<PublicKey, SignerError>> {
        self.keys.get_public_key()
    }

    fn sign_event(&self, unsigned: UnsignedEvent) -> BoxedFuture<'_, Result<Event, SignerError>> {
        Box::pin(async move {
            self.admit(&unsigned)?;
            self.keys.sign_event(unsigned).await
        })
    }

    fn nip04_encrypt<'a>(
        &'a self,
        _: &'a PublicKey,
        _: &'a str,
    ) -> BoxedFuture<'a, Result<String, SignerError>> {
        not_encrypted()
    }

    fn nip04_decrypt<'a>(
        &'a self,
        _: &'a PublicKey,
        _: &'a str,
    ) -> BoxedFuture<'a, Result<String, SignerError>> {
        not_encrypted()
    }

    fn nip44_encrypt<'a>(
        &'a self,
        _: &'a PublicKey,
        _: &'a str,
    ) -> BoxedFuture<'a, Result<String, SignerError>> {
        not_encrypted()
    }

    fn nip44_decrypt<'a>(
        &'a self,
        _: &'a PublicKey,
        _: &'a str,
    ) -> BoxedFuture<'a, Result<String, SignerError>> {
        not_encrypted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nostr_sdk::{EventBuilder, RelayUrl};

    #[tokio::test]
    async fn only_a_few_answers_to_challenges_are_signed_for_each_relay() {
        let signer = RelayAuthSigner::new(Keys::generate());
        let [a, b] =
            ["wss://a.example", "wss://b.example"].map(|url| RelayUrl::parse(url).unwrap());
        let answer = async |relay: &RelayUrl| {
            EventBuilder::auth("challenge", relay.clone()).sign(&signer).await
        };
        for _ in 0..CHALLENGES_ANSWERED {
            answer(&a).await.unwrap().verify().unwrap();
        }
        for _ in 0..100 {
            assert!(answer(&a).await.is_err());
        }
        assert!(answer(&b).await.is_ok(), "another relay has its own");
        let note = EventBuilder::new(Kind::TextNote, "hello");
        assert!(note.sign(&signer).await.is_err(), "nothing else is signed");
    }
}
