//! Callers. A customer is a Nostr key (NIP-98), or the bearer of the token that came with the pod.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Anonymous,
    Customer(Customer),
    Operator,
}

/// The key that bearer tokens are derived with, from the service's own: replicas share it, and it
/// reveals nothing about that one.
#[must_use]
pub fn bearer_key(service: &Secret) -> Secret {
    let mut hash = Sha256::new_with_prefix(b"paygress http bearer\0");
    hash.update(service.expose());
    Secret::new(hex::encode(hash.finalize()))
}

/// The bearer token of a customer who sends an `Idempotency-Key` and no other credential, derived
/// from it: always the same, so that a repeated order is the same customer's. It is not derived
/// from the Cashu token: others have seen its proofs, the mint at least.
pub(crate) fn derived_bearer(key: &Secret, idempotency_key: &str) -> Secret {
    let mut code = match Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) {
        Ok(code) => code,
        // HMAC takes keys of any length.
        Err(_) => return fresh_bearer(),
    };
    code.update(b"idempotency key\0");
    code.update(idempotency_key.as_bytes());
    Secret::new(format!("pg_{}", URL_SAFE_NO_PAD.encode(code.finalize().into_bytes())))
}

/// A random bearer token.
pub(crate) fn fresh_bearer() -> Secret {
    let mut bytes = [0_u8; 32];
    // The kernel's generator does not fail once it is seeded; without it no token is safe: wait for
    // it.
    while getrandom::fill(&mut bytes).is_err() {}
    Secret::new(format!("pg_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The scheme of an `Authorization` in lower case, and what follows it.
pub(crate) fn scheme_and_rest(header: &str) -> (String, &str) {
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    (scheme.to_ascii_lowercase(), rest.trim())
}

/// Whether two secrets are equal, in constant time.
pub(crate) fn same(a: &Secret, b: &str) -> bool {
    // Hashes have the same length.
    let (a, b) = (Sha256::digest(a.expose()), Sha256::digest(b));
    a.as_slice().ct_eq(b.as_slice()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_bearer_depends_on_the_idempotency_key_and_our_key() {
        let (key, other) = (bearer_key(&Secret::new("a")), bearer_key(&Secret::new("b")));
        let chosen = "0123456789abcdef";
        let bearer = derived_bearer(&key, chosen);
        assert_eq!(bearer, derived_bearer(&key, chosen));
        assert_ne!(bearer, derived_bearer(&other, chosen));
        assert_ne!(bearer, derived_bearer(&key, "0123456789abcdeg"));
        assert!(crate::limits::BEARER_CHARS.contains(&bearer.expose().len()));
        assert!(matches!(Customer::of_bearer(&bearer), Customer::Bearer(_)));
        assert!(same(&bearer, bearer.expose()) && !same(&bearer, "") && !same(&bearer, chosen));
    }
}
