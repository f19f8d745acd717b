use super::*;
use crate::token_format::parse_payload;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use cdk::nuts::{Id, Proof, PublicKey, Token};
use cdk::secret::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::str::FromStr;

const MINT: &str = "https://mint.example";

fn accepted() -> Vec<MintUrl> {
    vec![MintUrl::parse(MINT).unwrap()]
}

fn ours() -> SecretKey {
    SecretKey::from_hex("7".repeat(64)).unwrap()
}

fn theirs() -> PublicKey {
    SecretKey::from_hex("9".repeat(64)).unwrap().public_key()
}

fn proof(amount: u64, secret: Secret) -> Proof {
    Proof::new(
        Amount::from(amount),
        Id::from_str("009a1f293253e41e").unwrap(),
        secret,
        SecretKey::generate().public_key(),
    )
}

fn token(mint: &str, unit: CurrencyUnit, proofs: Vec<Proof>) -> Token {
    Token::new(cdk::mint_url::MintUrl::from_str(mint).unwrap(), proofs, None, unit)
}

fn of_secrets(secrets: impl IntoIterator<Item = String>) -> String {
    let proofs = secrets.into_iter().map(|secret| proof(1, Secret::new(secret))).collect();
    token(MINT, CurrencyUnit::Sat, proofs).to_string()
}

fn code(text: &str) -> ErrorType {
    decode(text, &accepted(), None).unwrap_err().code
}

/// What is the same of a token in any form.
fn identity(text: &str) -> (Sat, HashSet<ProofY>) {
    let info = decode(text, &accepted(), None).unwrap();
    (info.gross, info.ys.into_iter().collect())
}

fn v3(token: &Value) -> String {
    format!("cashuA{}", URL_SAFE.encode(token.to_string()))
}

fn v4(token: &ciborium::Value) -> String {
    let mut bytes = Vec::new();
    ciborium::into_writer(token, &mut bytes).unwrap();
    format!("cashuB{}", URL_SAFE.encode(bytes))
}

/// As cashu-ts 4.8.0 and Nutshell 0.20.2 encode them, for our key where it is locked.
fn recorded() -> BTreeMap<String, String> {
    serde_json::from_str(include_str!("../../tests/fixtures/tokens.json")).unwrap()
}

#[test]
fn tokens_of_other_implementations_are_read_for_what_they_are() {
    let plain = Ok(5);
    let other_key = Err("to another key");
    let expected = [
        ("Nutshell V3", plain),
        ("Nutshell V4", plain),
        ("cashu-ts V4", plain),
        ("cashu-ts V4, with DLEQ proofs", plain),
        ("Nutshell V3, --lock P2PK:", Ok(1)),
        ("Nutshell V4, --lock P2PK:", Ok(1)),
        ("Nutshell V4, --lock P2PK-SIGALL:", Ok(3)),
        ("Nutshell V4, --lock P2PK:, over", Ok(1)),
        ("Nutshell V4, --lock P2PK: --refund", Ok(1)),
        ("Nutshell V4, --lock P2PK: --refund, over", Err("locktime is over")),
        ("V3, blinded to the key as a Nostr key", Ok(1)),
        ("V3, blinded to the key as published", Ok(1)),
        ("cashu-ts V4, blinded to another key", other_key),
        ("cashu-ts V4, blinded to the key as a Nostr key", Ok(1)),
        ("cashu-ts V4, blinded to the key as published", Ok(1)),
        ("cashu-ts V4, locked to another key", other_key),
        ("cashu-ts V4, locked, SIG_ALL", Ok(3)),
    ];
    let recorded = recorded();
    assert_eq!(recorded.len(), expected.len());
    for (name, expected) in expected {
        let read = decode(&recorded[name], &accepted(), Some(&ours()));
        match (read, expected) {
            (Ok(info), Ok(sat)) => assert_eq!(info.gross, Sat(sat), "{name}"),
            (Err(refusal), Err(reason)) => {
                assert!(refusal.message.contains(reason), "{name}: {refusal}")
            }
            (read, expected) => panic!("{name}: {read:?} is not {expected:?}"),
        }
    }
    // The same proofs, by four encoders.
    for name in ["Nutshell V3", "Nutshell V4", "cashu-ts V4, with DLEQ proofs"] {
        assert_eq!(identity(&recorded[name]), identity(&recorded["cashu-ts V4"]), "{name}");
    }
}

