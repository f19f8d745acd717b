//! What a token says, read offline. Its bytes are untrusted.

use crate::refusal;
use cdk::dhke::hash_to_curve;
use cdk::mint_url::MintUrl;
use cdk::nuts::nut10::{Kind, Secret as Nut10Secret};
use cdk::nuts::{CurrencyUnit, PublicKey, SpendingConditions, Token};
use cdk::secret::Secret;
use paygress_core::backend::wallet::TokenInfo;
use paygress_core::limits;
use paygress_core::model::ids::{self, ProofY};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::Sat;
use std::collections::HashSet;
use std::str::FromStr;

/// Parses a token, without the URI prefix that some wallets add.
pub(crate) fn parse(text: &str) -> Result<Token, Refusal> {
    let text = text.trim();
    let bare =
        text.strip_prefix("cashu://").or_else(|| text.strip_prefix("cashu:")).unwrap_or(text);
    if bare.len() > limits::TOKEN_BYTES {
        return Err(refusal::invalid_token(format!(
            "the token is longer than {} bytes",
            limits::TOKEN_BYTES
        )));
    }
    // The library's error may quote the token.
    Token::from_str(bare).map_err(|_| {
        refusal::invalid_token(
            "this is not a Cashu token; a token begins with cashuA or cashuB and is copied whole",
        )
    })
}

/// Whether a proof's secret is a spending condition (NUT-10): a JSON list. An unknown condition
/// counts: the mint may know it.
pub(crate) fn has_conditions(secret: &Secret) -> bool {
    secret.as_bytes().first() == Some(&b'[')
}

/// Whether our signature alone meets this condition now: P2PK to our key, one signature, each input
/// by itself.
fn is_p2pk_to_us(secret: &Secret, ours: &PublicKey) -> bool {
    let Ok(condition) = Nut10Secret::try_from(secret) else { return false };
    let Ok(SpendingConditions::P2PKConditions { data, conditions }) =
        SpendingConditions::try_from(condition.clone())
    else {
        return false;
    };
    let is_simple = conditions.is_none_or(|conditions| {
        conditions.num_sigs.unwrap_or(1) <= 1
            && conditions.sig_flag == cdk::nuts::SigFlag::SigInputs
            && conditions.locktime.is_none()
    });
    condition.kind() == Kind::P2PK
        && data.x_only_public_key() == ours.x_only_public_key()
        && is_simple
}

/// Reads a token of one of these mints. `ours` is the key that it may be locked to.
pub(crate) fn decode(
    text: &str,
    accepted: &[MintUrl],
    ours: Option<&PublicKey>,
) -> Result<TokenInfo, Refusal> {
    let token = parse(text)?;
    let secrets = token.token_secrets();
    if secrets.is_empty() || secrets.len() > limits::TOKEN_PROOFS {
        return Err(refusal::invalid_token(format!(
            "the token holds {} proofs; 1 to {} are accepted",
            secrets.len(),
            limits::TOKEN_PROOFS
        )));
    }
    let mint = accepted_mint(&token, accepted)?;
    if token.unit().is_some_and(|unit| unit != CurrencyUnit::Sat) {
        return Err(Refusal::new(ErrorType::UnsupportedUnit, "only tokens in sat are accepted"));
    }
    require_spendable(&secrets, ours)?;
    let ys = distinct_ys(&secrets)?;
    let gross = token
        .value()
        .map_err(|_| refusal::invalid_token("the token's amounts do not add up"))?
        .to_u64();
    if gross == 0 || gross > limits::TOKEN_SAT {
        return Err(refusal::invalid_token(format!(
            "the token's amount must be 1 to {} sat",
            limits::TOKEN_SAT
        )));
    }
    let mint = ids::MintUrl::parse(mint.to_string())
        .map_err(|error| refusal::invalid_token(error.to_string()))?;
    Ok(TokenInfo { mint, gross: Sat(gross), ys })
}

fn accepted_mint(token: &Token, accepted: &[MintUrl]) -> Result<MintUrl, Refusal> {
    let mint = token
        .mint_url()
        .map_err(|_| refusal::invalid_token("the token is of several mints; send one mint's"))?;
    // By equality: a URL with an accepted prefix is another mint.
    if accepted.contains(&mint) {
        return Ok(mint);
    }
    let mut known: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    known.sort();
    Err(Refusal::new(
        ErrorType::NonWhitelistedMint,
        format!("tokens of this mint are not accepted; accepted are: {}", known.join(", ")),
    ))
}

fn require_spendable(secrets: &[&Secret], ours: Option<&PublicKey>) -> Result<(), Refusal> {
    let is_spendable = |secret: &Secret| {
        !has_conditions(secret) || ours.is_some_and(|ours| is_p2pk_to_us(secret, ours))
    };
    if secrets.iter().all(|secret| is_spendable(secret)) {
        return Ok(());
    }
    let alternative = ours.map_or_else(String::new, |ours| {
        format!(", or one that is locked (P2PK) to {ours} without a time")
    });
    Err(refusal::invalid_token(format!(
        "the token is locked (P2PK or HTLC); send one that anybody can redeem{alternative}"
    )))
}

