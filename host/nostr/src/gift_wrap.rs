//! A private direct message (NIP-17): a rumor, sealed (NIP-59) and encrypted (NIP-44) twice.
//!
//! The library decrypts; it checks neither the seal's kind nor its tags nor the rumor's id. All of
//! that is here.

use nostr_sdk::nips::{nip44, nip59::RANGE_RANDOM_TIMESTAMP_TWEAK};
use nostr_sdk::{
    Event, EventBuilder, EventId, JsonUtil, Keys, Kind, PublicKey, Tag, Timestamp, UnsignedEvent,
};

/// A wrap's content: NIP-44's own limit. Relays take 64 KiB, so this is generous.
pub const WRAP_BYTES: usize = 87_472;

/// A message that was opened, and whose sender is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// The id of the message itself, computed here: however often and in whatever wraps it is sent,
    /// it is the same.
    pub id: EventId,
    /// Who wrote it.
    pub sender: PublicKey,
    /// When, as the sender says.
    pub written_at: Timestamp,
    /// The message that it answers, if it says so.
    pub answers: Option<EventId>,
    /// The text.
    pub text: String,
}

/// What is wrong with a letter. The sender is not told: it may not be the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// Not a gift wrap.
    #[error("kind {0} is no gift wrap")]
    NotAWrap(u16),
    /// Longer than NIP-44 allows.
    #[error("{0} bytes are too long")]
    TooLong(usize),
    /// The wrap's id or signature is wrong.
    #[error("the wrap is forged")]
    ForgedWrap,
    /// For somebody else, or damaged.
    #[error("it cannot be decrypted: {0}")]
    Undecryptable(String),
    /// What was decrypted is no event.
    #[error("what is inside is not an event: {0}")]
    Garbage(String),
    /// Not kind 13, or with tags.
    #[error("the seal is not a seal")]
    NotASeal,
    /// The seal's id or signature is wrong.
    #[error("the seal is forged")]
    ForgedSeal,
    /// The message claims another author than the one who sealed it.
    #[error("the seal is not its author's")]
    Impersonation,
    /// The message carries an id that is not its own.
    #[error("the message's id is forged")]
    ForgedId,
    /// Not kind 14.
    #[error("kind {0} is no direct message")]
    NotAMessage(u16),
}

/// Opens a gift wrap that is addressed to these keys.
///
/// # Errors
/// [`UnwrapError`], the first that is found.
pub fn unwrap(keys: &Keys, wrap: &Event) -> Result<DirectMessage, UnwrapError> {
    if wrap.kind != Kind::GiftWrap {
        return Err(UnwrapError::NotAWrap(wrap.kind.as_u16()));
    }
    if wrap.content.len() > WRAP_BYTES {
        return Err(UnwrapError::TooLong(wrap.content.len()));
    }
    wrap.verify().map_err(|_| UnwrapError::ForgedWrap)?;
    let seal = sealed(&decrypt(keys, &wrap.pubkey, &wrap.content)?)?;
    let rumor = unsigned(&decrypt(keys, &seal.pubkey, &seal.content)?)?;
    if rumor.pubkey != seal.pubkey {
        return Err(UnwrapError::Impersonation);
    }
    let id =
        EventId::new(&rumor.pubkey, &rumor.created_at, &rumor.kind, &rumor.tags, &rumor.content);
    if rumor.id.is_some_and(|claimed| claimed != id) {
        return Err(UnwrapError::ForgedId);
    }
    if rumor.kind != Kind::PrivateDirectMessage {
        return Err(UnwrapError::NotAMessage(rumor.kind.as_u16()));
    }
    let answers = rumor
        .tags
        .iter()
        .find(|tag| tag.as_slice().first().is_some_and(|name| name == "e"))
        .and_then(Tag::content);
    let answers = answers.and_then(|id| EventId::from_hex(id).ok());
    Ok(DirectMessage {
        id,
        sender: rumor.pubkey,
        written_at: rumor.created_at,
        answers,
        text: rumor.content,
    })
}

fn sealed(text: &str) -> Result<Event, UnwrapError> {
    let seal = Event::from_json(text).map_err(|error| UnwrapError::Garbage(error.to_string()))?;
    if seal.kind != Kind::Seal || !seal.tags.is_empty() {
        return Err(UnwrapError::NotASeal);
    }
    seal.verify().map_err(|_| UnwrapError::ForgedSeal)?;
    Ok(seal)
}