#[test]
fn a_token_is_the_same_in_every_form_and_order() {
    let proofs = vec![proof(4, Secret::generate()), proof(1, Secret::generate())];
    let token_of = |proofs| token(MINT, CurrencyUnit::Sat, proofs);
    let first = token_of(proofs.clone());
    let expected = identity(&first.to_string());
    assert_eq!((expected.0, expected.1.len()), (Sat(5), 2));
    let reversed = token_of(proofs.into_iter().rev().collect());
    let split = first.to_string().replace("cashuB", "cashuB\n ");
    for text in [
        format!("cashu:{first}"),
        format!("cashu://{first}"),
        format!("web+cashu://{first}"),
        format!("https://wallet.example/#token={first}"),
        format!(" `{first}`\n"),
        split,
        first.to_v3_string(),
        reversed.to_string(),
        reversed.to_v3_string(),
        first.to_string().trim_end_matches('=').to_owned(),
        token("https://MINT.example:443/", CurrencyUnit::Sat, parse_proofs(&first)).to_string(),
    ] {
        assert_eq!(identity(&text), expected, "{text}");
    }
}

fn parse_proofs(token: &Token) -> Vec<Proof> {
    let token = parse(&token.to_string()).unwrap();
    let id = Id::from_str("009a1f293253e41e").unwrap();
    token.proofs.iter().map(|proof| proof.to_proof(id)).collect()
}

#[test]
fn two_tokens_joined_are_refused_as_two() {
    let one = of_secrets(["1".repeat(64)]);
    let other = token(MINT, CurrencyUnit::Sat, vec![proof(2, Secret::generate())]);
    for text in [
        format!("{one}{other}"),
        format!("{one} {other}"),
        format!("{one}\ncashu:{other}"),
        format!("{}{other}", one.trim_end_matches('=')),
        format!("{other}{}", other.to_v3_string()),
        format!("{}{other}", other.to_v3_string().trim_end_matches('=')),
        format!("{one}{one}"),
    ] {
        let refusal = decode(&text, &accepted(), None).unwrap_err();
        assert!(refusal.message.contains("two tokens"), "{refusal}: {text}");
    }
    let cut = one.split_at(one.len() / 2).0;
    let refusal = decode(cut, &accepted(), None).unwrap_err();
    assert!(refusal.message.contains("incomplete"), "{refusal}");
}

#[test]
fn several_entries_of_one_mint_are_one_token_and_of_two_mints_are_not() {
    let entry = |mint: &str, secret: &str| json!({"mint": mint, "proofs": [{"amount": 2, "id": "009a1f293253e41e", "secret": secret.repeat(64), "C": theirs()}]});
    let of = |entries: Value| v3(&json!({"token": entries}));
    let merged = of(json!([entry(MINT, "1"), entry("https://mint.example:443/", "2")]));
    assert_eq!(identity(&merged), identity(&of(json!([entry(MINT, "2"), entry(MINT, "1")]))));
    for (entries, reason) in [
        (json!([entry(MINT, "1"), entry("https://other.example", "2")]), "several mints"),
        (json!([entry(MINT, "1"), entry(MINT, "1")]), "a proof twice"),
        (json!([]), "no proofs"),
        (json!([entry("mint.example", "1")]), "not a URL"),
    ] {
        let refusal = decode(&of(entries), &accepted(), None).unwrap_err();
        assert!(refusal.message.contains(reason), "{refusal}");
    }
}

