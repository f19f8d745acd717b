//! Making tokens from the wallet's proofs.

use crate::counters::Spender;
use crate::error::MintWalletError;
use crate::http::MAX_INPUTS;
use crate::keyset::{ActiveKeyset, split};
use crate::mint_wallet::{MintWallet, Result};
use crate::operation::{
    Operation, OperationData, OperationOutcome, OperationState, ProofState, total,
};
use crate::purpose::Purpose;
use crate::tables;
use crate::wallet_store::{WalletStore, can_spare, signed};
use cdk::nuts::{Proof, Proofs, State, Token};
use paygress_core::backend::wallet::RefundAmount;
use paygress_store::db::Transaction;

/// Attempts with new outputs, or with other inputs, each.
const MAX_ATTEMPTS: usize = 3;
/// Selections for one of them: each time another operation has taken a selected proof, and is begun.
const MAX_SELECTIONS: usize = 64;

/// What the mint's fee for making a token is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeeMode {
    /// The amount: the token is over less.
    FromAmount,
    /// The rest of the wallet, of which `reserve` is left for others: the token is over the amount.
    OnTop { reserve: u64 },
}

impl FeeMode {
    fn reserve(self) -> u64 {
        match self {
            Self::FromAmount => 0,
            Self::OnTop { reserve } => reserve,
        }
    }
}

/// The proofs that a token or a payment is made of.
pub(crate) enum Selection {
    /// Their sum is the amount: no swap is needed.
    Exact(Proofs),
    Swap {
        inputs: Proofs,
        fee: u64,
    },
}

pub(crate) struct SentToken {
    pub(crate) token: Token,
    pub(crate) operation: Box<Operation>,
}

/// One attempt to send.
enum Attempt {
    Ended(OperationOutcome),
    /// Selected proofs were spent by another program, and are written off.
    ProofsWereSpent,
}

impl MintWallet {
    /// Selects unspent proofs for `amount`.
    pub(crate) async fn select_proofs(&self, amount: u64, fee_mode: FeeMode) -> Result<Selection> {
        let (unspent, conflict) = self.spendable().await?;
        if matches!(fee_mode, FeeMode::OnTop { reserve: 1.. }) && conflict.is_some() {
            // The balance holds what is not spendable: it is not known what can be spared.
            return Err(MintWalletError::NotSpared);
        }
        if let Some(exact) = exact_proofs(&unspent, amount) {
            return Ok(Selection::Exact(exact));
        }
        match self.select_for_swap(unspent, amount, fee_mode).await {
            Err(error @ MintWalletError::InsufficientFunds { .. }) => {
                Err(conflict.map_or(error, Into::into))
            }
            selected => selected,
        }
    }

    /// As [`MintWallet::select_proofs`], for a token: whoever redeems it pays the mint for each proof
    /// in it (NUT-02). Many small ones are sent as they are only where no swap leaves them more, and
    /// others what they are owed. Those of a keyset that ends soon are swapped too: the token may wait.
    async fn select_for_token(&self, amount: u64, fee_mode: FeeMode) -> Result<Selection> {
        let exact = match self.select_proofs(amount, fee_mode).await? {
            Selection::Exact(proofs) => proofs,
            swap @ Selection::Swap { .. } => return Ok(swap),
        };
        if is_few(&exact, amount) && !self.is_any_ending(&exact).await {
            return Ok(Selection::Exact(exact));
        }
        match self.select_better_swap(amount, fee_mode, &exact).await {
            Ok(Some(swap)) => Ok(swap),
            Ok(None) => Ok(Selection::Exact(exact)),
            Err(error) => {
                tracing::debug!(mint = %self.mint, %error, "proofs are sent as they are");
                Ok(Selection::Exact(exact))
            }
        }
    }

