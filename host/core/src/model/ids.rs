//! Ids and names as types: parsed where they come in, never bare text between crates.

pub use crate::model::hex_digest::HexDigest;
pub use crate::model::image_ref::ImageRef;
pub use crate::model::invalid_name::InvalidName;
pub use crate::model::mint_url::MintUrl;
pub use crate::model::tier_id::TierId;
pub use crate::model::username::{InvalidUsername, Username};

use crate::limits;
use crate::model::checked_text::{checked_text, display_text, is_hex, is_plain_within};
use crate::model::secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        checked_text!($name, $what, $rule, $is_valid);
        display_text!($name);

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }
    };
}

name!(
    /// The id of an order.
    OrderId, "the id of an order", "16 lower-case hex digits", |text| is_hex(text, 16)
);
name!(
    /// The id of a lease, or of a probe pod: see [`LeaseId::of_probe`].
    LeaseId, "the id of a lease", "10 characters of a-z and 2-7",
    |text| {
        let symbols = text.strip_prefix(PROBE).unwrap_or(text);
        text.len() == 10 && symbols.bytes().all(|c| LEASE_ALPHABET.contains(&c))
    }
);
name!(
    /// The name of a pod, as customers and Kubernetes see it. A lease's is `ssh-pod-<lease>`;
    /// customers may name others, which there are not.
    PodName, "the name of a pod", "1 to 128 bytes without control characters",
    |text| is_plain_within(text, limits::POD_NAME_BYTES)
);
name!(
    /// Which pod it is, of those that run for a lease one after another, as the cluster names it: no
    /// two have the same.
    PodUid, "the uid of a pod", "1 to 64 bytes without control characters",
    |text| is_plain_within(text, limits::POD_UID_BYTES)
);
name!(
    /// The id of a message to the service, as its transport forms it: the same id is the same
    /// message.
    MessageId, "the id of a message", "1 to 256 bytes",
    |text| (1..=limits::MESSAGE_ID_BYTES).contains(&text.len())
);
name!(
    /// The public image of a proof's secret (NUT-00).
    ProofY, "the Y of a proof", "66 lower-case hex digits", |text| is_hex(text, 66)
);
name!(
    /// A public key that tokens are locked to (P2PK, NUT-11).
    P2pkPubkey, "a public key to lock tokens to", "66 lower-case hex digits",
    |text| is_hex(text, 66)
);
name!(
    /// A Nostr public key (NIP-01).
    PublicKey, "a Nostr public key", "64 lower-case hex digits", |text| is_hex(text, 64)
);
name!(
    /// The SHA-256 of an HTTP customer's bearer token.
    BearerHash, "the hash of a bearer token", "64 lower-case hex digits", |text| is_hex(text, 64)
);

impl PublicKey {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }
}

impl P2pkPubkey {
    /// The key in its compressed form.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 33]) -> Self {
        Self(hex::encode(bytes))
    }
}

impl MessageId {
    /// The id of a message that is known by its hash.
    #[must_use]
    pub fn from_hash(hash: [u8; 32]) -> Self {
        Self(hex::encode(hash))
    }
}

/// Who buys: whoever holds this key, or this bearer token. The text is the key, or `bearer:` and
/// the hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Customer {
    Nostr(PublicKey),
    Bearer(BearerHash),
}

/// What stands before the hash of a bearer token.
const BEARER: &str = "bearer:";

impl Customer {
    /// # Errors
    /// [`InvalidName`]: the text is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        match text.strip_prefix(BEARER) {
            Some(hash) => BearerHash::parse(hash).map(Self::Bearer),
            None => PublicKey::parse(text).map(Self::Nostr),
        }
    }

    /// The customer who holds this bearer token.
    #[must_use]
    pub fn of_bearer(token: &Secret) -> Self {
        Self::Bearer(BearerHash(hex::encode(Sha256::digest(token.expose()))))
    }
}

impl fmt::Display for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nostr(key) => write!(f, "{key}"),
            Self::Bearer(hash) => write!(f, "{BEARER}{hash}"),
        }
    }
}