// long: a table of tokens.
#[test]
fn an_optional_part_that_cannot_be_read_is_absent() {
    let scalar = "1".repeat(64);
    let dleq = |dleq: Value| ("dleq", dleq);
    for (name, value) in [
        ("witness", json!("")),
        ("witness", json!(null)),
        ("witness", json!({"signatures": []})),
        ("witness", json!(7)),
        dleq(json!(null)),
        dleq(json!({"e": scalar, "s": scalar})),
        dleq(json!({"e": scalar, "s": scalar, "r": null})),
        dleq(json!({"e": scalar, "s": scalar, "r": ""})),
        dleq(json!({"e": "0".repeat(64), "s": scalar, "r": scalar})),
        dleq(json!("none")),
        ("p2pk_e", json!("")),
        ("p2pk_e", json!([1])),
    ] {
        let mut proof =
            json!({"amount": 2, "id": "009a1f293253e41e", "secret": "1".repeat(64), "C": theirs()});
        proof[name] = value.clone();
        let text =
            v3(&json!({"token": [{"mint": MINT, "proofs": [proof]}], "unit": "sat", "memo": null}));
        let read = parse(&text).unwrap_or_else(|refusal| panic!("{name} {value}: {refusal}"));
        let proof = read.proofs[0].to_proof(Id::from_str("009a1f293253e41e").unwrap());
        assert!(proof.dleq.is_none() && proof.witness.is_none() && proof.p2pk_e.is_none());
        assert_eq!(decode(&text, &accepted(), None).unwrap().gross, Sat(2), "{name} {value}");
    }
    use ciborium::Value::{Bytes, Integer, Map, Null, Text};
    let text = |text: &str| Text(text.to_owned());
    let scalar = || Bytes(vec![1; 32]);
    for (name, value) in [
        ("w", text("")),
        ("w", Null),
        ("witness", text("")),
        ("d", Null),
        ("d", Map(vec![(text("e"), scalar()), (text("s"), scalar())])),
        ("d", Map(vec![(text("e"), scalar()), (text("s"), scalar()), (text("r"), Bytes(vec![]))])),
        ("d", Integer(7.into())),
        ("pe", Bytes(vec![2; 5])),
        ("pe", Null),
    ] {
        let proof = Map(vec![
            (text("a"), Integer(2.into())),
            (text("s"), text(&"1".repeat(64))),
            (text("c"), Bytes(theirs().to_bytes().to_vec())),
            (text(name), value.clone()),
        ]);
        let entry = Map(vec![
            (text("i"), Bytes(vec![0, 0x9a, 0x1f, 0x29, 0x32, 0x53, 0xe4, 0x1e])),
            (text("p"), ciborium::Value::Array(vec![proof])),
        ]);
        let token = v4(&Map(vec![
            (text("m"), text(MINT)),
            (text("u"), text("sat")),
            (text("t"), ciborium::Value::Array(vec![entry])),
        ]));
        let read = parse(&token).unwrap_or_else(|refusal| panic!("{name} {value:?}: {refusal}"));
        let proof = read.proofs[0].to_proof(Id::from_str("009a1f293253e41e").unwrap());
        assert!(proof.dleq.is_none() && proof.witness.is_none() && proof.p2pk_e.is_none());
        assert_eq!(decode(&token, &accepted(), None).unwrap().gross, Sat(2), "{name} {value:?}");
    }
    // One that can be read is kept.
    let read = parse(&recorded()["cashu-ts V4, with DLEQ proofs"]).unwrap();
    let id = Id::from_str("009a1f293253e41e").unwrap();
    assert!(read.proofs.iter().all(|proof| proof.to_proof(id).dleq.is_some()));
}

#[test]
fn a_payment_is_read_as_the_token_of_its_proofs() {
    let proof = |secret: &str| {
        json!({"amount": 2, "id": "009a1f293253e41e", "secret": secret.repeat(64), "C": theirs(),
            "witness": "", "dleq": {"e": "1", "s": "2"}})
    };
    let payment = json!({"id": "x", "mint": "https://MINT.example/", "unit": "sat",
        "proofs": [proof("1"), proof("2")]});
    let text = parse_payload(&payment.to_string()).unwrap().to_text().unwrap();
    let entry = json!({"mint": MINT, "proofs": [proof("2"), proof("1")]});
    assert_eq!(identity(&text), identity(&v3(&json!({"token": [entry]}))));
    for recorded in recorded().values() {
        let read = parse(recorded).unwrap();
        let again = parse(&read.to_text().unwrap()).unwrap();
        let of = |token: &ReadToken| {
            let id = Id::from_str("009a1f293253e41e").unwrap();
            token.proofs.iter().map(|proof| proof.to_proof(id)).collect::<Vec<_>>()
        };
        assert_eq!(of(&again), of(&read), "{recorded}");
    }
}

#[test]
fn a_keyset_id_of_the_old_form_is_named() {
    let text = v3(
        &json!({"token": [{"mint": MINT, "proofs": [{"amount": 2, "id": "yjzQhxghPdrr", "secret": "1", "C": theirs()}]}]}),
    );
    let refusal = decode(&text, &accepted(), None).unwrap_err();
    assert!(refusal.message.contains("old form"), "{refusal}");
}

