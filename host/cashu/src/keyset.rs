//! Choosing keysets, and splitting amounts into a keyset's denominations.

use crate::error::MintWalletError;
use cdk::Amount;
use cdk::amount::FeeAndAmounts;
use cdk::nuts::{KeySet, KeySetInfo, Proofs, Token};
use paygress_core::model::units::UnixTime;
use std::sync::Arc;

/// The keyset that new outputs are made with.
pub(crate) struct ActiveKeyset {
    pub(crate) info: KeySetInfo,
    pub(crate) keys: Arc<KeySet>,
}

/// The mint's active keyset with the lowest input fee.
pub(crate) fn cheapest_active(keysets: &[KeySetInfo], now: UnixTime) -> Option<&KeySetInfo> {
    let is_usable =
        |keyset: &&KeySetInfo| keyset.active && keyset.final_expiry.is_none_or(|at| at > now.0);
    keysets.iter().filter(is_usable).min_by_key(|keyset| keyset.input_fee_ppk)
}

/// Outputs for one amount. Powers of two need 64 at most; a mint whose only denomination is 1
/// would have us derive a million for a million sat.
const MAX_OUTPUTS: u64 = 500;

/// An amount in the keyset's denominations.
///
/// # Errors
/// [`MintWalletError::TooManyOutputs`].
pub(crate) fn split(amount: u64, keyset: &KeySet) -> Result<Vec<u64>, MintWalletError> {
    let denominations: Vec<u64> = keyset.keys.iter().map(|(amount, _)| amount.to_u64()).collect();
    let outputs = output_count(amount, &denominations);
    if outputs > MAX_OUTPUTS {
        return Err(MintWalletError::TooManyOutputs { amount, outputs });
    }
    let denominations = FeeAndAmounts::from((keyset.input_fee_ppk, denominations));
    let parts = Amount::from(amount).split(&denominations).map_err(MintWalletError::cdk)?;
    Ok(parts.into_iter().map(|part| part.to_u64()).collect())
}

/// How many outputs an amount is split into, the largest first.
fn output_count(amount: u64, denominations: &[u64]) -> u64 {
    let mut descending = denominations.to_vec();
    descending.sort_unstable_by(|a, b| b.cmp(a));
    let (mut rest, mut outputs) = (amount, 0_u64);
    for denomination in descending {
        outputs = outputs.saturating_add(rest.checked_div(denomination).unwrap_or(0));
        rest = rest.checked_rem(denomination).unwrap_or(rest);
    }
    outputs
}

/// The token's proofs with their full keyset ids, if all are of these keysets. (The library checks
/// only ids that are shortened.)
pub(crate) fn proofs_of_keysets(token: &Token, keysets: &[KeySetInfo]) -> Option<Proofs> {
    let proofs = token.proofs(keysets).ok()?;
    proofs
        .iter()
        .all(|proof| keysets.iter().any(|keyset| keyset.id == proof.keyset_id))
        .then_some(proofs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdk::nuts::SecretKey;

    fn keyset(denominations: &[u64]) -> KeySet {
        let key = SecretKey::generate().public_key();
        let keys = denominations.iter().map(|amount| (Amount::from(*amount), key)).collect();
        let id = "009a1f293253e41e".parse().unwrap();
        KeySet {
            id,
            unit: cdk::nuts::CurrencyUnit::Sat,
            active: Some(true),
            keys: cdk::nuts::Keys::new(keys),
            input_fee_ppk: 0,
            final_expiry: None,
        }
    }

    #[test]
    fn a_mint_does_not_choose_how_many_outputs_are_derived() {
        let powers: Vec<u64> = (0..40).map(|exponent| 1 << exponent).collect();
        assert_eq!(split(13, &keyset(&powers)).unwrap().len(), 3);
        assert_eq!(split(500, &keyset(&[1])).unwrap().len(), 500);
        let error = split(1_000_000_000, &keyset(&[1])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "keyset's denominations need 1000000000 outputs for 1000000000 sat"
        );
        let decimal = [1_000, 100, 10, 1];
        assert_eq!(output_count(9_999, &decimal), 36);
        assert_eq!(split(9_999, &keyset(&decimal)).unwrap().len(), 36);
    }
}