    /// A swap that leaves whoever redeems a token more than these proofs do, or for longer, if there is
    /// one.
    async fn select_better_swap(
        &self,
        amount: u64,
        fee_mode: FeeMode,
        exact: &[Proof],
    ) -> Result<Option<Selection>> {
        let (unspent, _) = self.spendable().await?;
        let held = total(&unspent);
        let selected = self.select_for_swap(unspent, amount, fee_mode).await?;
        let Selection::Swap { inputs, fee } = &selected else { return Ok(None) };
        let keyset = self.active_keyset().await?;
        let (amounts, sent_outputs) = swap_outputs(&keyset, amount, fee_mode, inputs, *fee)?;
        let sent = amounts.get(..sent_outputs).unwrap_or_default();
        let ppk = keyset.info.input_fee_ppk.saturating_mul(tables::length(sent));
        let (spent, borne) = match fee_mode {
            FeeMode::OnTop { reserve } => (amount.saturating_add(*fee).saturating_add(reserve), 0),
            FeeMode::FromAmount => (amount, *fee),
        };
        let is_better = self.is_any_ending(exact).await
            || borne.saturating_add(ppk.div_ceil(1_000)) < self.fee(exact).await?;
        Ok((held >= spent && is_better).then_some(selected))
    }

    /// Selects the largest of these proofs, as many as it takes.
    async fn select_for_swap(
        &self,
        unspent: Proofs,
        amount: u64,
        fee_mode: FeeMode,
    ) -> Result<Selection> {
        let mut inputs: Proofs = Vec::new();
        for proof in unspent.into_iter().take(MAX_INPUTS) {
            inputs.push(proof);
            let fee = self.fee(&inputs).await?;
            let is_enough = match fee_mode {
                FeeMode::OnTop { .. } => total(&inputs) >= amount.saturating_add(fee),
                FeeMode::FromAmount => total(&inputs) >= amount && fee < amount,
            };
            if is_enough {
                return Ok(Selection::Swap { inputs, fee });
            }
        }
        Err(MintWalletError::InsufficientFunds { available: total(&inputs) })
    }

    /// Makes the token of a refund. Idempotent per purpose: the operation that was stored first
    /// decides, whatever the amount is now.
    pub(crate) async fn send_refund(
        &self,
        purpose: &Purpose,
        amount: RefundAmount,
    ) -> Result<SentToken> {
        let due = match amount {
            RefundAmount::LessFee(due) => due,
            RefundAmount::Whole { whole, due, reserve } => {
                if let Some(sent) = self.send_whole(purpose, whole.0, reserve.0).await? {
                    return Ok(sent);
                }
                due
            }
        };
        self.send(purpose, due.0, FeeMode::FromAmount).await
    }

    /// `None` if the wallet cannot spare it; then nothing is begun.
    async fn send_whole(
        &self,
        purpose: &Purpose,
        whole: u64,
        reserve: u64,
    ) -> Result<Option<SentToken>> {
        self.ensure_restored().await?;
        match self.send(purpose, whole, FeeMode::OnTop { reserve }).await {
            Ok(sent) => Ok(Some(sent)),
            // Begun, and nothing else is before that has ended, or others took what was selected.
            Err(error) if error.is_passing() => Err(error),
            Err(error) => {
                tracing::debug!(mint = %self.mint, %purpose, %error, "a refund is made without what was added");
                Ok(None)
            }
        }
    }

    /// Makes a token. Idempotent per purpose.
    pub(crate) async fn send(
        &self,
        purpose: &Purpose,
        amount: u64,
        fee_mode: FeeMode,
    ) -> Result<SentToken> {
        self.ensure_restored().await?;
        let latest = self.store.latest(purpose).await?;
        if latest.is_none_or(|latest| latest.state == OperationState::Failed) {
            for _ in 0..MAX_ATTEMPTS {
                match select_anew(|| self.try_send(purpose, amount, fee_mode)).await? {
                    Attempt::ProofsWereSpent => {}
                    Attempt::Ended(outcome) => {
                        let is_retryable = matches!(outcome, OperationOutcome::SpentElsewhere)
                            || self.prepare_retry(&outcome).await?;
                        if !is_retryable {
                            break;
                        }
                    }
                }
            }
        }
        match self.resume_latest(purpose).await? {
            OperationOutcome::Done(operation) => {
                Ok(SentToken { token: self.token(self.store.sent(purpose).await?), operation })
            }
            OperationOutcome::Unknown(reason) => Err(Box::new(reason).into()),
            OperationOutcome::Failed(Some(error)) => Err(error.into()),
            OperationOutcome::Failed(None) | OperationOutcome::SpentElsewhere => {
                Err(MintWalletError::Unfinished)
            }
        }
    }

