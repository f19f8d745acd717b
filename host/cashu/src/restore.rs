//! Restoring from the mnemonic: the mint reports which derivation counters it has signed (NUT-09,
//! NUT-13).

use crate::counters::WINDOW;
use crate::crypto::derive_outputs;
use crate::error::{KeysetConflict, MintWalletError};
use crate::mint_wallet::{MintWallet, Result, order_signatures};
use crate::wallet_store::{NextCounter, RestoredProof};
use cdk::nuts::{Id, PreMintSecrets, Proofs, RestoreRequest, State};
use std::time::{Duration, Instant};

/// Counters in one request…
const BATCH: u32 = 100;
/// …and how many such batches without a signature end the restore: gaps may be as large as
/// [`WINDOW`]. (NUT-13 has three.)
const MAX_EMPTY_BATCHES: u32 = WINDOW.div_ceil(BATCH);

/// Proofs of the store whose states are in one request.
const CHECKED_AT_ONCE: usize = 100;

/// Counters of one keyset that a restore asks for at most: a mint may sign without end. So many
/// are a million orders.
const MAX_COUNTERS: u32 = 10_000_000;
/// How long a restore may take that an order waits for…
const AUTOMATIC_TIME: Duration = Duration::from_secs(600);
/// …and how long after one that ended at its limit, or that a keyset was restored by, there is no
/// other.
const AUTOMATIC_PERIOD: Duration = Duration::from_secs(3_600);

/// What ends a restore.
#[derive(Clone, Copy)]
struct RestoreLimits {
    counters: u32,
    time: Duration,
}

impl RestoreLimits {
    const AUTOMATIC: Self = Self { counters: MAX_COUNTERS, time: AUTOMATIC_TIME };
    /// The operator ends it as they like.
    const OPERATOR: Self = Self { counters: MAX_COUNTERS, time: Duration::MAX };

    /// What `restore` gives, if it does so in time.
    async fn in_time<T>(self, restore: impl Future<Output = Result<T>>) -> Result<T> {
        let restored = tokio::time::timeout(self.time, restore).await;
        restored.unwrap_or(Err(MintWalletError::RestoreLimit))
    }
}

/// What a restore has done.
pub(crate) struct Restored {
    /// The value of the proofs that the wallet did not have.
    pub(crate) added: u64,
    /// Why a keyset of the mint was left out.
    pub(crate) conflict: Option<KeysetConflict>,
}

impl MintWallet {
    /// Restores this mint before its first use. Otherwise an existing seed on a new disk would make
    /// outputs that the mint signed long ago.
    pub(crate) async fn ensure_restored(&self) -> Result<()> {
        self.ensure_restored_within(RestoreLimits::AUTOMATIC).await
    }

    async fn ensure_restored_within(&self, limits: RestoreLimits) -> Result<()> {
        let mut state = self.restore_state.lock().await;
        if state.is_restored {
            return Ok(());
        }
        if !self.store.is_restored(&self.mint, self.seed.origin).await? {
            if state.limited_at.is_some_and(|at| at.elapsed() < AUTOMATIC_PERIOD) {
                return Err(MintWalletError::RestoreLimit);
            }
            if let Err(error) = self.restore_within(limits).await {
                if matches!(error, MintWalletError::RestoreLimit) {
                    state.limited_at = Some(Instant::now());
                }
                return Err(error);
            }
        }
        state.is_restored = true;
        Ok(())
    }

    /// Restores a keyset of which the mint has refused outputs as signed before: the store is older
    /// than the seed's last use. Once in a period, since a mint may say so each time; what it has
    /// refused then stays refused.
    pub(crate) async fn restore_refused(&self, keyset: Id) {
        self.restore_refused_within(keyset, RestoreLimits::AUTOMATIC).await;
    }

    async fn restore_refused_within(&self, keyset: Id, limits: RestoreLimits) {
        let mut state = self.restore_state.lock().await;
        if state.keysets.get(&keyset).is_some_and(|at| at.elapsed() < AUTOMATIC_PERIOD) {
            return;
        }
        state.keysets.retain(|_, at| at.elapsed() < AUTOMATIC_PERIOD);
        state.keysets.insert(keyset, Instant::now());
        match limits.in_time(self.restore_keyset(keyset, limits)).await {
            Ok(sat) => {
                tracing::info!(mint = %self.mint, %keyset, sat, "restored from the mnemonic")
            }
            Err(error) => tracing::error!(mint = %self.mint, %keyset, %error, "not restored"),
        }
    }

    /// Adds the seed's unspent proofs that the wallet does not have, and removes those that are spent:
    /// its store may be a copy of before.
    pub(crate) async fn restore(&self) -> Result<Restored> {
        let restored = self.restore_within(RestoreLimits::OPERATOR).await?;
        self.write_off_spent().await?;
        Ok(restored)
    }

    async fn write_off_spent(&self) -> Result<()> {
        // A mint decides nothing of what may be another one's.
        let (proofs, _) = self.spendable().await?;
        for proofs in proofs.chunks(CHECKED_AT_ONCE) {
            let states = self.states(proofs).await?;
            let spent = proofs.iter().zip(states).filter(|(_, state)| *state == State::Spent);
            let spent: Proofs = spent.map(|(proof, _)| proof.clone()).collect();
            let sat = self.store.write_off(&self.mint, spent).await?;
            if sat > 0 {
                tracing::warn!(mint = %self.mint, sat, "spent since the wallet's store was copied");
            }
        }
        Ok(())
    }

    async fn restore_within(&self, limits: RestoreLimits) -> Result<Restored> {
        limits.in_time(self.restore_all(limits)).await
    }

