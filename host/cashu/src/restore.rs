//! Restoring from the mnemonic: the mint reports which derivation counters it has signed (NUT-09,
//! NUT-13).

use crate::counters::WINDOW;
use crate::crypto::{derive_outputs, proof_ys};
use crate::error::MintWalletError;
use crate::mint_wallet::{MintWallet, RestoreState, Result, order_signatures};
use crate::wallet_store::{NextCounter, RestoredProof};
use cdk::nuts::{Id, PreMintSecrets, Proofs, RestoreRequest, State};

/// Counters in one request…
const BATCH: u32 = 100;
/// …and how many such batches without a signature end the restore: gaps may be as large as
/// [`WINDOW`]. (NUT-13 has three.)
const MAX_EMPTY_BATCHES: u32 = WINDOW.div_ceil(BATCH);

/// What was found of one keyset.
#[derive(Default)]
struct FoundProofs {
    proofs: Vec<RestoredProof>,
    last_counter: Option<u32>,
}

impl MintWallet {
    /// Restores this mint before its first use. Otherwise an existing seed on a new disk would make
    /// outputs that the mint signed long ago.
    pub(crate) async fn ensure_restored(&self) -> Result<()> {
        let mut state = self.restore_state.lock().await;
        if *state == RestoreState::Unknown {
            if !self.store.is_restored(&self.mint, self.seed.origin).await? {
                self.restore().await?;
            }
            *state = RestoreState::Restored;
        }
        Ok(())
    }

    /// Adds the seed's unspent proofs that the wallet does not have. Returns their value.
    pub(crate) async fn restore(&self) -> Result<u64> {
        let keysets = self.client.keysets(|_| true).await?;
        let (mut found, mut counters) = (Vec::new(), Vec::new());
        for keyset in keysets.iter() {
            let of_keyset = self.find_signed(keyset.id).await?;
            if let Some(last) = of_keyset.last_counter {
                counters.push(NextCounter { keyset: keyset.id, next: last.saturating_add(1) });
            }
            found.extend(of_keyset.proofs);
        }
        // States are checked last: finding all takes a while, and the service may be spending.
        let batch = usize::try_from(BATCH).unwrap_or(usize::MAX);
        let mut unspent = Vec::new();
        for chunk in found.chunks(batch) {
            let proofs: Proofs = chunk.iter().map(|found| found.proof.clone()).collect();
            let states = self.client.states(&proof_ys(&proofs).await?).await?;
            let found = chunk.iter().zip(states);
            let is_unspent = |(_, state): &(&RestoredProof, State)| *state == State::Unspent;
            unspent.extend(found.filter(is_unspent).map(|(found, _)| found.clone()));
        }
        let added = self.store.add_restored(&self.mint, unspent, counters).await?;
        tracing::info!(mint = %self.mint, sat = added, "restored from the mnemonic");
        Ok(added)
    }

    /// Every proof of a keyset that the mint has signed, spent or not.
    async fn find_signed(&self, keyset: Id) -> Result<FoundProofs> {
        let mut all = FoundProofs::default();
        let (mut start, mut empty_batches) = (0_u32, 0_u32);
        while empty_batches < MAX_EMPTY_BATCHES {
            let end = start.checked_add(BATCH).ok_or(MintWalletError::CounterExhausted)?;
            let found = self.find_signed_in(keyset, start..end).await?;
            empty_batches =
                if found.proofs.is_empty() { empty_batches.saturating_add(1) } else { 0 };
            all.last_counter = found.last_counter.or(all.last_counter);
            all.proofs.extend(found.proofs);
            start = end;
        }
        Ok(all)
    }

    async fn find_signed_in(
        &self,
        keyset: Id,
        counters: std::ops::Range<u32>,
    ) -> Result<FoundProofs> {
        let outputs = derive_outputs(&self.seed, keyset, counters.clone()).await?;
        let blinded = outputs.blinded_messages();
        let messages: Vec<_> = blinded.iter().map(|message| message.blinded_secret).collect();
        let response = self.client.restore(&RestoreRequest { outputs: blinded }).await?;
        let ordered = order_signatures(&messages, response.outputs, response.signatures);
        let mut signed_outputs = PreMintSecrets::new(keyset);
        let (mut signatures, mut signed_counters) = (Vec::new(), Vec::new());
        for ((output, signature), counter) in outputs.secrets.into_iter().zip(ordered).zip(counters)
        {
            if let Some(signature) = signature {
                signed_outputs.secrets.push(output);
                signatures.push(signature);
                signed_counters.push(counter);
            }
        }
        let last_counter = signed_counters.last().copied();
        if signatures.is_empty() {
            return Ok(FoundProofs::default());
        }
        let proofs = self.unblind(signed_outputs, signatures).await?;
        let found = signed_counters.into_iter().zip(proofs);
        let proofs = found.map(|(counter, proof)| RestoredProof { counter, proof }).collect();
        Ok(FoundProofs { proofs, last_counter })
    }
}