    async fn try_send(&self, purpose: &Purpose, amount: u64, fee_mode: FeeMode) -> Result<Attempt> {
        let (selection, fee_mode) = match self.select_for_token(amount, fee_mode).await {
            // The fee would take all of it: an amount so small is sent whole.
            Err(MintWalletError::InsufficientFunds { .. }) if fee_mode == FeeMode::FromAmount => {
                let whole = FeeMode::OnTop { reserve: 0 };
                (self.select_for_token(amount, whole).await?, whole)
            }
            selection => (selection?, fee_mode),
        };
        match selection {
            Selection::Exact(proofs) => {
                self.send_exact(purpose, amount, fee_mode.reserve(), proofs).await
            }
            Selection::Swap { inputs, fee } => {
                self.send_swapped(purpose, amount, fee_mode, inputs, fee).await.map(Attempt::Ended)
            }
        }
    }

    async fn send_exact(
        &self,
        purpose: &Purpose,
        amount: u64,
        reserve: u64,
        proofs: Proofs,
    ) -> Result<Attempt> {
        let states = self.states(&proofs).await?;
        let spent: Proofs = proofs
            .iter()
            .zip(&states)
            .filter(|(_, state)| **state == State::Spent)
            .map(|(proof, _)| proof.clone())
            .collect();
        if !spent.is_empty() {
            let sat = total(&spent);
            tracing::error!(mint = %self.mint, sat, "another program has spent proofs of this wallet");
            self.store.write_off(&self.mint, spent).await?;
            return Ok(Attempt::ProofsWereSpent);
        }
        let data = OperationData { sent: amount, reserve, ..OperationData::default() };
        let operation = Operation::new(purpose.clone(), &self.mint, data);
        let operation = self.store.send_unchanged(operation, proofs).await?;
        self.resume(operation).await.map(Attempt::Ended)
    }

    async fn send_swapped(
        &self,
        purpose: &Purpose,
        amount: u64,
        fee_mode: FeeMode,
        inputs: Proofs,
        fee: u64,
    ) -> Result<OperationOutcome> {
        let keyset = self.active_keyset().await?;
        let (amounts, sent_outputs) = swap_outputs(&keyset, amount, fee_mode, &inputs, fee)?;
        let data = OperationData {
            inputs: inputs.clone(),
            has_own_inputs: true,
            keyset: Some(keyset.info.id),
            amounts,
            sent_outputs,
            reserve: fee_mode.reserve(),
            ..OperationData::default()
        };
        let operation = Operation::new(purpose.clone(), &self.mint, data);
        match self.begin(operation, inputs).await? {
            Some(operation) => self.perform_swap(&operation).await,
            None => self.resume_latest(purpose).await,
        }
    }

    /// The most that one request can spend of what exceeds `kept`.
    pub(crate) async fn max_spendable(&self, kept: u64) -> Result<u64> {
        let (unspent, _) = self.spendable().await?;
        let of_request = total(unspent.get(..MAX_INPUTS).unwrap_or(&unspent));
        Ok(total(&unspent).saturating_sub(kept).min(of_request))
    }

