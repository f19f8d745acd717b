//! Signatures of BIP-340, which Nostr has too: on the curve secp256k1.

use k256::schnorr::{Signature, VerifyingKey};
use paygress_policy_sdk::is_hex_of_32_bytes;
use sha2::{Digest, Sha256};

/// A public key, as Nostr has them.
pub(crate) struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads 64 lower-case hex digits. `None`: there is no such key.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let bytes = is_hex_of_32_bytes(text).then(|| hex::decode(text).ok())??;
        VerifyingKey::from_slice(&bytes).ok().map(Self)
    }

    /// Whether the signature is this key's, of this digest.
    pub(crate) fn has_signed(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        Signature::from_bytes(signature)
            .is_ok_and(|signature| self.0.verify_raw(digest, &signature).is_ok())
    }
}

/// SHA-256 for one purpose, which the tag names.
pub(crate) fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag: [u8; 32] = Sha256::digest(tag).into();
    let hash = Sha256::new().chain_update(tag).chain_update(tag);
    parts.iter().fold(hash, |hash, part| hash.chain_update(part)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secp256k1::{Keypair, Message, Secp256k1};

    #[test]
    fn a_key_is_the_x_of_a_point_in_lower_case_hex() {
        let good = "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659";
        assert!(PublicKey::from_hex(good).is_some());
        for bad in [
            // No point has it, and more than p.
            "eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34",
            "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30",
            &good.to_ascii_uppercase(),
            &good[1..],
            "",
            "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6",
        ] {
            assert!(PublicKey::from_hex(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_libsecp256k1_signs_is_good_and_no_bit_of_it_may_differ() {
        let secp = Secp256k1::new();
        for seed in 1..=16_u8 {
            let pair = Keypair::from_seckey_slice(&secp, &[seed; 32]).unwrap();
            let key = PublicKey::from_hex(&pair.x_only_public_key().0.to_string()).unwrap();
            let digest = tagged_hash("test", &[&[seed]]);
            let message = Message::from_digest(digest);
            let signature = secp.sign_schnorr_no_aux_rand(&message, &pair).serialize();
            assert!(key.has_signed(&digest, &signature), "{seed}");
            for byte in [0, 31, 32, 63] {
                let mut forged = signature;
                forged[byte] ^= 1_u8 << (seed % 8);
                assert!(!key.has_signed(&digest, &forged), "{seed}: byte {byte}");
            }
            assert!(!key.has_signed(&tagged_hash("other", &[&[seed]]), &signature), "{seed}");
        }
    }
}
