//! Receipts as Nostr events: any tool that knows NIP-01 verifies their signatures.

use crate::error::{BoxError, sdk_error};
use nostr_sdk::secp256k1::{Keypair, Message};
use nostr_sdk::{Event, JsonUtil, Keys, Kind, PublicKey, SECP256K1, Tag, Timestamp, UnsignedEvent};
use paygress_core::backend::receipt::{ReceiptSigner, SignError};
use paygress_core::model::units::UnixTime;
use paygress_core::protocol::{RECEIPT_KIND, RECEIPT_VERSION, ReceiptContent, SignedReceipt};
use serde_json::Value;

/// What tools show that do not know the kind (NIP-31).
const ALT: &str = "Receipt of an order at a Paygress service";
/// A receipt as JSON; the service's own have a third of it.
const RECEIPT_BYTES: usize = 65_536;

/// Signs receipts with the service's key.
pub struct ServiceReceipts {
    keys: Keys,
}

impl ServiceReceipts {
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys }
    }
}

impl ReceiptSigner for ServiceReceipts {
    fn sign(&self, content: String, at: UnixTime) -> Result<SignedReceipt, SignError> {
        let mut unsigned = UnsignedEvent::new(
            self.keys.public_key(),
            Timestamp::from(at.0),
            Kind::Custom(RECEIPT_KIND),
            [Tag::alt(ALT)],
            content,
        );
        let message = Message::from_digest(unsigned.id().to_bytes());
        let mut pair = Keypair::from_secret_key(SECP256K1, self.keys.secret_key());
        // Without randomness, which BIP 340 allows: the same receipt has the same signature.
        let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, &pair);
        pair.non_secure_erase();
        let event = unsigned.add_signature(signature).map_err(SignError::new)?;
        Ok(SignedReceipt {
            id: event.id.to_hex(),
            pubkey: event.pubkey.to_hex(),
            created_at: event.created_at.as_secs(),
            kind: event.kind.as_u16(),
            tags: event.tags.iter().map(|tag| tag.as_slice().to_vec()).collect(),
            content: event.content,
            sig: event.sig.to_string(),
        })
    }
}