    /// Whether a token that was sent has been redeemed, in whole or in part.
    pub(crate) async fn is_redeemed(&self, purpose: &Purpose) -> Result<bool> {
        let proofs = self.store.sent(purpose).await?;
        if proofs.is_empty() {
            return Ok(true);
        }
        let states = self.states(&proofs).await?;
        Ok(states.contains(&State::Spent))
    }
}

/// Makes an attempt, and another one with other proofs as long as others take those that it has
/// selected.
pub(crate) async fn select_anew<T, F>(attempt: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for _ in 0..MAX_SELECTIONS {
        match attempt().await {
            Err(MintWalletError::ProofsTaken) => {}
            ended => return ended,
        }
    }
    Err(MintWalletError::ProofsTaken)
}

impl WalletStore {
    /// Sends these proofs as they are. Returns the operation that has sent for this purpose:
    /// another replica may have been faster.
    async fn send_unchanged(&self, mut operation: Operation, proofs: Proofs) -> Result<Operation> {
        operation.state = OperationState::Done;
        operation.delta = signed(operation.data.sent).saturating_neg();
        let send = move |transaction: &mut dyn Transaction| {
            let latest = tables::latest_operation(transaction, &operation.purpose)?;
            if let Some(latest) = latest.filter(|latest| latest.state != OperationState::Failed) {
                return Ok(latest);
            }
            let mut operation = operation.clone();
            let data = &operation.data;
            if !can_spare(transaction, &operation.mint, data.sent, data.reserve)? {
                return Err(MintWalletError::NotSpared);
            }
            if !tables::are_unspent(transaction, &proofs)? {
                return Err(MintWalletError::ProofsTaken);
            }
            tables::insert_operation(transaction, &mut operation)?;
            let (state, holder) = (ProofState::PendingSpent, operation.purpose.to_string());
            tables::assign_proofs(transaction, &proofs, state, &holder)?;
            Ok(operation)
        };
        self.database.transact(send).await
    }
}

/// Proofs whose sum is the amount, from the largest to the smallest; `None` if there are none, or too
/// many for one request.
fn exact_proofs(unspent: &[Proof], amount: u64) -> Option<Proofs> {
    let mut exact = Vec::new();
    let mut missing = amount;
    for proof in unspent.iter().filter(|proof| proof.amount.to_u64() > 0) {
        if let Some(left) = missing.checked_sub(proof.amount.to_u64()) {
            exact.push(proof.clone());
            missing = left;
        }
    }
    (missing == 0 && exact.len() <= MAX_INPUTS).then_some(exact)
}

/// Whether there are no more proofs than the amount has in powers of two.
fn is_few(proofs: &[Proof], amount: u64) -> bool {
    u32::try_from(proofs.len()).is_ok_and(|proofs| proofs <= amount.count_ones())
}