fn unsigned(text: &str) -> Result<UnsignedEvent, UnwrapError> {
    UnsignedEvent::from_json(text).map_err(|error| UnwrapError::Garbage(error.to_string()))
}

/// What a stranger has encrypted is read as a seal and as a message: for fuzzing, which cannot
/// encrypt.
///
/// # Errors
/// [`UnwrapError`].
pub fn open_text(text: &str) -> Result<(), UnwrapError> {
    unsigned(text).map(drop).or_else(|_| sealed(text).map(drop))
}

fn decrypt(keys: &Keys, from: &PublicKey, content: &str) -> Result<String, UnwrapError> {
    nip44::decrypt(keys.secret_key(), from, content)
        .map_err(|error| UnwrapError::Undecryptable(error.to_string()))
}

/// Writes, seals and wraps a message. Gives the message's own id and the wrap to publish.
///
/// # Errors
/// In words: the text is too long for NIP-44.
pub fn gift_wrap(
    keys: &Keys,
    to: &PublicKey,
    text: &str,
    answers: Option<EventId>,
) -> Result<(EventId, Event), String> {
    let mut tags = vec![Tag::public_key(*to)];
    tags.extend(answers.map(Tag::event));
    let rumor = UnsignedEvent::new(
        keys.public_key(),
        Timestamp::now(),
        Kind::PrivateDirectMessage,
        tags,
        text,
    );
    wrap(keys, to, rumor)
}