    async fn restore_all(&self, limits: RestoreLimits) -> Result<Restored> {
        let keysets = self.keysets(|_| true).await?;
        let mut added = 0_u64;
        for keyset in keysets.own() {
            added = added.saturating_add(self.restore_keyset(keyset.id, limits).await?);
        }
        self.store.set_restored(&self.mint).await?;
        tracing::info!(mint = %self.mint, sat = added, "restored from the mnemonic");
        Ok(Restored { added, conflict: keysets.any_conflict() })
    }

    /// Batch by batch, so that what is found stays, and no mint fills the memory.
    async fn restore_keyset(&self, keyset: Id, limits: RestoreLimits) -> Result<u64> {
        let known = u32::try_from(self.store.next_counter(keyset).await?).unwrap_or(u32::MAX);
        let limit = limits.counters.max(known.saturating_add(WINDOW));
        let (mut start, mut empty_batches, mut added) = (0_u32, 0_u32, 0_u64);
        while empty_batches < MAX_EMPTY_BATCHES {
            let end = start.checked_add(BATCH).ok_or(MintWalletError::CounterExhausted)?;
            if end > limit {
                return Err(MintWalletError::RestoreLimit);
            }
            let found = self.find_signed_in(keyset, start..end).await?;
            empty_batches = if found.is_empty() { empty_batches.saturating_add(1) } else { 0 };
            added = added.saturating_add(self.add_unspent(keyset, found).await?);
            start = end;
        }
        Ok(added)
    }

    async fn add_unspent(&self, keyset: Id, found: Vec<RestoredProof>) -> Result<u64> {
        let Some(last) = found.last().map(|found| found.counter) else { return Ok(0) };
        let proofs: Proofs = found.iter().map(|found| found.proof.clone()).collect();
        // Checked after they were found: the service may be spending.
        let states = self.states(&proofs).await?;
        let unspent = found.into_iter().zip(states);
        let unspent = unspent.filter(|(_, state)| *state == State::Unspent);
        let unspent = unspent.map(|(found, _)| found).collect();
        let counter = NextCounter { keyset, next: last.saturating_add(1) };
        Ok(self.store.add_restored(&self.mint, unspent, counter).await?)
    }

    /// Every proof of these counters that the mint has signed, spent or not, in their order.
    async fn find_signed_in(
        &self,
        keyset: Id,
        counters: std::ops::Range<u32>,
    ) -> Result<Vec<RestoredProof>> {
        let outputs =
            derive_outputs(&self.client.share, &self.seed, keyset, counters.clone()).await?;
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
        if signatures.is_empty() {
            return Ok(Vec::new());
        }
        let proofs = self.unblind(signed_outputs, signatures).await?;
        let found = signed_counters.into_iter().zip(proofs);
        Ok(found.map(|(counter, proof)| RestoredProof { counter, proof }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeMint, OneKey};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// Less than the window, which is always looked through.
    const LIMITS: RestoreLimits = RestoreLimits { counters: 300, time: AUTOMATIC_TIME };

    #[tokio::test]
    async fn a_mint_that_signs_without_end_is_left_at_a_limit_and_tried_once_in_a_period() {
        let (key, restores) = (OneKey::new(), Arc::new(AtomicU64::new(0)));
        let (keyset, is_endless) = (key.keyset.id, Arc::new(AtomicBool::new(true)));
        let (counted, signs) = (Arc::clone(&restores), Arc::clone(&is_endless));
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" => key.keysets(0),
            "/v1/restore" => {
                counted.fetch_add(1, Ordering::SeqCst);
                if signs.load(Ordering::SeqCst) { key.signed(body) } else { OneKey::none_signed() }
            }
            "/v1/checkstate" => OneKey::unspent(body),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        drop(mint.wallet(directory.path()).await);
        // The seed was there before.
        let wallet = mint.wallet(directory.path()).await;
        for _ in 0..3 {
            let limited = wallet.ensure_restored_within(LIMITS).await;
            assert!(matches!(limited, Err(MintWalletError::RestoreLimit)), "{limited:?}");
        }
        let requests = || restores.load(Ordering::SeqCst);
        let of_window = u64::from(MAX_EMPTY_BATCHES);
        assert_eq!(requests(), of_window);
        let (found, _) = wallet.spendable().await.unwrap();
        assert_eq!(u32::try_from(found.len()).unwrap(), WINDOW, "what was found is kept");
        // It calls outputs signed, again and again.
        is_endless.store(false, Ordering::SeqCst);
        for _ in 0..3 {
            wallet.restore_refused_within(keyset, LIMITS).await;
        }
        // All that was signed, and the gap behind it.
        assert_eq!(requests(), 2 * of_window);
        println!("{} requests for six restores", requests());
        // The operator's restore ends all of it.
        assert_eq!(wallet.restore().await.unwrap().added, 0);
        wallet.ensure_restored_within(LIMITS).await.unwrap();
    }

    #[tokio::test]
    async fn a_mint_that_is_slow_ends_a_restore_at_its_time() {
        let key = OneKey::new();
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" => key.keysets(0),
            "/v1/restore" => key.signed(body),
            "/v1/checkstate" => OneKey::unspent(body),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        drop(mint.wallet(directory.path()).await);
        let wallet = mint.wallet(directory.path()).await;
        let limits = RestoreLimits { counters: u32::MAX, time: Duration::from_millis(100) };
        let begun = Instant::now();
        let limited = wallet.ensure_restored_within(limits).await;
        assert!(matches!(limited, Err(MintWalletError::RestoreLimit)), "{limited:?}");
        // Without a limit it would not end.
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