/// The amounts of a swap's outputs, and how many of them, from the first, are sent.
fn swap_outputs(
    keyset: &ActiveKeyset,
    amount: u64,
    fee_mode: FeeMode,
    inputs: &[Proof],
    fee: u64,
) -> Result<(Vec<u64>, usize)> {
    let rest = total(inputs).saturating_sub(amount);
    let (sent, change) = match fee_mode {
        FeeMode::OnTop { .. } => (amount, rest.saturating_sub(fee)),
        FeeMode::FromAmount => (amount.saturating_sub(fee), rest),
    };
    let mut amounts = split(sent, &keyset.keys, Spender::Wallet)?;
    let sent_outputs = amounts.len();
    amounts.extend(split(change, &keyset.keys, Spender::Wallet)?);
    Ok((amounts, sent_outputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeMint, OneKey};
    use crate::wallet_store::{BeginResult, NextCounter, RestoredProof};
    use paygress_core::model::ids::OrderId;
    use std::sync::Arc;

    fn refund() -> Purpose {
        Purpose::Refund { order: OrderId::random() }
    }

    /// At which nothing is spent, and nothing was signed.
    async fn mint_of_one_key() -> (Arc<OneKey>, FakeMint) {
        let key = Arc::new(OneKey::new());
        let answers = Arc::clone(&key);
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" => answers.keysets(0),
            "/v1/restore" => OneKey::none_signed(),
            "/v1/checkstate" => OneKey::unspent(body),
            _ => answers.keys(),
        });
        (key, mint.await)
    }

    /// Gives a wallet so many proofs of this key.
    async fn fill(wallet: &MintWallet, key: &OneKey, count: u32) {
        let found =
            (0..count).map(|counter| RestoredProof { counter, proof: key.proof() }).collect();
        let counter = NextCounter { keyset: key.keyset.id, next: count };
        wallet.store.add_restored(&wallet.mint, found, counter).await.unwrap();
    }

    #[tokio::test]
    async fn refunds_that_are_made_at_once_select_others_where_their_proofs_are_taken() {
        const REFUNDS: usize = 12;
        let (key, mint) = mint_of_one_key().await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        fill(&wallet, &key, 20).await;
        let purposes: Vec<Purpose> = (0..REFUNDS).map(|_| refund()).collect();
        let sends = purposes.iter().map(|purpose| wallet.send(purpose, 1, FeeMode::FromAmount));
        for sent in futures::future::join_all(sends).await {
            assert_eq!(sent.map(|sent| sent.operation.data.sent).unwrap(), 1);
        }
        let unspent = wallet.store.unspent(&wallet.mint).await.unwrap();
        assert_eq!(unspent.len(), 20 - REFUNDS);
        // Nor is a swap begun with proofs that are taken.
        for is_begun in [true, false] {
            let inputs = unspent[..2].to_vec();
            let data = OperationData {
                inputs: inputs.clone(),
                has_own_inputs: true,
                keyset: Some(key.keyset.id),
                amounts: vec![1, 1],
                ..OperationData::default()
            };
            let operation = Operation::new(refund(), &wallet.mint, data);
            match wallet.begin(operation, inputs).await {
                Ok(begun) => assert!(is_begun && begun.is_some()),
                Err(error) => {
                    assert!(!is_begun && matches!(error, MintWalletError::ProofsTaken), "{error}");
                }
            }
        }
    }

    /// Each has found out that the wallet can spare its refund, and has selected other proofs.
    #[tokio::test]
    async fn what_can_be_spared_for_one_refund_is_not_spared_by_two_replicas() {
        const RESERVE: u64 = 5;
        let (key, mint) = mint_of_one_key().await;
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (mint.wallet(directory.path()).await, mint.wallet(directory.path()).await);
        fill(&a, &key, 10).await;
        let unspent = a.store.unspent(&a.mint).await.unwrap();
        let (of_a, of_b) = (unspent[..3].to_vec(), unspent[3..6].to_vec());
        let sent = a.send_exact(&refund(), 3, RESERVE, of_a).await;
        assert!(matches!(sent, Ok(Attempt::Ended(OperationOutcome::Done(_)))));
        let sent = b.send_exact(&refund(), 3, RESERVE, of_b).await;
        assert!(matches!(sent, Err(MintWalletError::NotSpared)), "7 are left, and 5 are others'");
        // By a swap: one is sent, and one is the mint's.
        for (wallet, inputs, expected) in [(&a, &unspent[3..6], true), (&b, &unspent[6..], false)] {
            let data = OperationData {
                inputs: inputs.to_vec(),
                has_own_inputs: true,
                keyset: Some(key.keyset.id),
                amounts: vec![1; inputs.len() - 1],
                sent_outputs: 1,
                reserve: RESERVE,
                ..OperationData::default()
            };
            assert_eq!(data.cost(), 2);
            let operation = Operation::new(refund(), &wallet.mint, data);
            let begun = wallet.store.begin(operation, inputs.to_vec(), None).await.unwrap();
            assert_eq!(matches!(begun, BeginResult::Begun(_)), expected);
            assert_eq!(matches!(begun, BeginResult::NotSpared), !expected);
        }
    }
}
