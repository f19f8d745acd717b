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

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    fn verify(key: &str, digest: &str, [r, s]: [&str; 2]) -> bool {
        let signature: [u8; 64] = [bytes(r), bytes(s)].concat().try_into().unwrap();
        let key = PublicKey::from_hex(key).unwrap();
        key.has_signed(&bytes(digest), &signature)
    }

    /// The test vectors of BIP-340 with a message of 32 bytes.
    #[test]
    fn the_good_signatures_of_the_specification_are_good() {
        for (key, digest, signature) in [
            (
                "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
                "0000000000000000000000000000000000000000000000000000000000000000",
                [
                    "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215",
                    "25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0",
                ],
            ),
            (
                "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
                "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
                [
                    "6896bd60eeae296db48a229ff71dfe071bde413e6d43f917dc8dcf8c78de3341",
                    "8906d11ac976abccb20b091292bff4ea897efcb639ea871cfa95f6de339e4b0a",
                ],
            ),
            (
                "dd308afec5777e13121fa72b9cc1b7cc0139715309b086c960e18fd969774eb8",
                "7e2d58d8b3bcdf1abadec7829054f90dda9805aab56c77333024b9d0a508b75c",
                [
                    "5831aaeed7b44bb74e5eab94ba9d4294c49bcf2a60728d8b4c200f50dd313c1b",
                    "ab745879a5ad954a72c45a91c3a51d3c7adea98d82f8481e0e1e03674a6f3fb7",
                ],
            ),
            (
                "25d1dff95105f5253c4022f628a996ad3a0d95fbf21d468a1b33f8c160d8f517",
                "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
                [
                    "7eb0509757e246f19449885651611cb965ecc1a187dd51b64fda1edc9637d5ec",
                    "97582b9cb13db3933705b32ba982af5af25fd78881ebb32771fc5922efc66ea3",
                ],
            ),
            (
                "d69c3509bb99e412e68b0fe8544e72837dfa30746d8be2aa65975f29d22dc7b9",
                "4df3c3f68fcc83b27e9d42c90431a72499f17875c81a599b566c9889b9696703",
                [
                    "00000000000000000000003b78ce563f89a0ed9414f5aa28ad0d96d6795f9c63",
                    "76afb1548af603b3eb45c9f8207dee1060cb71c04e80f593060b07d28308d7f4",
                ],
            ),
        ] {
            assert!(verify(key, digest, signature), "{signature:?}");
        }
    }

    #[test]
    fn the_bad_ones_are_not() {
        let key = "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659";
        let digest = "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89";
        for (fault, signature) in [
            (
                "R has an odd y",
                [
                    "fff97bd5755eeea420453a14355235d382f6472f8568a18b2f057a1460297556",
                    "3cc27944640ac607cd107ae10923d9ef7a73c643e166be5ebeafa34b1ac553e2",
                ],
            ),
            (
                "of the negated digest",
                [
                    "1fa62e331edbc21c394792d2ab1100a7b432b013df3f6ff4f99fcb33e0e1515f",
                    "28890b3edb6e7189b630448b515ce4f8622a954cfe545735aaea5134fccdb2bd",
                ],
            ),
            (
                "s is negated",
                [
                    "6cff5c3ba86c69ea4b7376f31a9bcb4f74c1976089b2d9963da2e5543e177769",
                    "961764b3aa9b2ffcb6ef947b6887a226e8d7c93e00c5ed0c1834ff0d0c2e6da6",
                ],
            ),
            (
                "R is infinite, r is 0",
                [
                    "0000000000000000000000000000000000000000000000000000000000000000",
                    "123dda8328af9c23a94c1feecfd123ba4fb73476f0d594dcb65c6425bd186051",
                ],
            ),
            (
                "R is infinite, r is 1",
                [
                    "0000000000000000000000000000000000000000000000000000000000000001",
                    "7615fbaf5ae28864013c099742deadb4dba87f11ac6754f93780d5a1837cf197",
                ],
            ),
            (
                "r is no x of a point",
                [
                    "4a298dacae57395a15d0795ddbfd1dcb564da82b0f269bc70a74f8220429ba1d",
                    "69e89b4c5564d00349106b8497785dd7d1d713a8ae82b32fa79d5f7fc407d39b",
                ],
            ),
            (
                "r is p",
                [
                    "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f",
                    "69e89b4c5564d00349106b8497785dd7d1d713a8ae82b32fa79d5f7fc407d39b",
                ],
            ),
            (
                "s is the order",
                [
                    "6cff5c3ba86c69ea4b7376f31a9bcb4f74c1976089b2d9963da2e5543e177769",
                    "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
                ],
            ),
        ] {
            assert!(!verify(key, digest, signature), "{fault}");
        }
    }

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
