//! The forms of a token: V3 in JSON and V4 in CBOR (NUT-00), and the payload of a payment request
//! (NUT-18), of the same content.
//!
//! What a proof can be spent without (its DLEQ proof, a witness) is read if it is readable, and
//! absent if it is not. A witness is always absent: the service signs where it can open a lock, and
//! mints reject one on a proof without a lock.

use crate::refusal::invalid_token;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cdk::Amount;
use cdk::nuts::nut00::token::TokenV4Token;
use cdk::nuts::nut00::{ProofV4, TokenV4};
use cdk::nuts::nut02::ShortKeysetId;
use cdk::nuts::{CurrencyUnit, Id, Proof, ProofDleq, PublicKey};
use cdk::secret::Secret;
use paygress_core::limits;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::refusal::Refusal;
use paygress_core::protocol::{from_json, token_text};
use serde::{Deserialize, Deserializer};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A token as it was read. Nothing of it is checked.
pub(crate) struct ReadToken {
    pub(crate) mint: MintUrl,
    pub(crate) unit: CurrencyUnit,
    pub(crate) proofs: Vec<ReadProof>,
}

/// A proof of a token, whose keyset's id may be shortened.
pub(crate) struct ReadProof {
    pub(crate) keyset_id: ShortKeysetId,
    pub(crate) amount: Amount,
    pub(crate) secret: Secret,
    c: PublicKey,
    dleq: Option<ProofDleq>,
    /// The sender's ephemeral key, where the lock's keys are blinded (NUT-28).
    pub(crate) p2pk_e: Option<PublicKey>,
}

impl ReadProof {
    pub(crate) fn to_proof(&self, keyset_id: Id) -> Proof {
        let mut proof = Proof::new(self.amount, keyset_id, self.secret.clone(), self.c);
        (proof.dleq, proof.p2pk_e) = (self.dleq.clone(), self.p2pk_e);
        proof
    }
}

impl ReadToken {
    /// The token in its shorter form, V4.
    pub(crate) fn to_text(&self) -> Result<String, Refusal> {
        let mint_url = self.mint.as_str().parse().map_err(|_| mint_is_no_url())?;
        let mut token: Vec<TokenV4Token> = Vec::new();
        for proof in &self.proofs {
            let of_proof = ProofV4 {
                amount: proof.amount,
                secret: proof.secret.clone(),
                c: proof.c,
                witness: None,
                dleq: proof.dleq.clone(),
                p2pk_e: proof.p2pk_e,
            };
            match token.last_mut() {
                Some(last) if last.keyset_id == proof.keyset_id => last.proofs.push(of_proof),
                _ => token.push(TokenV4Token {
                    keyset_id: proof.keyset_id.clone(),
                    proofs: vec![of_proof],
                }),
            }
        }
        Ok(TokenV4 { mint_url, unit: self.unit.clone(), memo: None, token }.to_string())
    }
}

/// Reads a payment payload (NUT-18).
pub(crate) fn parse_payload(text: &str) -> Result<ReadToken, Refusal> {
    let example = r#"{"mint": "https://…", "unit": "sat", "proofs": […]} (NUT-18)"#;
    // It names the field, and quotes nothing of the input, which may be a proof's secret.
    let payload: Payload =
        from_json(text, example).map_err(|refusal| invalid_token(refusal.message))?;
    let proofs = payload.proofs.into_iter().map(V3Proof::read).collect::<Result<_, _>>()?;
    Ok(ReadToken { mint: parse_mint(&payload.mint)?, unit: payload.unit, proofs })
}

/// Reads a token in any of its forms.
pub(crate) fn parse(text: &str) -> Result<ReadToken, Refusal> {
    let text = token_text(text);
    let text = text.expose();
    if text.len() > limits::TOKEN_BYTES {
        return Err(invalid_token(format!(
            "the token is longer than {} bytes; send fewer, larger proofs",
            limits::TOKEN_BYTES
        )));
    }
    let token = if let Some(body) = text.strip_prefix("cashuA") {
        decode_base64(body).and_then(|bytes| read_v3(&bytes))
    } else if let Some(body) = text.strip_prefix("cashuB") {
        decode_base64(body).and_then(|bytes| read_v4(&bytes))
    } else {
        return Err(invalid_token(
            "this is not a Cashu token; a token begins with cashuA or cashuB and is copied whole",
        ));
    };
    // Base64 may spell a prefix by chance; then the token is readable.
    let is_joined = || ["cashuA", "cashuB"].iter().any(|prefix| text.rfind(prefix) > Some(0));
    token.map_err(|refusal| match is_joined() {
        true => invalid_token(
            "these are two tokens; receive both in your wallet and send one token over their sum",
        ),
        false => refusal,
    })
}

// Parsers' own errors may quote the token.
fn damaged() -> Refusal {
    invalid_token(
        "the token is incomplete or damaged; copy it whole, from cashu to its last character",
    )
}

fn decode_base64(body: &str) -> Result<Vec<u8>, Refusal> {
    BASE64.decode(body).map_err(|_| damaged())
}

fn parse_mint(text: &str) -> Result<MintUrl, Refusal> {
    MintUrl::parse(text).map_err(|_| mint_is_no_url())
}

fn mint_is_no_url() -> Refusal {
    invalid_token("the token's mint is not a URL")
}

#[derive(Deserialize)]
struct Payload {
    mint: String,
    unit: CurrencyUnit,
    proofs: Vec<V3Proof>,
}