#[test]
fn a_mint_is_the_same_only_if_its_whole_url_is() {
    let one = || vec![proof(1, Secret::generate())];
    let of = |mint: &str| token(mint, CurrencyUnit::Sat, one()).to_string();
    for same in [
        "https://mint.example/",
        "https://MINT.example",
        "https://mint.example:443",
        "HTTPS://mint.example:443//",
    ] {
        let read = decode(&of(same), &accepted(), None).unwrap();
        assert_eq!(read.mint.as_str(), MINT, "{same}");
    }
    for other in [
        "http://mint.example",
        "https://mint.example.evil",
        "https://mint.example@evil",
        "https://evil/mint.example",
        "https://mint.example:8443",
        "https://mint.example/other",
        "https://mint.exampIe",
        "https://169.254.169.254",
    ] {
        assert_eq!(code(&of(other)), ErrorType::NonWhitelistedMint, "{other}");
    }
}

#[test]
fn every_kind_of_unusable_token_has_its_error_type() {
    let twice = proof(1, Secret::generate());
    let sat = |proofs| token(MINT, CurrencyUnit::Sat, proofs).to_string();
    for (text, expected) in [
        (String::new(), ErrorType::InvalidToken),
        ("cashu:".to_owned(), ErrorType::InvalidToken),
        ("cashuA".to_owned(), ErrorType::InvalidToken),
        ("cashuBo2F0gaJhaUgA".to_owned(), ErrorType::InvalidToken),
        ("cashuB####".to_owned(), ErrorType::InvalidToken),
        (format!("cashuB{}", "n".repeat(50_000)), ErrorType::InvalidToken),
        (format!("cashuB{}", "n".repeat(70_000)), ErrorType::InvalidToken),
        (sat(vec![]), ErrorType::InvalidToken),
        (sat(vec![twice.clone(), twice]), ErrorType::InvalidToken),
        (sat(vec![proof(0, Secret::generate())]), ErrorType::InvalidToken),
        (sat(vec![proof(u64::MAX, Secret::generate())]), ErrorType::InvalidToken),
        (
            sat(vec![proof(u64::MAX, Secret::generate()), proof(2, Secret::generate())]),
            ErrorType::InvalidToken,
        ),
        (sat((0..501).map(|_| proof(1, Secret::generate())).collect()), ErrorType::InvalidToken),
        (sat(vec![proof(limits::TOKEN_SAT + 1, Secret::generate())]), ErrorType::InvalidToken),
        (
            token(MINT, CurrencyUnit::Usd, vec![proof(1, Secret::generate())]).to_string(),
            ErrorType::UnsupportedUnit,
        ),
        (
            token(MINT, CurrencyUnit::Msat, vec![proof(1, Secret::generate())]).to_string(),
            ErrorType::UnsupportedUnit,
        ),
    ] {
        assert_eq!(code(&text), expected, "{text:.60}");
    }
}

#[test]
fn a_secret_has_a_length_and_characters_that_mints_accept() {
    for (length, is_read) in [(0, false), (1, true), (1_024, true), (1_025, false)] {
        let text = of_secrets(["s".repeat(length)]);
        assert_eq!(decode(&text, &accepted(), None).is_ok(), is_read, "{length}");
    }
    for control in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{85}'] {
        let refusal = decode(&of_secrets([format!("a{control}b")]), &accepted(), None);
        assert!(refusal.unwrap_err().message.contains("control characters"), "{control:?}");
    }
    assert!(decode(&of_secrets(["é<script>'--".to_owned()]), &accepted(), None).is_ok());
    // A lock to as many keys as NUT-28 has slots for is shorter.
    let keys = vec![theirs().to_hex(); 10].join("\",\"");
    let nonce = "0".repeat(64);
    let lock = format!(
        r#"["P2PK",{{"nonce":"{nonce}","data":"{}","tags":[["pubkeys","{keys}"]]}}]"#,
        theirs()
    );
    assert!(lock.len() <= limits::SECRET_BYTES, "{}", lock.len());
}

proptest! {
    #[test]
    fn no_text_panics(text in "(cashu:)?(cashu[ABC])?[A-Za-z0-9_=-]{0,300}") {
        let _ = decode(&text, &accepted(), None);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&format!("cashuB{}", URL_SAFE.encode(&bytes)), &accepted(), None);
    }
}
