//! Choosing keysets, and splitting amounts into a keyset's denominations.

use crate::error::MintWalletError;
use crate::token_format::{ReadProof, ReadToken};
use cdk::Amount;
use cdk::amount::FeeAndAmounts;
use cdk::nuts::{Id, KeySet, KeySetInfo, Proofs};
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

/// An amount in the keyset's denominations.
pub(crate) fn split(amount: u64, keyset: &KeySet) -> Result<Vec<u64>, MintWalletError> {
    let denominations: Vec<u64> = keyset.keys.iter().map(|(amount, _)| amount.to_u64()).collect();
    let denominations = FeeAndAmounts::from((keyset.input_fee_ppk, denominations));
    let parts = Amount::from(amount).split(&denominations).map_err(MintWalletError::cdk)?;
    Ok(parts.into_iter().map(|part| part.to_u64()).collect())
}

/// The token's proofs with their full keyset ids, if all are of these keysets. (The library checks
/// only ids that are shortened.)
pub(crate) fn proofs_of_keysets(token: &ReadToken, keysets: &[KeySetInfo]) -> Option<Proofs> {
    let proof = |proof: &ReadProof| {
        let id = Id::from_short_keyset_id(&proof.keyset_id, keysets).ok()?;
        keysets.iter().any(|keyset| keyset.id == id).then(|| proof.to_proof(id))
    };
    token.proofs.iter().map(proof).collect()
}
