//! A private direct message (NIP-17): a rumor, sealed (NIP-59) and encrypted (NIP-44) twice.
//!
//! The library decrypts; it checks neither the seal's kind nor its tags nor the rumor's id. All of
//! that is here.

use crate::nip44;
use nostr_sdk::nips::nip59::RANGE_RANDOM_TIMESTAMP_TWEAK;
use nostr_sdk::{
    Event, EventBuilder, EventId, JsonUtil, Keys, Kind, PublicKey, Tag, TagKind, Tags, Timestamp,
    UnsignedEvent, event,
};

/// A wrap's content. The largest request fits, wrapped and encrypted twice; relays take 64 KiB as a
/// rule.
pub const WRAP_BYTES: usize = 200 << 10;
/// Wraps are dated up to two days back (NIP-59). Clocks differ, and some clients randomise a little
/// further.
pub(crate) const BACKDATED_SECONDS: u64 = 2 * 86_400 + 3_600;

/// A message that was unwrapped, and whose sender is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// The id of the message itself, computed here: the same in whatever wraps it is sent.
    pub id: EventId,
    pub sender: PublicKey,
    /// As the sender says.
    pub written_at: Timestamp,
    /// The message that it answers, if it says so.
    pub answers: Option<EventId>,
    pub text: String,
}

/// Why a gift wrap is dropped. No response is sent: the sender is not known.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum UnwrapError {
    #[error("kind {0} is not a gift wrap")]
    NotAWrap(u16),
    /// Longer than [`WRAP_BYTES`].
    #[error("the content is too long: {0} bytes")]
    TooLong(usize),
    /// Its id or signature is wrong.
    #[error("the wrap is forged")]
    ForgedWrap,
    /// For somebody else, or damaged.
    #[error("the content cannot be decrypted")]
    Undecryptable(#[source] nip44::Error),
    #[error("the decrypted content is not an event")]
    NotAnEvent(#[source] event::Error),
    /// Not kind 13, or with other tags than an expiration.
    #[error("the content is not a seal")]
    NotASeal,
    /// It was to disappear by now (NIP-40).
    #[error("the message has expired")]
    Expired,
    /// Its id or signature is wrong.
    #[error("the seal is forged")]
    ForgedSeal,
    /// The message claims another author than the one who sealed it.
    #[error("the message was sealed by another key than its author's")]
    Impersonation,
    /// The message carries an id that is not its own.
    #[error("the message's id is forged")]
    ForgedId,
    /// Not kind 14.
    #[error("kind {0} is not a direct message")]
    NotAMessage(u16),
}

/// Why a message was not wrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    #[error("the message cannot be encrypted")]
    Encrypt(#[from] nip44::Error),
    #[error("the message cannot be signed")]
    Sign(#[from] event::builder::Error),
    /// Longer than [`WRAP_BYTES`].
    #[error("the wrapped message is too long: {0} bytes")]
    TooLong(usize),
}

/// Unwraps a message that is addressed to these keys.
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
    check_expiration(&wrap.tags)?;
    let seal = parse_seal(&decrypt(keys, &wrap.pubkey, &wrap.content)?)?;
    let rumor = parse_rumor(&decrypt(keys, &seal.pubkey, &seal.content)?)?;
    if rumor.pubkey != seal.pubkey {
        return Err(UnwrapError::Impersonation);
    }
    check_expiration(&rumor.tags)?;
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

/// NIP-59 has no tags on a seal; NIP-17 allows one, for messages that disappear.
fn parse_seal(text: &str) -> Result<Event, UnwrapError> {
    let seal = Event::from_json(text).map_err(UnwrapError::NotAnEvent)?;
    let has_other_tags = seal.tags.iter().any(|tag| tag.kind() != TagKind::Expiration);
    if seal.kind != Kind::Seal || has_other_tags {
        return Err(UnwrapError::NotASeal);
    }
    seal.verify().map_err(|_| UnwrapError::ForgedSeal)?;
    check_expiration(&seal.tags)?;
    Ok(seal)
}

fn check_expiration(tags: &Tags) -> Result<(), UnwrapError> {
    match tags.expiration() {
        Some(at) if *at < Timestamp::now() => Err(UnwrapError::Expired),
        _ => Ok(()),
    }
}

fn parse_rumor(text: &str) -> Result<UnsignedEvent, UnwrapError> {
    UnsignedEvent::from_json(text).map_err(UnwrapError::NotAnEvent)
}

/// Parses decrypted text as a seal and as a rumor: for fuzzing, which cannot encrypt.
///
/// # Errors
/// [`UnwrapError`].
pub fn parse_decrypted(text: &str) -> Result<(), UnwrapError> {
    parse_rumor(text).map(drop).or_else(|_| parse_seal(text).map(drop))
}

fn decrypt(keys: &Keys, from: &PublicKey, content: &str) -> Result<String, UnwrapError> {
    nip44::decrypt(keys.secret_key(), from, content).map_err(UnwrapError::Undecryptable)
}

/// Writes, seals and wraps a message. Gives the message's own id and the wrap to publish. Without a
/// message that it answers, its id is that of no other: the same text in the same second would be the
/// same message, and would get the same answer.
///
/// # Errors
/// [`WrapError`]: the text is too long.
pub fn gift_wrap(
    keys: &Keys,
    to: &PublicKey,
    text: &str,
    answers: Option<EventId>,
) -> Result<(EventId, Event), WrapError> {
    let mut tags = vec![Tag::public_key(*to)];
    tags.push(match answers {
        Some(request) => Tag::event(request),
        None => Tag::custom(TagKind::custom("salt"), [salt()?]),
    });
    let rumor = UnsignedEvent::new(
        keys.public_key(),
        Timestamp::now(),
        Kind::PrivateDirectMessage,
        tags,
        text,
    );
    seal_and_wrap(keys, to, rumor)
}

fn salt() -> Result<String, nip44::Error> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|_| nip44::Error::Random)?;
    Ok(format!("{:016x}", u64::from_le_bytes(salt)))
}