fn distinct_ys(secrets: &[&Secret]) -> Result<Vec<ProofY>, Refusal> {
    let mut ys = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let y = hash_to_curve(secret.as_bytes()).map_err(|_| refusal::unusable_secret())?;
        ys.push(ProofY::parse(y.to_hex()).map_err(|_| refusal::unusable_secret())?);
    }
    if ys.iter().collect::<HashSet<_>>().len() != ys.len() {
        return Err(refusal::invalid_token("the token holds a proof twice"));
    }
    Ok(ys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdk::Amount;
    use cdk::nuts::{Id, Proof, SecretKey};
    use cdk::secret::Secret;
    use proptest::prelude::*;

    const MINT: &str = "https://mint.example";

    fn accepted() -> Vec<MintUrl> {
        vec![MintUrl::from_str(MINT).unwrap()]
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
        Token::new(MintUrl::from_str(mint).unwrap(), proofs, None, unit)
    }

    fn code(text: &str) -> ErrorType {
        decode(text, &accepted(), None).unwrap_err().code
    }

    #[test]
    fn both_versions_and_the_uri_prefix_read_the_same() {
        let token = token(
            MINT,
            CurrencyUnit::Sat,
            vec![proof(4, Secret::generate()), proof(1, Secret::generate())],
        );
        let token_info = decode(&token.to_string(), &accepted(), None).unwrap();
        assert_eq!(
            (token_info.gross, token_info.ys.len(), token_info.mint.as_str()),
            (Sat(5), 2, MINT)
        );
        for text in [
            format!("cashu:{token}"),
            format!("cashu://{token}"),
            format!(" {token}\n"),
            token.to_v3_string(),
        ] {
            let again = decode(&text, &accepted(), None).unwrap();
            assert_eq!(
                (again.gross, again.ys.iter().collect::<HashSet<_>>()),
                (token_info.gross, token_info.ys.iter().collect::<HashSet<_>>())
            );
        }
    }

    #[test]
    fn a_mint_is_the_same_only_if_it_is_equal() {
        let one = || vec![proof(1, Secret::generate())];
        for same in ["https://mint.example/", "https://MINT.example"] {
            assert!(
                decode(&token(same, CurrencyUnit::Sat, one()).to_string(), &accepted(), None)
                    .is_ok(),
                "{same}"
            );
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
            assert_eq!(
                code(&token(other, CurrencyUnit::Sat, one()).to_string()),
                ErrorType::NonWhitelistedMint,
                "{other}"
            );
        }
    }

    #[test]
    fn every_kind_of_unusable_token_has_its_error_type() {
        let twice = proof(1, Secret::generate());
        let key = SecretKey::generate().public_key();
        let locked = Secret::new(format!(r#"["P2PK",{{"nonce":"00","data":"{key}","tags":[]}}]"#));
        let unknown_lock = Secret::new(r#"["FUTURE",{"nonce":"00"}]"#);
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
            (
                sat((0..501).map(|_| proof(1, Secret::generate())).collect()),
                ErrorType::InvalidToken,
            ),
            (sat(vec![proof(1, locked)]), ErrorType::InvalidToken),
            (sat(vec![proof(1, unknown_lock)]), ErrorType::InvalidToken),
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
    fn a_token_may_be_locked_to_us_and_to_nobody_else() {
        let (ours, theirs) = (SecretKey::generate(), SecretKey::generate());
        let to = |key: &SecretKey, tags: &str| {
            let secret = format!(
                r#"["P2PK",{{"nonce":"00","data":"{}","tags":[{tags}]}}]"#,
                key.public_key()
            );
            token(MINT, CurrencyUnit::Sat, vec![proof(1, Secret::new(secret))]).to_string()
        };
        let read = |text: &str| decode(text, &accepted(), Some(&ours.public_key()));
        assert!(read(&to(&ours, "")).is_ok());
        assert!(
            decode(&to(&ours, ""), &accepted(), None).is_err(),
            "without a key no locked token is accepted"
        );
        for tags in [
            r#"["locktime","1"]"#,
            r#"["sigflag","SIG_ALL"]"#,
            &format!(r#"["n_sigs","2"],["pubkeys","{}"]"#, theirs.public_key()),
        ] {
            assert_eq!(read(&to(&ours, tags)).unwrap_err().code, ErrorType::InvalidToken, "{tags}");
        }
        assert_eq!(read(&to(&theirs, "")).unwrap_err().code, ErrorType::InvalidToken);
        let htlc = format!(r#"["HTLC",{{"nonce":"00","data":"{}","tags":[]}}]"#, "0".repeat(64));
        let htlc = token(MINT, CurrencyUnit::Sat, vec![proof(1, Secret::new(htlc))]).to_string();
        let refused = read(&htlc).unwrap_err();
        assert!(
            refused.code == ErrorType::InvalidToken
                && refused.message.contains(&ours.public_key().to_hex()),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cashu:)?(cashu[ABC])?[A-Za-z0-9_=-]{0,300}") {
            let _ = decode(&text, &accepted(), None);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            use cdk::nuts::Token;
            let _ = Token::try_from(&[b"crawB".as_slice(), &bytes].concat());
        }
    }
}