#[derive(Deserialize)]
struct V3 {
    token: Vec<V3Entry>,
    unit: Option<CurrencyUnit>,
}

#[derive(Deserialize)]
struct V3Entry {
    mint: String,
    proofs: Vec<V3Proof>,
}

#[derive(Deserialize)]
struct V3Proof {
    amount: u64,
    id: String,
    secret: Secret,
    #[serde(rename = "C")]
    c: PublicKey,
    dleq: Option<serde_json::Value>,
    p2pk_e: Option<serde_json::Value>,
}

impl V3Proof {
    fn read(self) -> Result<ReadProof, Refusal> {
        let keyset_id = self.id.parse().map_err(|_| {
            invalid_token(
                "the token's keyset has an id of the old form (base64), which is not supported; receive the token in your wallet and send a fresh one",
            )
        })?;
        Ok(ReadProof {
            keyset_id,
            amount: Amount::from(self.amount),
            secret: self.secret,
            c: self.c,
            dleq: self.dleq.and_then(|value| serde_json::from_value(value).ok()),
            p2pk_e: self.p2pk_e.and_then(|value| serde_json::from_value(value).ok()),
        })
    }
}

fn read_v3(bytes: &[u8]) -> Result<ReadToken, Refusal> {
    let token: V3 = serde_json::from_slice(bytes).map_err(|_| damaged())?;
    let (mut mint, mut proofs) = (None, Vec::new());
    // A wallet may list one mint several times.
    for entry in token.token {
        let of_entry = parse_mint(&entry.mint)?;
        if mint.get_or_insert_with(|| of_entry.clone()) != &of_entry {
            return Err(invalid_token("the token is of several mints; send one mint's"));
        }
        for proof in entry.proofs {
            proofs.push(proof.read()?);
        }
    }
    let mint = mint.ok_or_else(|| invalid_token("the token is empty: it holds no proofs"))?;
    Ok(ReadToken { mint, unit: token.unit.unwrap_or(CurrencyUnit::Sat), proofs })
}

#[derive(Deserialize)]
struct V4 {
    m: String,
    u: CurrencyUnit,
    t: Vec<V4Entry>,
}

#[derive(Deserialize)]
struct V4Entry {
    #[serde(deserialize_with = "keyset_id")]
    i: ShortKeysetId,
    p: Vec<V4Proof>,
}

#[derive(Deserialize)]
struct V4Proof {
    a: u64,
    s: Secret,
    #[serde(deserialize_with = "point")]
    c: PublicKey,
    d: Option<ciborium::Value>,
    pe: Option<ciborium::Value>,
}

fn keyset_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ShortKeysetId, D::Error> {
    let bytes = Vec::<u8>::deserialize(deserializer)?;
    ShortKeysetId::from_bytes(&bytes).map_err(serde::de::Error::custom)
}

fn point<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
    let bytes = Vec::<u8>::deserialize(deserializer)?;
    PublicKey::from_slice(&bytes).map_err(serde::de::Error::custom)
}

impl V4Proof {
    fn read(self, keyset_id: ShortKeysetId) -> ReadProof {
        // NUT-28 has bytes; some wallets send hex.
        let key = |value: ciborium::Value| match value {
            ciborium::Value::Bytes(bytes) => PublicKey::from_slice(&bytes).ok(),
            ciborium::Value::Text(text) => PublicKey::from_hex(text).ok(),
            _ => None,
        };
        ReadProof {
            keyset_id,
            amount: Amount::from(self.a),
            secret: self.s,
            c: self.c,
            dleq: self.d.and_then(|value| value.deserialized().ok()),
            p2pk_e: self.pe.and_then(key),
        }
    }
}

fn read_v4(mut bytes: &[u8]) -> Result<ReadToken, Refusal> {
    let token: V4 = ciborium::from_reader(&mut bytes).map_err(|_| damaged())?;
    if !bytes.is_empty() {
        return Err(damaged());
    }
    let proofs = token.t.into_iter().flat_map(|entry| {
        let V4Entry { i, p } = entry;
        p.into_iter().map(move |proof| proof.read(i.clone()))
    });
    Ok(ReadToken { mint: parse_mint(&token.m)?, unit: token.u, proofs: proofs.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::refusal::ErrorType;
    use serde_json::{Value, json};

    #[test]
    fn the_field_that_is_wrong_in_a_payment_is_named_and_nothing_of_it_quoted() {
        const POINT: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let proof = json!({"amount": 2, "id": "009a1f293253e41e", "secret": "hunter2", "C": POINT});
        let with = |field: &str, value: Value| {
            let mut proof = proof.clone();
            proof[field] = value;
            json!({"mint": "https://mint.example", "unit": "sat", "proofs": [proof]}).to_string()
        };
        for (payment, problem) in [
            ("hunter2".to_owned(), "this is not JSON"),
            ("[]".to_owned(), "send an object such as"),
            (json!({"mint": "hunter2", "unit": "sat"}).to_string(), "proofs is missing"),
            (with("amount", json!("hunter2")), "proofs[0].amount must be a whole number"),
            (with("secret", json!(["hunter2"])), "proofs[0].secret must be a string"),
            (with("C", json!("hunter2")), "proofs[0].C cannot be read"),
        ] {
            let refusal = parse_payload(&payment).err().unwrap();
            assert_eq!(refusal.code, ErrorType::InvalidToken);
            assert!(refusal.message.contains(problem), "{payment}: {refusal}");
            assert!(!refusal.message.contains("hunter2"), "{refusal}");
        }
    }
}
