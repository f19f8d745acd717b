//! What a token says, read offline. Its bytes are untrusted.

use crate::conditions;
use crate::keyset;
use crate::refusal;
use crate::token_format::{ReadProof, ReadToken, parse};
use cdk::Amount;
use cdk::dhke::hash_to_curve;
use cdk::nuts::{CurrencyUnit, SecretKey};
use paygress_core::backend::wallet::TokenInfo;
use paygress_core::limits;
use paygress_core::model::ids::{MintUrl, ProofY};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Sat, UnixTime};
use std::collections::HashSet;

/// Reads a token of one of these mints. `ours` is the key that it may be locked to.
pub(crate) fn decode(
    text: &str,
    accepted: &[MintUrl],
    ours: Option<&SecretKey>,
) -> Result<TokenInfo, Refusal> {
    let token = parse(text)?;
    if token.proofs.is_empty() || token.proofs.len() > limits::TOKEN_PROOFS {
        return Err(refusal::invalid_token(format!(
            "the token holds {} proofs; 1 to {} are accepted",
            token.proofs.len(),
            limits::TOKEN_PROOFS
        )));
    }
    keyset::require_few(&token.proofs)?;
    require_accepted(&token.mint, accepted)?;
    require_sat(&token)?;
    require_usable_secrets(&token.proofs)?;
    let locks = token.proofs.iter().map(|proof| (&proof.secret, proof.p2pk_e.as_ref()));
    conditions::require_spendable(locks, ours, UnixTime::now())?;
    let ys = distinct_ys(&token.proofs)?;
    let gross = gross(&token)?;
    Ok(TokenInfo { mint: token.mint, gross, ys })
}

/// What a token in sat is worth, before the mint's fee; of any mint.
///
/// # Errors
/// It cannot be read, or is not in sat.
pub fn token_amount(text: &str) -> Result<Sat, Refusal> {
    let token = parse(text)?;
    require_sat(&token)?;
    gross(&token)
}

fn require_sat(token: &ReadToken) -> Result<(), Refusal> {
    if token.unit == CurrencyUnit::Sat {
        return Ok(());
    }
    Err(Refusal::new(ErrorType::UnsupportedUnit, "only tokens in sat are accepted"))
}

fn require_accepted(mint: &MintUrl, accepted: &[MintUrl]) -> Result<(), Refusal> {
    // By equality: a URL with an accepted prefix is another mint.
    if accepted.contains(mint) {
        return Ok(());
    }
    let mut known: Vec<&str> = accepted.iter().map(MintUrl::as_str).collect();
    known.sort_unstable();
    Err(Refusal::new(
        ErrorType::NonWhitelistedMint,
        format!("tokens of this mint are not accepted; accepted are: {}", known.join(", ")),
    ))
}

fn require_usable_secrets(proofs: &[ReadProof]) -> Result<(), Refusal> {
    if !proofs.iter().all(|proof| (1..=limits::SECRET_BYTES).contains(&proof.secret.len())) {
        return Err(refusal::invalid_token(format!(
            "a proof's secret has no bytes, or more than {}, which no mint accepts",
            limits::SECRET_BYTES
        )));
    }
    // Databases and firewalls of mints fail on them, and then a swap has no answer.
    if proofs.iter().any(|proof| proof.secret.to_string().chars().any(char::is_control)) {
        return Err(refusal::invalid_token(
            "a proof's secret has control characters, which mints may fail on; receive the token \
             in your wallet and send a fresh one",
        ));
    }
    Ok(())
}

fn distinct_ys(proofs: &[ReadProof]) -> Result<Vec<ProofY>, Refusal> {
    let mut ys = Vec::with_capacity(proofs.len());
    for proof in proofs {
        let y = hash_to_curve(proof.secret.as_bytes()).map_err(|_| refusal::unusable_secret())?;
        ys.push(ProofY::parse(y.to_hex()).map_err(|_| refusal::unusable_secret())?);
    }
    if ys.iter().collect::<HashSet<_>>().len() != ys.len() {
        return Err(refusal::invalid_token("the token holds a proof twice"));
    }
    Ok(ys)
}

fn gross(token: &ReadToken) -> Result<Sat, Refusal> {
    let gross = Amount::try_sum(token.proofs.iter().map(|proof| proof.amount))
        .map_err(|_| refusal::invalid_token("the token's amounts do not add up"))?
        .to_u64();
    match gross {
        1..=limits::TOKEN_SAT => Ok(Sat(gross)),
        _ => Err(refusal::invalid_token(format!(
            "the token's amount must be 1 to {} sat",
            limits::TOKEN_SAT
        ))),
    }
}

#[cfg(test)]
mod tests;
