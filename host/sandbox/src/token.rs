//! Tokens changed as attackers, careless wallets and older wallets do; and what a payment request
//! says.

use crate::error::{Error, Result, during};
use cdk::Amount;
use cdk::nuts::{PaymentRequest, Token, TokenV4};

fn parse(token: &str) -> Result<Token> {
    token.parse().map_err(during("parse a token"))
}

fn parse_v4(token: &str) -> Result<TokenV4> {
    match parse(token)? {
        Token::TokenV4(token) => Ok(token),
        Token::TokenV3(_) => Err(Error::new("parse a token", "not a V4 token")),
    }
}

/// The same proofs, claimed to be of another mint or in another unit.
pub fn relabelled(token: &str, mint: &str, unit: &str) -> Result<String> {
    let mut token = parse_v4(token)?;
    token.mint_url = mint.parse().map_err(during("parse a mint's URL"))?;
    token.unit = unit.parse().map_err(during("parse a unit"))?;
    Ok(token.to_string())
}

/// The same token without its first proof: from a wallet that has spent a part, or that wants to
/// pay twice with the rest. Fails if there is one proof only.
pub fn partial(token: &str) -> Result<String> {
    let mut token = parse_v4(token)?;
    let all: usize = token.token.iter().map(|keyset| keyset.proofs.len()).sum();
    if all < 2 {
        return Err(Error::new("divide a token", "it has one proof only"));
    }
    if let Some(keyset) = token.token.first_mut() {
        keyset.proofs.remove(0);
    }
    token.token.retain(|keyset| !keyset.proofs.is_empty());
    Ok(token.to_string())
}

/// The same proofs, each claimed to be worth twice as much: a forgery.
pub fn inflated(token: &str) -> Result<String> {
    let mut token = parse_v4(token)?;
    for keyset in &mut token.token {
        for proof in &mut keyset.proofs {
            proof.amount = Amount::from(proof.amount.to_u64().saturating_mul(2));
        }
    }
    Ok(token.to_string())
}

/// A worthless token: the same amounts, with secrets that the mint has never signed. Each `n` gives
/// others.
pub fn forged(token: &str, n: usize) -> Result<String> {
    forged_with(token, n, "")
}

/// As [`forged`], with secrets that end in `text`.
pub fn forged_with(token: &str, n: usize, text: &str) -> Result<String> {
    let mut token = parse_v4(token)?;
    let proofs = token.token.iter_mut().flat_map(|keyset| &mut keyset.proofs);
    for (place, proof) in proofs.enumerate() {
        let secret = format!("{n:032x}{place:032x}{text}");
        proof.secret = secret.parse().map_err(during("forge a token"))?;
        proof.dleq = None;
    }
    Ok(token.to_string())
}

/// The same token without the mint's proofs of its signatures (NUT-12): from a wallet that spares
/// the bytes, or from a forger.
pub fn without_dleq(token: &str) -> Result<String> {
    let mut token = parse_v4(token)?;
    for keyset in &mut token.token {
        for proof in &mut keyset.proofs {
            proof.dleq = None;
        }
    }
    Ok(token.to_string())
}

/// The same token in the older form, V3.
pub fn as_v3(token: &str) -> Result<String> {
    Ok(parse(token)?.to_v3_string())
}

/// What a payment request (NUT-18) asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestedPayment {
    pub sat: u64,
    pub mints: Vec<String>,
    /// What is bought, for people.
    pub description: Option<String>,
    /// Whether it says where to send the payment.
    pub has_transport: bool,
}

/// Reads a payment request.
pub fn requested_payment(request: &str) -> Result<RequestedPayment> {
    let request: PaymentRequest = request.parse().map_err(during("parse a payment request"))?;
    Ok(RequestedPayment {
        sat: request.amount.map_or(0, |amount| amount.to_u64()),
        mints: request.mints.iter().map(ToString::to_string).collect(),
        description: request.description,
        has_transport: !request.transports.is_empty(),
    })
}