/// Why a receipt is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("it has more than {RECEIPT_BYTES} bytes")]
    TooLong,
    #[error("it is not a Nostr event")]
    NotAnEvent(#[source] BoxError),
    #[error("it is an event of kind {kind}; receipts are of kind {RECEIPT_KIND}")]
    WrongKind { kind: u16 },
    #[error("its id or its signature is forged")]
    Forged(#[source] BoxError),
    #[error("it is signed by {signer}, another key than the service's")]
    WrongSigner { signer: String },
    #[error("its content is not a receipt's")]
    Content(#[source] BoxError),
    #[error("its content is not canonical JSON")]
    NotCanonical,
    #[error("its content is of version {version}; a newer paygress reads it")]
    UnknownVersion { version: u32 },
    #[error("it hides which fields only the operator knows")]
    Claims,
}

/// A receipt whose signature is good.
#[derive(Clone, Debug)]
pub struct VerifiedReceipt {
    pub signer: PublicKey,
    pub content: ReceiptContent,
}

/// Verifies a receipt as JSON: its id, its signature, and the form of its content. `service`: the key
/// that must have signed it; left out, any.
///
/// # Errors
/// [`ReceiptError`].
pub fn verify_receipt(
    json: &str,
    service: Option<&PublicKey>,
) -> Result<VerifiedReceipt, ReceiptError> {
    if json.len() > RECEIPT_BYTES {
        return Err(ReceiptError::TooLong);
    }
    let event =
        Event::from_json(json).map_err(|error| ReceiptError::NotAnEvent(sdk_error(error)))?;
    if event.kind.as_u16() != RECEIPT_KIND {
        return Err(ReceiptError::WrongKind { kind: event.kind.as_u16() });
    }
    event.verify().map_err(|error| ReceiptError::Forged(sdk_error(error)))?;
    if service.is_some_and(|service| *service != event.pubkey) {
        return Err(ReceiptError::WrongSigner { signer: crate::npub(&event.pubkey) });
    }
    let content = |error: serde_json::Error| ReceiptError::Content(sdk_error(error));
    let value: Value = serde_json::from_str(&event.content).map_err(content)?;
    let canonical = value.to_string();
    if canonical != event.content {
        return Err(ReceiptError::NotCanonical);
    }
    let content: ReceiptContent = serde_json::from_value(value).map_err(content)?;
    if content.version != RECEIPT_VERSION {
        return Err(ReceiptError::UnknownVersion { version: content.version });
    }
    if !content.names_claims() {
        return Err(ReceiptError::Claims);
    }
    Ok(VerifiedReceipt { signer: event.pubkey, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::backend::policy::{Context, CustomerHistory, Utilisation};
    use paygress_core::protocol::{ReceiptKind, sorted};
    use paygress_core::testing;
    use serde_json::json;

    fn content() -> ReceiptContent {
        testing::receipt(ReceiptKind::Access, "ssh-pod-a", Vec::new())
    }

    fn signed(keys: &Keys, content: String) -> Value {
        sorted(&ServiceReceipts::new(keys.clone()).sign(content, UnixTime(7)).unwrap())
    }

    #[test]
    fn the_same_receipt_has_the_same_bytes_and_verifies() {
        let keys = Keys::generate();
        let text = sorted(&content()).to_string();
        let receipt = signed(&keys, text.clone());
        assert_eq!(receipt, signed(&keys, text));
        let verified = verify_receipt(&receipt.to_string(), Some(&keys.public_key())).unwrap();
        assert_eq!(verified.signer, keys.public_key());
        assert_eq!(verified.content, content());
    }

    /// Receipts of before contract 1.3 have no history and no utilisation, and do not name them.
    #[test]
    fn what_1_3_adds_is_named_as_the_operators_claim_where_it_is_there() {
        let keys = Keys::generate();
        let verify = |context: Context, claims: usize| {
            let mut agreement = testing::agreement();
            agreement.decision.context = context;
            let orders = vec![testing::receipt_order(agreement)];
            let mut content = testing::receipt(ReceiptKind::Access, "ssh-pod-a", orders);
            content.operator_claims.truncate(claims);
            verify_receipt(&signed(&keys, sorted(&content).to_string()).to_string(), None)
        };
        let none = Context::default;
        let history = || Context { history: Some(CustomerHistory::default()), ..none() };
        let utilisation = || Context { utilisation: Some(Utilisation::default()), ..none() };
        assert!(verify(none(), 2).is_ok());
        assert!(verify(none(), 4).is_ok());
        assert!(verify(history(), 3).is_ok());
        assert!(verify(utilisation(), 4).is_ok());
        assert!(matches!(verify(history(), 2), Err(ReceiptError::Claims)));
        assert!(matches!(verify(utilisation(), 3), Err(ReceiptError::Claims)));
        assert!(matches!(verify(none(), 1), Err(ReceiptError::Claims)));
    }

    #[test]
    fn what_is_not_a_receipt_of_the_service_is_refused() {
        let (keys, other) = (Keys::generate(), Keys::generate());
        let text = sorted(&content()).to_string();
        let receipt = signed(&keys, text.clone());
        let changed = |field: &str, value: Value| {
            let mut receipt = receipt.clone();
            receipt[field] = value;
            receipt.to_string()
        };
        let of = |content: &ReceiptContent| signed(&keys, sorted(content).to_string()).to_string();
        let whole = receipt.to_string();
        let truncated = whole.get(..whole.len() - 10).unwrap().to_owned();
        for (json, reason) in [
            (truncated, "not a Nostr event"),
            ("{}".to_owned(), "not a Nostr event"),
            (changed("content", json!(text.replace("ssh-pod-a", "ssh-pod-b"))), "forged"),
            (changed("created_at", json!(8)), "forged"),
            (changed("pubkey", json!(other.public_key().to_hex())), "forged"),
            (changed("kind", json!(1)), "kind 1"),
            (signed(&other, text.clone()).to_string(), "another key"),
            (signed(&keys, "{}".to_owned()).to_string(), "not a receipt's"),
            (signed(&keys, format!(" {text}")).to_string(), "not canonical"),
            (of(&ReceiptContent { version: 2, ..content() }), "version 2"),
            (of(&ReceiptContent { operator_claims: Vec::new(), ..content() }), "hides"),
            ("x".repeat(RECEIPT_BYTES + 1), "more than"),
        ] {
            let error = verify_receipt(&json, Some(&keys.public_key())).unwrap_err();
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
    }
}
