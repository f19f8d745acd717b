//! HTTP requests that are signed with a Nostr key (NIP-98).

use crate::error::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nostr_sdk::hashes::{Hash, sha256};
use nostr_sdk::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag, TagKind};
use paygress_core::backend::http_auth::{Nip98Verifier, SignatureError, SignedRequest};
use paygress_core::model::ids::{Customer, PublicKey};

/// A signature's age (NIP-98 suggests a minute)…
const AGE_SECONDS: u64 = 60;
/// …and how far the customer's clock may be ahead: for so much longer whoever has seen it can send it.
const AHEAD_SECONDS: u64 = 10;
/// An event with a URL, a method and a hash has a few hundred bytes.
const EVIDENCE_BYTES: usize = 8_192;

/// Verifies NIP-98 signatures.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpAuth;

impl Nip98Verifier for HttpAuth {
    fn verify(
        &self,
        evidence: &str,
        request: &SignedRequest<'_>,
    ) -> Result<Customer, SignatureError> {
        if evidence.len() > EVIDENCE_BYTES {
            return Err(SignatureError::TooLong { limit: EVIDENCE_BYTES });
        }
        let json = STANDARD
            .decode(evidence.trim())
            .map_err(|error| SignatureError::NotBase64(error.into()))?;
        let event =
            Event::from_json(json).map_err(|error| SignatureError::NotAnEvent(error.into()))?;
        if event.kind != Kind::HttpAuth {
            return Err(SignatureError::WrongKind { kind: event.kind.as_u16() });
        }
        event.verify().map_err(|error| SignatureError::Forged(error.into()))?;
        let (signed_at, now) = (event.created_at.as_secs(), request.now.0);
        if now.saturating_sub(signed_at) > AGE_SECONDS
            || signed_at.saturating_sub(now) > AHEAD_SECONDS
        {
            return Err(SignatureError::Expired { age: AGE_SECONDS, ahead: AHEAD_SECONDS });
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
            return Err(SignatureError::WrongUrl { url: request.url.to_owned() });
        }
        if !tag("method").is_some_and(|method| method.eq_ignore_ascii_case(request.method)) {
            return Err(SignatureError::WrongMethod { method: request.method.to_owned() });
        }
        let hash = sha256::Hash::hash(request.body).to_string();
        match tag("payload") {
            Some(payload) if payload == hash => {}
            None if request.body.is_empty() => {}
            _ => return Err(SignatureError::WrongPayload),
        }
        Ok(Customer::Nostr(PublicKey::from_bytes(event.pubkey.to_bytes())))
    }
}

/// Signs a request. Gives what stands after `Nostr` in its `Authorization` header.
///
/// # Errors
/// When the key cannot sign.
pub fn sign(keys: &Keys, method: &str, url: &str, body: &[u8]) -> Result<String, Error> {
    let tag =
        |name: &'static str, value: &str| Tag::custom(TagKind::custom(name), [value.to_owned()]);
    let payload = sha256::Hash::hash(body).to_string();
    let tags = [tag("u", url), tag("method", method), tag("payload", &payload)];
    let event = EventBuilder::new(Kind::HttpAuth, "").tags(tags).sign_with_keys(keys);
    Ok(STANDARD.encode(event.map_err(Error::sdk)?.as_json()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::units::UnixTime;

    #[test]
    fn a_signature_is_good_for_one_request_for_a_minute() {
        let keys = Keys::generate();
        let evidence = sign(&keys, "POST", "https://a.example/top-up-pod?x=1", b"{}").unwrap();
        let event = Event::from_json(STANDARD.decode(&evidence).unwrap()).unwrap();
        let now = UnixTime(event.created_at.as_secs());
        let good = SignedRequest {
            method: "POST",
            url: "https://a.example/top-up-pod?x=1",
            body: b"{}",
            now,
        };
        assert_eq!(
            HttpAuth.verify(&evidence, &good).unwrap(),
            Customer::Nostr(PublicKey::from_bytes(keys.public_key().to_bytes()))
        );
        // From a clock that is behind, and from one that is ahead.
        for seen_at in [now.0 + 60, now.0 - 10] {
            let seen = SignedRequest { now: UnixTime(seen_at), ..good };
            assert!(HttpAuth.verify(&evidence, &seen).is_ok(), "{seen_at}");
        }
        for (bad, reason) in [
            (SignedRequest { method: "GET", ..good }, "method"),
            (SignedRequest { url: "https://b.example/top-up-pod?x=1", ..good }, "tag u"),
            (SignedRequest { url: "https://a.example/top-up-pod", ..good }, "tag u"),
            (SignedRequest { body: b"{ }", ..good }, "payload"),
            (SignedRequest { now: UnixTime(now.0 + 61), ..good }, "older than 60 s"),
            (SignedRequest { now: UnixTime(now.0 - 11), ..good }, "more than 10 s ahead"),
        ] {
            let error = HttpAuth.verify(&evidence, &bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        let mut forged = event;
        forged.pubkey = Keys::generate().public_key();
        assert!(HttpAuth.verify(&STANDARD.encode(forged.as_json()), &good).is_err());
        for evidence in ["", "x", "e30=", &"A".repeat(9_000)] {
            assert!(HttpAuth.verify(evidence, &good).is_err());
        }
    }
}
