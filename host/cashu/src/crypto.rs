//! The protocol's cryptography, in batches.

use crate::compute::ComputeShare;
use crate::error::{MintWalletError, SignatureError};
use crate::seed::Seed;
use cdk::Amount;
use cdk::dhke::construct_proofs;
use cdk::nuts::{BlindSignature, Id, KeySet, PreMintSecrets, Proof, Proofs, PublicKey};
use std::sync::Arc;

/// Each proof's Y, in their order.
pub(crate) async fn proof_ys(
    share: &ComputeShare,
    proofs: &[Proof],
) -> Result<Vec<PublicKey>, MintWalletError> {
    let proofs = proofs.to_vec();
    let ys = move || proofs.iter().map(|proof| proof.y().map_err(MintWalletError::cdk)).collect();
    share.compute(ys).await
}

/// The outputs (secrets and blinded messages) of consecutive derivation counters (NUT-13).
pub(crate) async fn derive_outputs(
    share: &ComputeShare,
    seed: &Arc<Seed>,
    keyset: Id,
    counters: std::ops::Range<u32>,
) -> Result<PreMintSecrets, MintWalletError> {
    let seed = Arc::clone(seed);
    let derive = move || {
        PreMintSecrets::restore_batch(keyset, &seed.bytes, counters.start, counters.end)
            .map_err(MintWalletError::cdk)
    };
    share.compute(derive).await
}

/// As [`derive_outputs`], over these amounts; of zero where the mint chooses the amount.
pub(crate) async fn derive_outputs_over(
    share: &ComputeShare,
    seed: &Arc<Seed>,
    keyset: Id,
    first_counter: u32,
    amounts: &[u64],
) -> Result<PreMintSecrets, MintWalletError> {
    let end = u32::try_from(amounts.len())
        .ok()
        .and_then(|count| first_counter.checked_add(count))
        .ok_or(MintWalletError::CounterExhausted)?;
    let mut outputs = derive_outputs(share, seed, keyset, first_counter..end).await?;
    for (output, amount) in outputs.secrets.iter_mut().zip(amounts) {
        output.amount = Amount::from(*amount);
        output.blinded_message.amount = Amount::from(*amount);
    }
    Ok(outputs)
}

/// Turns blind signatures into proofs, after checking keyset, amount, key and DLEQ proof of each.
pub(crate) async fn unblind(
    share: &ComputeShare,
    outputs: PreMintSecrets,
    signatures: Vec<BlindSignature>,
    keys: Arc<KeySet>,
) -> Result<Proofs, SignatureError> {
    let unblind = move || {
        let counts = (signatures.len(), outputs.secrets.len());
        if counts.0 != counts.1 {
            return Err(SignatureError::Count { signatures: counts.0, outputs: counts.1 });
        }
        for (signature, output) in signatures.iter().zip(&outputs.secrets) {
            let key = keys
                .keys
                .amount_key(signature.amount)
                .filter(|_| signature.keyset_id == outputs.keyset_id)
                .ok_or(SignatureError::UnknownKey)?;
            let requested = output.amount.to_u64();
            if requested != 0 && requested != signature.amount.to_u64() {
                return Err(SignatureError::Amount);
            }
            if signature.dleq.is_some() {
                let message = output.blinded_message.blinded_secret;
                signature.verify_dleq(key, message).map_err(|_| SignatureError::Dleq)?;
            }
        }
        construct_proofs(signatures, outputs.rs(), outputs.secrets(), &keys.keys)
            .map_err(|error| SignatureError::Unblind(Box::new(error)))
    };
    share.compute(unblind).await
}

/// A proof, and the mint's key for its amount.
pub(crate) struct KeyedProof {
    pub(crate) proof: Proof,
    pub(crate) key: PublicKey,
}

/// Whether the DLEQ proof of each is valid (NUT-12).
pub(crate) async fn are_dleqs_valid(share: &ComputeShare, proofs: Vec<KeyedProof>) -> bool {
    if proofs.is_empty() {
        return true;
    }
    let are_valid = move || proofs.iter().all(|keyed| keyed.proof.verify_dleq(keyed.key).is_ok());
    share.compute(are_valid).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn without_dleq_proofs_no_thread_is_waited_for() {
        let checked = are_dleqs_valid(&ComputeShare::half(), Vec::new()).now_or_never();
        assert_eq!(checked, Some(true));
    }
}