impl TryFrom<String> for Customer {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<Customer> for String {
    fn from(customer: Customer) -> Self {
        customer.to_string()
    }
}

/// Stores a customer who is not known as the empty text, as version 0.1.0 did.
pub(crate) mod known_customer {
    use super::Customer;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        customer: &Option<Customer>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match customer {
            None => serializer.serialize_str(""),
            Some(customer) => serializer.collect_str(customer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Customer>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.is_empty() {
            true => Ok(None),
            false => Customer::parse(&text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

impl OrderId {
    /// A new one, never used before.
    #[must_use]
    pub fn random() -> Self {
        Self(random_name(16, b"0123456789abcdef"))
    }
}

impl PodName {
    /// The lease of this pod; none if the name is not one of ours.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        LeaseId::parse(self.0.strip_prefix(POD_PREFIX)?).ok()
    }
}

/// What stands before the id of a lease in its pod's name.
const POD_PREFIX: &str = "ssh-pod-";

const LEASE_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What the id of a probe pod begins with. No order's lease has it.
const PROBE: char = '0';

impl LeaseId {
    /// A new one, of a pod that is no order's.
    #[must_use]
    pub fn of_probe() -> Self {
        Self(format!("{PROBE}{}", random_name(9, LEASE_ALPHABET)))
    }

    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.0.starts_with(PROBE)
    }

    /// The lease that an order makes. It is derived, so that a resumed order finds the port that it
    /// had reserved. A pod's name is public: its 50 bits reveal nothing of the order's id.
    #[must_use]
    pub fn of(order: &OrderId) -> Self {
        let digest = Sha256::digest(format!("lease of order {order}"));
        let symbol =
            |byte: &u8| LEASE_ALPHABET.get(usize::from(byte & 31)).copied().map_or('a', char::from);
        Self(digest.iter().take(10).map(symbol).collect())
    }

    #[must_use]
    pub fn pod_name(&self) -> PodName {
        PodName(format!("{POD_PREFIX}{}", self.0))
    }
}

/// `length` characters drawn evenly from an alphabet of at most 256, by the operating system's
/// generator.
pub(crate) fn random_name(length: usize, alphabet: &[u8]) -> String {
    let mut name = String::with_capacity(length);
    // Bytes past the last whole multiple of the alphabet's size would favour its first characters.
    let fair =
        256_usize.checked_rem(alphabet.len()).map_or(0, |rest| 256_usize.saturating_sub(rest));
    while name.len() < length {
        let mut byte = [0_u8];
        // The kernel's generator does not fail once it is seeded; without it no name is safe, so
        // wait for it.
        if getrandom::fill(&mut byte).is_err() {
            continue;
        }
        let index = usize::from(byte[0]);
        if let Some(symbol) = (index < fair)
            .then(|| index.checked_rem(alphabet.len()))
            .flatten()
            .and_then(|i| alphabet.get(i))
        {
            name.push(char::from(*symbol));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_their_alphabet_and_differ() {
        let (one, other) = (OrderId::random(), OrderId::random());
        assert_ne!(one, other);
        let (a, b) = (LeaseId::of(&one), LeaseId::of(&other));
        assert!(a != b && a == LeaseId::of(&one));
        assert!(
            a.0.len() == 10 && a.0.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        );
        assert_eq!(LeaseId::parse(a.as_str()), Ok(a.clone()));
        assert_eq!(a.pod_name().lease(), Some(a.clone()));
        assert_eq!(a.pod_name().0.len(), "ssh-pod-".len() + 10);
    }

    #[test]
    fn no_order_has_the_lease_of_a_probe() {
        let (one, other) = (LeaseId::of_probe(), LeaseId::of_probe());
        assert!(one != other && one.is_probe() && other.is_probe());
        assert_eq!(one.pod_name().lease(), Some(one.clone()));
        assert!((0..1_000).all(|_| !LeaseId::of(&OrderId::random()).is_probe()));
    }

    #[test]
    fn names_are_checked() {
        let long = "x".repeat(129);
        for (accepted, text, is_valid) in [
            (OrderId::parse("0123456789abcdef").is_ok(), "order", true),
            (OrderId::parse("0123456789ABCDEF").is_ok(), "order in capitals", false),
            (OrderId::parse("").is_ok(), "no order", false),
            (LeaseId::parse("abcdefg234").is_ok(), "lease", true),
            (LeaseId::parse("abcdefg189").is_ok(), "lease with other digits", false),
            (LeaseId::parse("0bcdefg234").is_ok(), "probe", true),
            (LeaseId::parse("00cdefg234").is_ok(), "probe with another 0", false),
            (PodName::parse("any pod").is_ok(), "pod", true),
            (PodName::parse("").is_ok(), "no pod", false),
            (PodName::parse("a\u{7}b").is_ok(), "pod with a control character", false),
            (PodName::parse(long).is_ok(), "long pod", false),
            (PodUid::parse("8f0c6a52-1b7e-4b0e-9d53-1c2f6f0f3a11").is_ok(), "uid", true),
            (PodUid::parse("").is_ok(), "no uid", false),
            (PodUid::parse("u".repeat(65)).is_ok(), "long uid", false),
            (MessageId::parse("m").is_ok(), "message", true),
            (MessageId::parse("").is_ok(), "no message", false),
            (MessageId::parse("m".repeat(257)).is_ok(), "long message", false),
            (ProofY::parse("02".repeat(33)).is_ok(), "Y", true),
            (ProofY::parse("02").is_ok(), "short Y", false),
            (P2pkPubkey::parse("02".repeat(33)).is_ok(), "P2PK key", true),
            (P2pkPubkey::parse("02".repeat(32)).is_ok(), "P2PK key without its sign", false),
        ] {
            assert_eq!(accepted, is_valid, "{text}");
        }
        assert_eq!(PodName::parse("ssh-pod-other").map(|pod| pod.lease()), Ok(None));
    }

    #[test]
    fn a_customer_is_a_key_or_the_hash_of_a_bearer_token() {
        let bearer = Customer::of_bearer(&Secret::new("x"));
        let key = "c".repeat(64);
        assert!(bearer.to_string().starts_with("bearer:2d711642b726b044"));
        assert_eq!(Customer::parse(&bearer.to_string()), Ok(bearer));
        assert_eq!(Customer::parse(&key).map(|customer| customer.to_string()), Ok(key));
        for text in ["", "bearer:", "npub1xyz", "bearer:xyz"] {
            assert!(Customer::parse(text).is_err(), "{text}");
        }
    }
}