fn wrap(keys: &Keys, to: &PublicKey, mut rumor: UnsignedEvent) -> Result<(EventId, Event), String> {
    let id = rumor.id();
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let past = || Timestamp::tweaked(RANGE_RANDOM_TIMESTAMP_TWEAK);
    let sealed = nip44::encrypt(keys.secret_key(), to, rumor.as_json(), nip44::Version::V2)
        .map_err(|error| text(&error))?;
    let seal = EventBuilder::new(Kind::Seal, sealed)
        .custom_created_at(past())
        .sign_with_keys(keys)
        .map_err(|error| text(&error))?;
    let once = Keys::generate();
    let content = nip44::encrypt(once.secret_key(), to, seal.as_json(), nip44::Version::V2)
        .map_err(|error| text(&error))?;
    let wrap = EventBuilder::new(Kind::GiftWrap, content)
        .tag(Tag::public_key(*to))
        .custom_created_at(past());
    Ok((id, wrap.sign_with_keys(&once).map_err(|error| text(&error))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nostr_sdk::Tags;
    use serde_json::{Value, json};

    fn encrypt(from: &Keys, to: &Keys, text: &str) -> String {
        nip44::encrypt(from.secret_key(), &to.public_key(), text, nip44::Version::V2).unwrap()
    }

    fn rumor(by: &Keys) -> Value {
        let mut rumor = UnsignedEvent::new(
            by.public_key(),
            Timestamp::now(),
            Kind::PrivateDirectMessage,
            [],
            "hello",
        );
        rumor.ensure_id();
        serde_json::from_str(&rumor.as_json()).unwrap()
    }

    /// A wrap as a liar makes it: any rumor, any kind of seal, any tags.
    fn lie(sealer: &Keys, to: &Keys, rumor: &Value, kind: Kind, tags: Vec<Tag>) -> Event {
        let seal = EventBuilder::new(kind, encrypt(sealer, to, &rumor.to_string()))
            .tags(tags)
            .sign_with_keys(sealer)
            .unwrap();
        around(to, &seal.as_json())
    }

    fn around(to: &Keys, inside: &str) -> Event {
        let once = Keys::generate();
        EventBuilder::new(Kind::GiftWrap, encrypt(&once, to, inside))
            .tag(Tag::public_key(to.public_key()))
            .sign_with_keys(&once)
            .unwrap()
    }

    #[test]
    fn what_is_sealed_can_be_opened_by_its_receiver_only() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let request = EventId::all_zeros();
        let (id, wrap) = seal(&alice, &bob.public_key(), "hello", Some(request)).unwrap();
        let message = open(&bob, &wrap).unwrap();
        assert_eq!(
            (message.id, message.sender, message.text.as_str(), message.answers),
            (id, alice.public_key(), "hello", Some(request))
        );
        assert!(wrap.pubkey != alice.public_key() && wrap.created_at <= Timestamp::now());
        assert!(matches!(open(&Keys::generate(), &wrap), Err(UnwrapError::Undecryptable(_))));
        assert!(seal(&alice, &bob.public_key(), &"x".repeat(70_000), None).is_err());
    }

    #[test]
    fn every_lie_is_found() {
        let (mallory, alice, bob) = (Keys::generate(), Keys::generate(), Keys::generate());
        let good = rumor(&mallory);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut rumor = good.clone();
            change(&mut rumor);
            open(&bob, &lie(&mallory, &bob, &rumor, Kind::Seal, vec![]))
        };
        assert!(with(&|_| ()).is_ok());
        assert_eq!(
            open(&bob, &lie(&mallory, &bob, &rumor(&alice), Kind::Seal, vec![])),
            Err(UnwrapError::Impersonation)
        );
        assert_eq!(
            open(&bob, &lie(&mallory, &bob, &good, Kind::TextNote, vec![])),
            Err(UnwrapError::NotASeal)
        );
        assert_eq!(
            open(&bob, &lie(&mallory, &bob, &good, Kind::Seal, vec![Tag::hashtag("x")])),
            Err(UnwrapError::NotASeal)
        );
        assert_eq!(with(&|rumor| rumor["id"] = json!("0".repeat(64))), Err(UnwrapError::ForgedId));
        assert_eq!(with(&|rumor| rumor["content"] = json!("other")), Err(UnwrapError::ForgedId));
        let reaction =
            UnsignedEvent::new(mallory.public_key(), Timestamp::now(), Kind::Reaction, [], "+")
                .as_json();
        assert_eq!(
            open(
                &bob,
                &lie(&mallory, &bob, &serde_json::from_str(&reaction).unwrap(), Kind::Seal, vec![])
            ),
            Err(UnwrapError::NotAMessage(7))
        );
        assert!(matches!(open(&bob, &around(&bob, "not an event")), Err(UnwrapError::Garbage(_))));
    }

    #[test]
    fn a_missing_rumor_id_is_computed() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let mut rumor = rumor(&alice);
        let id = rumor["id"].take();
        rumor.as_object_mut().unwrap().remove("id");
        let message = open(&bob, &lie(&alice, &bob, &rumor, Kind::Seal, vec![])).unwrap();
        assert_eq!(json!(message.id.to_hex()), id);
    }

    #[test]
    fn forged_signatures_and_odd_wraps_are_found() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let (_, wrap) = seal(&alice, &bob.public_key(), "hello", None).unwrap();
        let mut forged = wrap.clone();
        forged.tags = Tags::new();
        assert_eq!(open(&bob, &forged), Err(UnwrapError::ForgedWrap));
        let seal_json = nip44::decrypt(bob.secret_key(), &wrap.pubkey, &wrap.content).unwrap();
        let mut seal: Value = serde_json::from_str(&seal_json).unwrap();
        seal["created_at"] = json!(1);
        assert_eq!(open(&bob, &around(&bob, &seal.to_string())), Err(UnwrapError::ForgedSeal));
        let once = Keys::generate();
        let event =
            |kind, content: &str| EventBuilder::new(kind, content).sign_with_keys(&once).unwrap();
        assert_eq!(
            open(&bob, &event(Kind::PrivateDirectMessage, "x")),
            Err(UnwrapError::NotAWrap(14))
        );
        assert_eq!(
            open(&bob, &event(Kind::Custom(21_059), "x")),
            Err(UnwrapError::NotAWrap(21_059))
        );
        for garbage in ["", "#unknown", "AQ==", "A", "ä", &"A".repeat(80_000)] {
            assert!(
                matches!(
                    open(&bob, &event(Kind::GiftWrap, garbage)),
                    Err(UnwrapError::Undecryptable(_))
                ),
                "{garbage:.9}"
            );
        }
        assert_eq!(
            open(&bob, &event(Kind::GiftWrap, &"A".repeat(100_000))),
            Err(UnwrapError::TooLong(100_000))
        );
    }
}
