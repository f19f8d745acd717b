//! Nostr public keys as people write them (NIP-19).

use crate::model::ids::PublicKey;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};

const PREFIX: Hrp = Hrp::parse_unchecked("npub");

impl PublicKey {
    /// `npub1…`.
    #[must_use]
    pub fn npub(&self) -> String {
        let mut key = [0; 32];
        // 64 hex digits, and never too long.
        let encoded = hex::decode_to_slice(self.as_str(), &mut key)
            .ok()
            .and_then(|()| bech32::encode::<Bech32>(PREFIX, &key).ok());
        encoded.unwrap_or_else(|| self.to_string())
    }

    /// The key of an `npub1…`; none if the text is none.
    #[must_use]
    pub fn from_npub(text: &str) -> Option<Self> {
        let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
        let mut key = [0; 32];
        let mut bytes = checked.byte_iter();
        for byte in &mut key {
            *byte = bytes.next()?;
        }
        (checked.hrp() == PREFIX && bytes.next().is_none()).then(|| Self::from_bytes(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_nip_19_has_it() {
        let key = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
        let npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
        let key = PublicKey::parse(key).unwrap();
        assert_eq!(key.npub(), npub);
        assert_eq!(PublicKey::from_npub(npub), Some(key));
        for other in [
            "",
            "npub1",
            "ssh-pod-abcdefghij",
            // A character of it is another one.
            "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptq",
            // Of a secret key, and of a relay.
            "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",
            "nrelay1qqzqwumn8ghj7argv43kjarpv3jkctnxdaehg6tnwdhk6lm5",
        ] {
            assert_eq!(PublicKey::from_npub(other), None, "{other}");
        }
    }
}
