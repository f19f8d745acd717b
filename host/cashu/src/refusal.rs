//! The response to customers whose token is not taken. Never the mint's own text: it is
//! untrusted.

use crate::error::{KeysetConflict, MintError, MintWalletError, UnavailableReason, codes};
use cdk::nuts::Id;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_store::db::DatabaseError;

pub(crate) fn invalid_token(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorType::InvalidToken, message)
}

pub(crate) fn spent() -> Refusal {
    Refusal::new(ErrorType::TokenAlreadySpent, "the token has been spent; send a fresh one")
}

pub(crate) fn pending() -> Refusal {
    Refusal::new(ErrorType::TokenPending, "the token is being spent elsewhere; try again later")
}

pub(crate) fn unusable_secret() -> Refusal {
    invalid_token("a proof's secret is not usable")
}

pub(crate) fn foreign_keys() -> Refusal {
    invalid_token(
        "the token's keyset is none of the mint's; if the mint has just made a new one, send the token again in a moment",
    )
}

pub(crate) fn no_key(keyset: Id, amount: u64) -> Refusal {
    invalid_token(format!(
        "the token is forged: the mint's keyset {keyset} has no key for a proof of {amount} sat"
    ))
}

pub(crate) fn not_taken() -> Refusal {
    Refusal::new(
        ErrorType::MintError,
        "the mint did not accept the token; it was not taken, try again",
    )
}

pub(crate) fn rate_limited() -> Refusal {
    Refusal::new(
        ErrorType::MintNetworkError,
        "the token's mint limits the service's requests; your token was not taken, try again in a minute",
    )
}

pub(crate) fn balance_limit(remedy: &str) -> Refusal {
    Refusal::new(
        ErrorType::ResourceUnavailable,
        format!("this service holds as much of this mint as it may; {remedy}"),
    )
}

/// A keyset that may be another mint's. The mints are the operator's own list.
fn of_keyset_conflict(conflict: &KeysetConflict) -> Refusal {
    let message = match conflict {
        KeysetConflict::Owned { mint, owner, .. } => format!(
            "the token's keys, which {mint} lists, are those of {owner}; pay with a token of {owner}; your token was not taken"
        ),
        KeysetConflict::Contested { mint, other, .. } => format!(
            "both {mint} and {other} list the token's keys; pay with a token of other keys; your token was not taken"
        ),
        KeysetConflict::TooMany { mint, .. } => {
            format!(
                "{mint} has listed too many keysets; pay with a token of another mint; your token was not taken"
            )
        }
    };
    Refusal::new(ErrorType::MintError, message)
}

/// The wallet store failed before anything was taken.
pub(crate) fn of_store_error(error: &DatabaseError) -> Refusal {
    tracing::error!(%error, "wallet store failed");
    Refusal::new(
        ErrorType::InternalError,
        "the service cannot reach its wallet right now; your token was not taken, try again later",
    )
}

/// A mint's error while nothing was taken.
pub(crate) fn of_mint_error(error: &MintError) -> Refusal {
    match error {
        MintError::Unavailable(UnavailableReason::RateLimited { .. }) => rate_limited(),
        MintError::Unavailable(_) => Refusal::new(
            ErrorType::MintNetworkError,
            "the token's mint cannot be reached; your token was not taken, try again later",
        ),
        MintError::InvalidResponse(_) => Refusal::new(
            ErrorType::MintError,
            "the mint's responses are invalid; your token was not taken",
        ),
        MintError::Rejected { code, .. } => match *code {
            codes::SPENT => spent(),
            codes::PENDING => pending(),
            codes::NOT_VERIFIED => invalid_token("the mint says that the token is forged"),
            codes::TOO_MANY_INPUTS => {
                invalid_token("the token has too many proofs; send fewer, larger ones")
            }
            0 => not_taken(),
            code => Refusal::new(
                ErrorType::MintError,
                format!("the mint did not accept the token (code {code}); it was not taken"),
            ),
        },
    }
}

/// An error while nothing was taken.
pub(crate) fn of_wallet_error(error: &MintWalletError) -> Refusal {
    match error {
        MintWalletError::Mint(error) => of_mint_error(error),
        MintWalletError::Store(error) => of_store_error(error),
        MintWalletError::TooManyOutputs { .. } => Refusal::new(
            ErrorType::MintError,
            "the mint's denominations are too small for this amount; send less, or a token of another mint; your token was not taken",
        ),
        MintWalletError::ForeignKeyset => foreign_keys(),
        MintWalletError::Keyset(conflict) => of_keyset_conflict(conflict),
        MintWalletError::FeeRaised { agreed, fee } => Refusal::new(
            ErrorType::MintError,
            format!(
                "the mint has raised its fee for the token from {agreed} to {fee} sat; your token was not taken, try again"
            ),
        ),
        MintWalletError::BalanceLimit => balance_limit(
            "pay with a token of another mint, or try again later; your token was not taken",
        ),
        MintWalletError::BalanceBusy => Refusal::new(
            ErrorType::ResourceUnavailable,
            "payments in progress leave this service no room for more of this mint; try again in a moment, or pay with a token of another mint; your token was not taken",
        ),
        MintWalletError::RestoreLimit => Refusal::new(
            ErrorType::MintError,
            "this service's wallet at the token's mint is not restored yet; pay with a token of another mint; your token was not taken",
        ),
        MintWalletError::CountersReserved => Refusal::new(
            ErrorType::MintNetworkError,
            "the token's mint has not answered earlier payments yet; your token was not taken, try again later",
        ),
        error => {
            tracing::error!(%error, "wallet failed");
            Refusal::new(
                ErrorType::InternalError,
                "the service cannot take the token; your token was not taken",
            )
        }
    }
}
