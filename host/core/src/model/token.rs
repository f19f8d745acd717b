//! Cashu tokens as orders see them.

use crate::model::ids::{MintUrl, ProofY};
use crate::model::secret::Secret;
use crate::model::units::Sat;
use serde::{Deserialize, Serialize};

/// What can be read from a token offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// One of the operator's mints.
    pub mint: MintUrl,
    /// The sum of the proofs, before the mint's input fee.
    pub gross: Sat,
    /// The Y of every proof. It is unique across orders, so that a token pays only once.
    pub ys: Vec<ProofY>,
}

/// A new token that returns money to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundToken {
    /// Store it before it is sent.
    pub token: Secret,
    /// Its value before the mint's fee on receiving it.
    pub amount: Sat,
    /// The mint's fee for making it, whoever bears it.
    pub fee: Sat,
}
