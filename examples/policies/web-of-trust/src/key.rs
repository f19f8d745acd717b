//! Public keys in the settings.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use paygress_policy_sdk::{Problems, is_hex_of_32_bytes};
use schemars::JsonSchema;
use serde::Deserialize;

const PREFIX: Hrp = Hrp::parse_unchecked("npub");
const NO_KEY: &str = "must be a public key: npub1… or 64 hex digits";

pub(crate) type PublicKey = [u8; 32];

// A key as it is written; `None`: it is none. Without a doc comment: it would be part of the schema.
#[derive(Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String")]
pub(crate) struct Key(Option<PublicKey>);

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(parse(&text))
    }
}

impl Key {
    pub(crate) fn bytes(&self) -> Option<PublicKey> {
        self.0
    }
}

/// Reads an npub (NIP-19), or hex.
pub(crate) fn parse(text: &str) -> Option<PublicKey> {
    let mut key = [0; 32];
    if text.starts_with("npub1") {
        let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
        let mut bytes = checked.byte_iter();
        for byte in &mut key {
            *byte = bytes.next()?;
        }
        return (checked.hrp() == PREFIX && bytes.next().is_none()).then_some(key);
    }
    // Upper-case digits are accepted too.
    if !is_hex_of_32_bytes(&text.to_ascii_lowercase()) {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

/// Reports a setting that is no key.
pub(crate) fn check(key: Option<&Key>, setting: &[&str], problems: &mut Problems) {
    if key.is_some_and(|key| key.0.is_none()) {
        problems.add(setting, NO_KEY);
    }
}

/// Reports the entries of a setting that are no keys.
pub(crate) fn check_list(keys: &[Key], setting: &[&str], problems: &mut Problems) {
    for (index, key) in keys.iter().enumerate() {
        check(Some(key), &[setting, &[index.to_string().as_str()]].concat(), problems);
    }
}
