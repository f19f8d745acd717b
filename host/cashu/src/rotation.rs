//! Swapping what is held in a keyset that ends: a mint may drop it then (NUT-02), and what is held in it
//! is worth nothing.

use crate::counters::Spender;
use crate::keyset::{ending_keysets, split};
use crate::mint_wallet::{MintKeysets, MintWallet, Result};
use crate::operation::{Operation, OperationData, OperationOutcome, total};
use crate::purpose::{Purpose, RotationId};
use cdk::nuts::{KeySetInfo, Proof};
use paygress_core::model::units::UnixTime;

/// Proofs in one swap…
const PROOFS_AT_ONCE: usize = 100;
/// …and swaps in a row; the next ones are made at the next recovery.
const MAX_SWAPS: usize = 10;

impl MintWallet {
    /// Whether one of these is of a keyset that ends soon, while new outputs would last, as far as is
    /// known without a request.
    pub(crate) async fn is_any_ending(&self, proofs: &[Proof]) -> bool {
        let Some(keysets) = self.client.known_keysets().await else { return false };
        let keysets: Vec<&KeySetInfo> = keysets.iter().collect();
        let ending = ending_keysets(&keysets, UnixTime::now());
        proofs.iter().any(|proof| ending.contains(&proof.keyset_id))
    }

    /// Swaps unspent proofs of keysets that end soon. Returns how many swaps are open: they are resumed
    /// as all operations are.
    pub(crate) async fn rotate_proofs(&self, keysets: &MintKeysets) -> usize {
        match self.try_rotate(keysets).await {
            Ok(open) => open,
            Err(error) => {
                let mint = &self.mint;
                tracing::warn!(%mint, %error, "proofs of a keyset that ends are not swapped yet");
                0
            }
        }
    }

    async fn try_rotate(&self, keysets: &MintKeysets) -> Result<usize> {
        let own: Vec<&KeySetInfo> = keysets.own().collect();
        let ending = ending_keysets(&own, UnixTime::now());
        if ending.is_empty() {
            return Ok(0);
        }
        let (mut proofs, _) = self.spendable().await?;
        proofs.retain(|proof| ending.contains(&proof.keyset_id));
        for proofs in proofs.chunks(PROOFS_AT_ONCE).take(MAX_SWAPS) {
            let fee = self.fee(proofs).await?;
            let Some(net) = total(proofs).checked_sub(fee).filter(|net| *net > 0) else {
                // Further ones are smaller still.
                break;
            };
            let mint = &self.mint;
            match self.rotate(proofs, net).await? {
                OperationOutcome::Done(_) => {
                    tracing::info!(%mint, sat = net, fee, "swapped: a keyset ends");
                }
                OperationOutcome::Unknown(reason) => {
                    tracing::debug!(%mint, %reason, "an operation stays open");
                    return Ok(1);
                }
                failed => {
                    tracing::warn!(%mint, ?failed, "not swapped yet, and its keyset ends");
                    break;
                }
            }
        }
        Ok(0)
    }

    async fn rotate(&self, proofs: &[Proof], net: u64) -> Result<OperationOutcome> {
        let keyset = self.active_keyset().await?;
        let data = OperationData {
            inputs: proofs.to_vec(),
            has_own_inputs: true,
            keyset: Some(keyset.info.id),
            amounts: split(net, &keyset.keys, Spender::Wallet)?,
            ..OperationData::default()
        };
        let purpose = Purpose::Rotate { id: RotationId::random() };
        let operation = Operation::new(purpose.clone(), &self.mint, data);
        match self.begin(operation, proofs.to_vec()).await? {
            Some(operation) => self.perform_swap(&operation).await,
            None => self.resume_latest(&purpose).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::FeeMode;
    use crate::testing::{FakeMint, OneKey};
    use crate::wallet_store::{NextCounter, RestoredProof};
    use paygress_core::model::ids::OrderId;
    use paygress_core::model::units::Seconds;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Two active keysets, of which one ends within the hour.
    struct Keysets {
        ending: Arc<OneKey>,
        lasting: Arc<OneKey>,
        /// Requests for swaps; the first one has no answer.
        swaps: Arc<AtomicUsize>,
    }

    impl Keysets {
        fn new() -> Self {
            let end = UnixTime::now().after(Seconds(3_600));
            let (ending, lasting) = (Arc::new(OneKey::ending_at(end)), Arc::new(OneKey::new()));
            Self { ending, lasting, swaps: Arc::default() }
        }

        async fn mint(&self) -> FakeMint {
            let (ending, lasting) = (Arc::clone(&self.ending), Arc::clone(&self.lasting));
            let swaps = Arc::clone(&self.swaps);
            let keys_of_ending = format!("/v1/keys/{}", ending.keyset.id);
            FakeMint::start(move |path, body| match path {
                "/v1/keysets" => ending.keysets_with(&lasting),
                "/v1/swap" if swaps.fetch_add(1, Ordering::SeqCst) == 0 => {
                    ("500 Internal Server Error", "{}".to_owned())
                }
                "/v1/swap" => lasting.signed(body),
                "/v1/restore" => OneKey::none_signed(),
                "/v1/checkstate" => OneKey::unspent(body),
                path if path == keys_of_ending => ending.keys(),
                _ => lasting.keys(),
            })
            .await
        }
    }

    async fn fill(wallet: &MintWallet, key: &OneKey, count: u32) {
        let found = |counter| RestoredProof { counter, proof: key.proof() };
        let counter = NextCounter { keyset: key.keyset.id, next: count };
        let found = (0..count).map(found).collect();
        wallet.store.add_restored(&wallet.mint, found, counter).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_held_in_a_keyset_that_ends_is_swapped_also_after_a_crash() {
        let keysets = Keysets::new();
        let mint = keysets.mint().await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        fill(&wallet, &keysets.ending, 250).await;
        fill(&wallet, &keysets.lasting, 2).await;
        assert_eq!(wallet.recover().await.unwrap(), 1, "the first swap has no answer");
        let balances = wallet.store.balances().await.unwrap();
        assert_eq!((balances[0].available.0, balances[0].reserved.0), (152, 100));
        // The process ends here.
        drop(wallet);
        let wallet = mint.wallet(directory.path()).await;
        assert_eq!(wallet.recover().await.unwrap(), 0);
        let unspent = wallet.store.unspent(&wallet.mint).await.unwrap();
        assert_eq!(unspent.len(), 252);
        let lasting = keysets.lasting.keyset.id;
        assert!(unspent.iter().all(|proof| proof.keyset_id == lasting));
        let swaps = || keysets.swaps.load(Ordering::SeqCst);
        assert_eq!(swaps(), 4, "one is made twice");
        assert_eq!(wallet.recover().await.unwrap(), 0);
        assert_eq!(swaps(), 4, "there is nothing to swap any more");
    }

    #[tokio::test]
    async fn a_refund_is_not_made_of_proofs_that_end_while_it_waits() {
        let keysets = Keysets::new();
        keysets.swaps.store(1, Ordering::SeqCst);
        let mint = keysets.mint().await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        fill(&wallet, &keysets.ending, 10).await;
        wallet.keysets(|_| false).await.unwrap();
        let purpose = Purpose::Refund { order: OrderId::random() };
        wallet.send(&purpose, 4, FeeMode::FromAmount).await.unwrap();
        let sent = wallet.store.sent(&purpose).await.unwrap();
        assert_eq!(total(&sent), 4);
        assert!(sent.iter().all(|proof| proof.keyset_id == keysets.lasting.keyset.id));
    }
}