fn seal_and_wrap(
    keys: &Keys,
    to: &PublicKey,
    mut rumor: UnsignedEvent,
) -> Result<(EventId, Event), WrapError> {
    let id = rumor.id();
    let past = || Timestamp::tweaked(RANGE_RANDOM_TIMESTAMP_TWEAK);
    let sealed = nip44::encrypt(keys.secret_key(), to, &rumor.as_json())?;
    let seal =
        EventBuilder::new(Kind::Seal, sealed).custom_created_at(past()).sign_with_keys(keys)?;
    let one_time = Keys::generate();
    let content = nip44::encrypt(one_time.secret_key(), to, &seal.as_json())?;
    if content.len() > WRAP_BYTES {
        return Err(WrapError::TooLong(content.len()));
    }
    let wrap = EventBuilder::new(Kind::GiftWrap, content)
        .tag(Tag::public_key(*to))
        .custom_created_at(past());
    Ok((id, wrap.sign_with_keys(&one_time)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn encrypt(from: &Keys, to: &Keys, text: &str) -> String {
        nip44::encrypt(from.secret_key(), &to.public_key(), text).unwrap()
    }

    fn rumor(author: &Keys) -> Value {
        let mut rumor = UnsignedEvent::new(
            author.public_key(),
            Timestamp::now(),
            Kind::PrivateDirectMessage,
            [],
            "hello",
        );
        rumor.ensure_id();
        serde_json::from_str(&rumor.as_json()).unwrap()
    }

    /// A forged wrap: any rumor, any kind of seal, any tags.
    fn forge(sealer: &Keys, to: &Keys, rumor: &Value, kind: Kind, tags: Vec<Tag>) -> Event {
        let seal = EventBuilder::new(kind, encrypt(sealer, to, &rumor.to_string()))
            .tags(tags)
            .sign_with_keys(sealer)
            .unwrap();
        wrap_text(to, &seal.as_json())
    }

    fn wrap_text(to: &Keys, content: &str) -> Event {
        let one_time = Keys::generate();
        EventBuilder::new(Kind::GiftWrap, encrypt(&one_time, to, content))
            .tag(Tag::public_key(to.public_key()))
            .sign_with_keys(&one_time)
            .unwrap()
    }

    #[test]
    fn only_the_receiver_can_unwrap_a_message() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let request = EventId::all_zeros();
        let (id, wrap) = gift_wrap(&alice, &bob.public_key(), "hello", Some(request)).unwrap();
        let message = unwrap(&bob, &wrap).unwrap();
        assert_eq!(
            (message.id, message.sender, message.text.as_str(), message.answers),
            (id, alice.public_key(), "hello", Some(request))
        );
        assert!(wrap.pubkey != alice.public_key() && wrap.created_at <= Timestamp::now());
        assert!(matches!(unwrap(&Keys::generate(), &wrap), Err(UnwrapError::Undecryptable(_))));
        let long = gift_wrap(&alice, &bob.public_key(), &"x".repeat(100_000), None);
        assert!(matches!(long, Err(WrapError::TooLong(_))));
    }

    #[test]
    fn the_same_request_in_the_same_second_is_another_message() {
        let (alice, bob) = (Keys::generate(), Keys::generate().public_key());
        let id = || gift_wrap(&alice, &bob, "status", None).unwrap().0;
        assert_ne!(id(), id());
    }

    #[test]
    fn every_forgery_is_rejected() {
        let (mallory, alice, bob) = (Keys::generate(), Keys::generate(), Keys::generate());
        let good = rumor(&mallory);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut rumor = good.clone();
            change(&mut rumor);
            unwrap(&bob, &forge(&mallory, &bob, &rumor, Kind::Seal, vec![]))
        };
        assert!(with(&|_| ()).is_ok());
        assert_eq!(
            unwrap(&bob, &forge(&mallory, &bob, &rumor(&alice), Kind::Seal, vec![])),
            Err(UnwrapError::Impersonation)
        );
        assert_eq!(
            unwrap(&bob, &forge(&mallory, &bob, &good, Kind::TextNote, vec![])),
            Err(UnwrapError::NotASeal)
        );
        assert_eq!(
            unwrap(&bob, &forge(&mallory, &bob, &good, Kind::Seal, vec![Tag::hashtag("x")])),
            Err(UnwrapError::NotASeal)
        );
        assert_eq!(with(&|rumor| rumor["id"] = json!("0".repeat(64))), Err(UnwrapError::ForgedId));
        assert_eq!(with(&|rumor| rumor["content"] = json!("other")), Err(UnwrapError::ForgedId));
        let reaction =
            UnsignedEvent::new(mallory.public_key(), Timestamp::now(), Kind::Reaction, [], "+")
                .as_json();
        assert_eq!(
            unwrap(
                &bob,
                &forge(
                    &mallory,
                    &bob,
                    &serde_json::from_str(&reaction).unwrap(),
                    Kind::Seal,
                    vec![]
                )
            ),
            Err(UnwrapError::NotAMessage(7))
        );
        assert!(matches!(
            unwrap(&bob, &wrap_text(&bob, "not an event")),
            Err(UnwrapError::NotAnEvent(_))
        ));
    }

    #[test]
    fn a_message_that_disappears_is_read_until_then() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let (later, past) = (Timestamp::now().as_secs() + 60, Timestamp::now().as_secs() - 60);
        let expires = |at| Tag::expiration(Timestamp::from_secs(at));
        let sealed = |at| forge(&alice, &bob, &rumor(&alice), Kind::Seal, vec![expires(at)]);
        let wrapped = |at| {
            let seal = encrypt(&alice, &bob, &rumor(&alice).to_string());
            let seal = EventBuilder::new(Kind::Seal, seal).tag(expires(later));
            let (seal, one_time) = (seal.sign_with_keys(&alice).unwrap(), Keys::generate());
            let content = encrypt(&one_time, &bob, &seal.as_json());
            let wrap = EventBuilder::new(Kind::GiftWrap, content);
            wrap.tag(expires(at)).sign_with_keys(&one_time).unwrap()
        };
        assert_eq!(unwrap(&bob, &sealed(later)).unwrap().text, "hello");
        assert_eq!(unwrap(&bob, &wrapped(later)).unwrap().text, "hello");
        assert_eq!(unwrap(&bob, &sealed(past)), Err(UnwrapError::Expired));
        assert_eq!(unwrap(&bob, &wrapped(past)), Err(UnwrapError::Expired));
    }

    #[test]
    fn the_largest_request_is_read() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        for length in [1, 28_000, 40_682, 40_700, 47_000, paygress_core::limits::REQUEST_BYTES] {
            let text = "x".repeat(length);
            let (_, wrap) = gift_wrap(&alice, &bob.public_key(), &text, None).unwrap();
            assert_eq!(unwrap(&bob, &wrap).unwrap().text, text, "{length}");
        }
    }

    #[test]
    fn a_missing_rumor_id_is_computed() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let mut rumor = rumor(&alice);
        let id = rumor["id"].take();
        rumor.as_object_mut().unwrap().remove("id");
        let message = unwrap(&bob, &forge(&alice, &bob, &rumor, Kind::Seal, vec![])).unwrap();
        assert_eq!(json!(message.id.to_hex()), id);
    }

    #[test]
    fn forged_signatures_and_invalid_wraps_are_rejected() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let (_, wrap) = gift_wrap(&alice, &bob.public_key(), "hello", None).unwrap();
        let mut forged = wrap.clone();
        forged.tags = Tags::new();
        assert_eq!(unwrap(&bob, &forged), Err(UnwrapError::ForgedWrap));
        let seal_json = nip44::decrypt(bob.secret_key(), &wrap.pubkey, &wrap.content).unwrap();
        let mut seal: Value = serde_json::from_str(&seal_json).unwrap();
        seal["created_at"] = json!(1);
        assert_eq!(unwrap(&bob, &wrap_text(&bob, &seal.to_string())), Err(UnwrapError::ForgedSeal));
        let one_time = Keys::generate();
        let event = |kind, content: &str| {
            EventBuilder::new(kind, content).sign_with_keys(&one_time).unwrap()
        };
        assert_eq!(
            unwrap(&bob, &event(Kind::PrivateDirectMessage, "x")),
            Err(UnwrapError::NotAWrap(14))
        );
        assert_eq!(
            unwrap(&bob, &event(Kind::Custom(21_059), "x")),
            Err(UnwrapError::NotAWrap(21_059))
        );
        for content in ["", "#unknown", "AQ==", "A", "ä", &"A".repeat(80_000)] {
            assert!(
                matches!(
                    unwrap(&bob, &event(Kind::GiftWrap, content)),
                    Err(UnwrapError::Undecryptable(_))
                ),
                "{content:.9}"
            );
        }
        assert_eq!(
            unwrap(&bob, &event(Kind::GiftWrap, &"A".repeat(WRAP_BYTES + 1))),
            Err(UnwrapError::TooLong(WRAP_BYTES + 1))
        );
    }
}
