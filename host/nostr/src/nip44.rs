//! Encrypted payloads (NIP-44, version 2), those of 64 KiB and more included: their length takes 6
//! bytes, which the library can neither write nor read.
//!
//! ```text
//! base64( 2 | nonce (32) | ChaCha20( length | plaintext | zeros ) | HMAC-SHA256 (32) )
//! ```

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, Mac};
use nostr_sdk::nips::nip44::v2::ConversationKey;
use nostr_sdk::util::hkdf;
use nostr_sdk::{PublicKey, SecretKey};
use sha2::Sha256;

const VERSION: u8 = 2;
const NONCE_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
const CIPHER_KEY_BYTES: usize = 32;
const CIPHER_NONCE_BYTES: usize = 12;
/// The keys of one message: the cipher's, its nonce, and the MAC's.
const MESSAGE_KEYS_BYTES: usize = 76;
/// Plaintexts of this length and more have the extended prefix: two bytes of zero, four of length.
const EXTENDED_BYTES: usize = 65_536;

/// Why something cannot be encrypted or decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the keys cannot be combined")]
    Keys,
    #[error("there is no randomness")]
    Random,
    #[error("the plaintext is empty, or longer than NIP-44 allows")]
    Length,
    #[error("the payload is not base64")]
    NotBase64,
    #[error("version {0} of NIP-44 is not supported")]
    Version(u8),
    #[error("the payload is too short")]
    TooShort,
    #[error("the payload is for another key, or damaged")]
    Mac,
    #[error("the padding is wrong")]
    Padding,
    #[error("the plaintext is not UTF-8")]
    NotUtf8,
}

struct MessageKeys {
    cipher: ChaCha20,
    mac: Hmac<Sha256>,
}

impl MessageKeys {
    fn derive(secret: &SecretKey, public: &PublicKey, nonce: &[u8]) -> Result<Self, Error> {
        let conversation = ConversationKey::derive(secret, public).map_err(|_| Error::Keys)?;
        let keys = hkdf::expand(conversation.as_bytes(), nonce, MESSAGE_KEYS_BYTES);
        let (key, rest) = keys.split_at_checked(CIPHER_KEY_BYTES).ok_or(Error::Keys)?;
        let (iv, auth) = rest.split_at_checked(CIPHER_NONCE_BYTES).ok_or(Error::Keys)?;
        Ok(Self {
            cipher: ChaCha20::new_from_slices(key, iv).map_err(|_| Error::Keys)?,
            mac: Hmac::new_from_slice(auth).map_err(|_| Error::Keys)?,
        })
    }
}

/// The base64 of the encrypted text.
pub(crate) fn encrypt(secret: &SecretKey, to: &PublicKey, text: &str) -> Result<String, Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
    encrypt_with(secret, to, text, &nonce)
}

fn encrypt_with(
    secret: &SecretKey,
    to: &PublicKey,
    text: &str,
    nonce: &[u8; NONCE_BYTES],
) -> Result<String, Error> {
    let mut keys = MessageKeys::derive(secret, to, nonce)?;
    let mut ciphertext = pad(text.as_bytes())?;
    keys.cipher.apply_keystream(&mut ciphertext);
    keys.mac.update(nonce);
    keys.mac.update(&ciphertext);
    let mac = keys.mac.finalize().into_bytes();
    let payload = [&[VERSION], nonce.as_slice(), &ciphertext, &mac].concat();
    Ok(BASE64_STANDARD.encode(payload))
}

/// The text of a payload. Its size is the caller's to check: it takes a few times as much memory.
pub(crate) fn decrypt(
    secret: &SecretKey,
    from: &PublicKey,
    payload: &str,
) -> Result<String, Error> {
    let payload = BASE64_STANDARD.decode(payload).map_err(|_| Error::NotBase64)?;
    let (version, rest) = payload.split_first().ok_or(Error::TooShort)?;
    if *version != VERSION {
        return Err(Error::Version(*version));
    }
    let (nonce, rest) = rest.split_at_checked(NONCE_BYTES).ok_or(Error::TooShort)?;
    let ciphertext_bytes = rest.len().checked_sub(MAC_BYTES).ok_or(Error::TooShort)?;
    let (ciphertext, mac) = rest.split_at_checked(ciphertext_bytes).ok_or(Error::TooShort)?;
    let mut keys = MessageKeys::derive(secret, from, nonce)?;
    keys.mac.update(nonce);
    keys.mac.update(ciphertext);
    keys.mac.verify_slice(mac).map_err(|_| Error::Mac)?;
    let mut padded = ciphertext.to_vec();
    keys.cipher.apply_keystream(&mut padded);
    let text = unpad(&padded).ok_or(Error::Padding)?;
    String::from_utf8(text.to_vec()).map_err(|_| Error::NotUtf8)
}

fn pad(text: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(text.len()).map_err(|_| Error::Length)?;
    let padded = padded_len(text.len()).ok_or(Error::Length)?;
    let mut bytes = match u16::try_from(length) {
        Ok(short) => short.to_be_bytes().to_vec(),
        Err(_) => [[0; 2].as_slice(), &length.to_be_bytes()].concat(),
    };
    let end = bytes.len().checked_add(padded).ok_or(Error::Length)?;
    bytes.extend_from_slice(text);
    bytes.resize(end, 0);
    Ok(bytes)
}

fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let (short, rest) = padded.split_first_chunk()?;
    let (length, rest) = match u16::from_be_bytes(*short) {
        0 => {
            let (long, rest) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*long)).ok()?;
            (Some(length).filter(|length| *length >= EXTENDED_BYTES)?, rest)
        }
        short => (usize::from(short), rest),
    };
    (rest.len() == padded_len(length)?).then(|| rest.get(..length))?
}

/// Hides the exact length: multiples of 32 bytes, of an eighth of the next power of two from 256
/// bytes on. `None` for an empty text.
fn padded_len(length: usize) -> Option<usize> {
    let chunk = length.checked_next_power_of_two()?.checked_div(8)?.max(32);
    length.checked_next_multiple_of(chunk).filter(|padded| *padded > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nostr_sdk::Keys;
    use nostr_sdk::nips::nip44;
    use sha2::Digest;

    fn keys(last: u8) -> Keys {
        let mut bytes = [0; 32];
        bytes[31] = last;
        Keys::new(SecretKey::from_slice(&bytes).unwrap())
    }

    #[test]
    fn payloads_are_those_of_another_implementation() {
        // By nostr-tools 2.25.2: so many x from key 1 to key 2, with the nonce 1.
        let (alice, bob) = (keys(1), keys(2));
        let mut nonce = [0; NONCE_BYTES];
        nonce[31] = 1;
        for (length, bytes, sha256) in [
            (1, 132, "0e8a6ce106ce2490b23c860062ede9477a59d36163a546809cebe37adb6abd7c"),
            (33, 176, "736ac631471b9570851251ccf76dd974fffbe31eda273f3e129dd4fea2aefa69"),
            (257, 516, "48a1c608dcccefec1de602570d6bc8ff6a1ff4ba9f634dd06077b69ece10b910"),
            (65_535, 87_472, "60736d74b0fd0c7cb5fb1119dccdb511cb05ce18a7fcc52314c626f602a1561b"),
            (65_536, 87_476, "2dd6ed6c377b7a88167ce2857937d88737c2eb5aef1fc6ae40a9e91f1e66a710"),
            (65_537, 109_324, "bef85b66045dea3a5ab5d0706cd3587b149ec87ea278a92ad497b54d95d17f80"),
            (100_000, 153_012, "2f386714e403cf78c4f71ed278df9a9033d6edc2bfbe4d1ea6b46011db64b18a"),
        ] {
            let text = "x".repeat(length);
            let payload =
                encrypt_with(alice.secret_key(), &bob.public_key(), &text, &nonce).unwrap();
            let hash: String =
                Sha256::digest(&payload).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((payload.len(), hash.as_str()), (bytes, sha256), "{length}");
            let read = decrypt(bob.secret_key(), &alice.public_key(), &payload);
            assert_eq!(read.unwrap(), text, "{length}");
        }
    }

    #[test]
    fn the_library_reads_what_is_written_and_the_other_way_round() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        for length in [1, 32, 33, 256, 257, 5_000, 65_408] {
            let text = "y".repeat(length);
            let ours = encrypt(alice.secret_key(), &bob.public_key(), &text).unwrap();
            let read = nip44::decrypt(bob.secret_key(), &alice.public_key(), ours);
            assert_eq!(read.unwrap(), text);
            let (secret, version) = (alice.secret_key(), nip44::Version::V2);
            let theirs = nip44::encrypt(secret, &bob.public_key(), &text, version).unwrap();
            let read = decrypt(bob.secret_key(), &alice.public_key(), &theirs);
            assert_eq!(read.unwrap(), text);
        }
    }

    #[test]
    fn what_is_damaged_or_for_another_key_is_not_read() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let read =
            |keys: &Keys, payload: &str| decrypt(keys.secret_key(), &alice.public_key(), payload);
        let payload = encrypt(alice.secret_key(), &bob.public_key(), "hello").unwrap();
        assert_eq!(read(&Keys::generate(), &payload), Err(Error::Mac));
        let mut bytes = BASE64_STANDARD.decode(&payload).unwrap();
        for at in [1, 40, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert_eq!(read(&bob, &BASE64_STANDARD.encode(&bytes)), Err(Error::Mac), "{at}");
            bytes[at] ^= 1;
        }
        assert_eq!(read(&bob, ""), Err(Error::TooShort));
        assert_eq!(read(&bob, "#future"), Err(Error::NotBase64));
        assert_eq!(read(&bob, "AQAA"), Err(Error::Version(1)));
        assert_eq!(read(&bob, &BASE64_STANDARD.encode([2; 64])), Err(Error::TooShort));
        assert_eq!(
            encrypt(alice.secret_key(), &bob.public_key(), ""),
            Err(Error::Length),
            "nothing is not a message"
        );
    }

    #[test]
    fn a_length_has_one_form() {
        let padded = |prefix: &[u8], bytes: usize| [prefix, &vec![b'x'; bytes]].concat();
        assert_eq!(unpad(&padded(&[0, 5], 32)), Some(b"xxxxx".as_slice()));
        for wrong in [
            padded(&[0, 5], 31),
            padded(&[0, 5], 64),
            padded(&[0, 0, 0, 0, 0, 5], 32),
            padded(&[0, 0, 0, 0, 0, 0], 32),
            padded(&[0, 0, 0xff, 0xff, 0xff, 0xff], 32),
            padded(&[0, 0, 0, 1, 0, 0], 65_535),
            padded(&[0, 0], 0),
            padded(&[0], 0),
        ] {
            assert_eq!(unpad(&wrong), None);
        }
        assert_eq!(unpad(&padded(&[0, 0, 0, 1, 0, 0], 65_536)).map(<[u8]>::len), Some(65_536));
    }
}
