//! HTTP requests that are signed with a Nostr key (NIP-98).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nostr_sdk::hashes::{Hash, sha256};
use nostr_sdk::{Event, JsonUtil, Kind};
use paygress_core::backend::http_auth::{Nip98Verifier, SignedRequest};
use paygress_core::model::units::Customer;

/// A signature's age, and how far a clock may be ahead (NIP-98 suggests a minute).
const AGE_SECONDS: u64 = 60;
/// An event with a URL, a method and a hash has a few hundred bytes.
const EVIDENCE_BYTES: usize = 8_192;

/// Reads NIP-98 signatures.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpAuth;

impl Nip98Verifier for HttpAuth {
    fn signer(&self, evidence: &str, request: &SignedRequest<'_>) -> Result<Customer, String> {
        if evidence.len() > EVIDENCE_BYTES {
            return Err(format!("it is longer than {EVIDENCE_BYTES} bytes"));
        }
        let json = STANDARD.decode(evidence.trim()).map_err(|_| "it is not base64")?;
        let event = Event::from_json(json).map_err(|_| "it is not a Nostr event")?;
        if event.kind != Kind::HttpAuth {
            return Err(format!("its kind is {}, not 27235", event.kind));
        }
        event.verify().map_err(|_| "its id or signature is wrong")?;
        if event.created_at.as_secs().abs_diff(request.now.0) > AGE_SECONDS {
            return Err(format!(
                "it was not made within the last {AGE_SECONDS} s; sign each request anew, and set your clock"
            ));
        }
        let tag = |name: &str| {
            let mut values = event
                .tags
                .iter()
                .map(|tag| tag.as_slice())
                .filter(|tag| tag.first().is_some_and(|first| first == name));
            match (values.next(), values.next()) {
                (Some(tag), None) => tag.get(1).cloned(),
                _ => None,
            }
        };
        if tag("u").as_deref() != Some(request.url) {
            return Err(format!("its tag u must be {}", request.url));
        }
        if !tag("method").is_some_and(|method| method.eq_ignore_ascii_case(request.method)) {
            return Err(format!("its tag method must be {}", request.method));
        }
        let hash = sha256::Hash::hash(request.body).to_string();
        match tag("payload") {
            Some(payload) if payload == hash => {}
            None if request.body.is_empty() => {}
            _ => return Err("its tag payload must be the SHA-256 of the body, in hex".to_owned()),
        }
        Ok(Customer(event.pubkey.to_hex()))
    }
}

/// Signs a request: what stands after `Nostr` in its `Authorization` header.
///
/// # Errors
/// When the key cannot sign.
pub fn sign(
    keys: &crate::Keys,
    method: &str,
    url: &str,
    body: &[u8],
) -> Result<String, crate::Error> {
    let tag = |name: &'static str, value: &str| {
        nostr_sdk::Tag::custom(nostr_sdk::TagKind::custom(name), [value.to_owned()])
    };
    let payload = sha256::Hash::hash(body).to_string();
    let tags = [tag("u", url), tag("method", method), tag("payload", &payload)];
    let event = nostr_sdk::EventBuilder::new(Kind::HttpAuth, "").tags(tags).sign_with_keys(keys);
    Ok(STANDARD.encode(event.map_err(crate::connection::client_error)?.as_json()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keys;
    use paygress_core::model::units::UnixTime;

    #[test]
    fn a_signature_is_good_for_one_request_for_a_minute() {
        let keys = Keys::generate();
        let now = UnixTime::now();
        let evidence = sign(&keys, "POST", "https://a.example/top-up-pod?x=1", b"{}").unwrap();
        let good = SignedRequest {
            method: "POST",
            url: "https://a.example/top-up-pod?x=1",
            body: b"{}",
            now,
        };
        assert_eq!(HttpAuth.signer(&evidence, &good), Ok(Customer(keys.public_key().to_hex())));
        for (bad, why) in [
            (SignedRequest { method: "GET", ..good }, "method"),
            (SignedRequest { url: "https://b.example/top-up-pod?x=1", ..good }, "tag u"),
            (SignedRequest { url: "https://a.example/top-up-pod", ..good }, "tag u"),
            (SignedRequest { body: b"{ }", ..good }, "payload"),
            (SignedRequest { now: UnixTime(now.0 + 70), ..good }, "within"),
            (SignedRequest { now: UnixTime(now.0 - 70), ..good }, "within"),
        ] {
            assert!(HttpAuth.signer(&evidence, &bad).unwrap_err().contains(why), "{why}");
        }
        let mut forged = Event::from_json(STANDARD.decode(&evidence).unwrap()).unwrap();
        forged.pubkey = Keys::generate().public_key();
        assert!(HttpAuth.signer(&STANDARD.encode(forged.as_json()), &good).is_err());
        for garbage in ["", "x", "e30=", &"A".repeat(9_000)] {
            assert!(HttpAuth.signer(garbage, &good).is_err());
        }
    }
}
