//! Proofs, derivation counters and operations, on disk.
//!
//! An operation is stored before its request is made, with all that is needed to repeat the request
//! unchanged (its inputs, and the derivation counters of its outputs), and it stays open until the
//! mint has reported how it ended. So a lost response is resolved, never guessed.
//!
//! A mint's balance is the sum of `delta` over its operations that have ended: the audit relies on
//! it.

use crate::counters::WINDOW;
use crate::operation::{
    MintBalance, Operation, OperationData, OperationState, ProofState, held_at, total,
};
use crate::purpose::Purpose;
use crate::seed::SeedOrigin;
use crate::tables::{self, EndResult, Result};
use cdk::nuts::{Id, Proof, Proofs};
use paygress_core::every_nth::EveryNth;
use paygress_core::limits;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::Sat;
use paygress_store::db::{Database, DialectSql, Schema, SqliteError, Transaction};
use paygress_store::dialect_sql;
use std::path::Path;
use std::sync::Arc;

/// Forward only: a released step is never edited, the next one is added.
const STEPS: &[DialectSql] = &[
    dialect_sql!("wallet_1"),
    dialect_sql!("wallet_2"),
    dialect_sql!(both "wallet_3"),
    dialect_sql!("wallet_4", both "wallet_4_rest"),
];

/// The wallet's tables in a database. Cheap to clone.
#[derive(Clone)]
pub struct WalletStore {
    pub(crate) database: Database,
    /// When failed operations are forgotten, by how many there are.
    pub(crate) failures: Arc<EveryNth>,
}

/// An unspent proof that a restore has found.
#[derive(Clone)]
pub(crate) struct RestoredProof {
    pub(crate) counter: u32,
    pub(crate) proof: Proof,
}

/// The first derivation counter of a keyset that the mint has not signed.
pub(crate) struct NextCounter {
    pub(crate) keyset: Id,
    pub(crate) next: u32,
}

/// Whether an operation was stored.
pub(crate) enum BeginResult {
    Begun(Box<Operation>),
    /// An operation of its purpose is open or done, or nothing more is begun for it.
    AlreadyBegun,
    /// Open operations have all the derivation counters that may be used.
    CountersReserved,
    /// The mint's balance would exceed its limit.
    BalanceLimit,
    /// It would, if all open operations were done.
    BalanceBusy,
    /// Less would be left than it has to leave for others.
    NotSpared,
    /// Another operation has taken one of its own inputs since they were selected.
    ProofsTaken,
}

/// The derivation counter after an operation's outputs.
fn end_of_counters(data: &OperationData) -> u64 {
    u64::from(data.first_counter).saturating_add(tables::length(&data.amounts))
}

/// Moves the counter after an operation's signed outputs, unless a restore does not reach them:
/// version 0.1.0 has left operations open so far above, and the next outputs are made below.
fn advance_counter(
    transaction: &mut dyn Transaction,
    data: &OperationData,
    signed_outputs: u64,
) -> Result<()> {
    let Some(keyset) = data.keyset.filter(|_| signed_outputs > 0) else { return Ok(()) };
    let first = u64::from(data.first_counter);
    if first > tables::next_counter(transaction, keyset)?.saturating_add(WINDOW.into()) {
        return Ok(());
    }
    tables::advance_counter(transaction, keyset, first.saturating_add(signed_outputs))
}

pub(crate) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Why this operation is not begun, if the mint's balance could exceed its limit by it.
fn exceeds(
    transaction: &mut dyn Transaction,
    operation: &Operation,
    max_balance: Option<Sat>,
) -> Result<Option<BeginResult>> {
    let (Purpose::Receive { .. }, Some(limit)) = (&operation.purpose, max_balance) else {
        return Ok(None);
    };
    let held = held_at(&tables::balances(transaction)?, &operation.mint);
    let with_own = held.plus(Sat(total(&operation.data.inputs)));
    if with_own > limit {
        return Ok(Some(BeginResult::BalanceLimit));
    }
    let open = tables::open_operations(transaction, &operation.mint)?;
    // Whoever invents tokens keeps nobody out whose token cannot be invented.
    let is_counted = |open: &&Operation| {
        !open.data.has_own_inputs
            && (open.data.has_proven_inputs || !operation.data.has_proven_inputs)
    };
    let counted = open.iter().filter(is_counted);
    let with_open = counted.fold(with_own, |sum, open| sum.plus(Sat(total(&open.data.inputs))));
    Ok((with_open > limit).then_some(BeginResult::BalanceBusy))
}

/// Whether so much can be spent at this mint, and `reserve` is left of what is unspent there. Every
/// process that spends sees what the others have taken.
pub(crate) fn can_spare(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    cost: u64,
    reserve: u64,
) -> Result<bool> {
    if reserve == 0 {
        return Ok(true);
    }
    let balances = tables::balances(transaction)?;
    let available = balances.iter().find(|balance| balance.mint == *mint);
    let available = available.map_or(0, |balance| balance.available.0);
    Ok(available >= cost.saturating_add(reserve))
}

/// Stores an operation that is done already, outside of any request.
fn insert_done(
    transaction: &mut dyn Transaction,
    purpose: Purpose,
    mint: &MintUrl,
    delta: i64,
    data: OperationData,
) -> Result<()> {
    let mut operation = Operation::new(purpose, mint, data);
    (operation.state, operation.delta) = (OperationState::Done, delta);
    tables::insert_operation(transaction, &mut operation)
}

impl WalletStore {
    /// For [`Database::postgres`].
    pub const SCHEMA: Schema = Schema { name: "purse", steps: STEPS };

    /// `database` was opened with [`WalletStore::SCHEMA`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, failures: Arc::new(EveryNth::new(limits::REFUSED_CHECK_EVERY)) }
    }

    /// Opens a SQLite file, which the service and the operator's commands may use at the same time.
    ///
    /// # Errors
    /// [`SqliteError`], which says what to do.
    pub async fn sqlite(path: &Path) -> std::result::Result<Self, SqliteError> {
        Database::sqlite_shared(path, Self::SCHEMA).await.map(Self::new)
    }

    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.database.transact(work).await
    }

    pub(crate) async fn latest(&self, purpose: &Purpose) -> Result<Option<Operation>> {
        let purpose = purpose.clone();
        self.transact(move |transaction| tables::latest_operation(transaction, &purpose)).await
    }

    /// The open operations of a mint, the oldest first.
    pub(crate) async fn open_operations(&self, mint: &MintUrl) -> Result<Vec<Operation>> {
        let mint = mint.clone();
        self.transact(move |transaction| tables::open_operations(transaction, &mint)).await
    }

    /// Every operation that is done, open, or failed at a loss. Inputs of ended ones are not kept.
    pub(crate) async fn operations(&self) -> Result<Vec<Operation>> {
        self.transact(tables::relevant_operations).await
    }

    /// Stores an open operation and reserves its counters and its own inputs. `max_balance` limits
    /// what customers pay in at its mint.
    pub(crate) async fn begin(
        &self,
        operation: Operation,
        own_inputs: Proofs,
        max_balance: Option<Sat>,
    ) -> Result<BeginResult> {
        self.transact(move |transaction| {
            let latest = tables::latest_operation(transaction, &operation.purpose)?;
            let is_final = |latest: &Operation| {
                latest.state != OperationState::Failed || latest.data.is_closed
            };
            if latest.as_ref().is_some_and(is_final) {
                return Ok(BeginResult::AlreadyBegun);
            }
            if let Some(exceeded) = exceeds(transaction, &operation, max_balance)? {
                return Ok(exceeded);
            }
            let data = &operation.data;
            if !can_spare(transaction, &operation.mint, data.cost(), data.reserve)? {
                return Ok(BeginResult::NotSpared);
            }
            if !tables::are_unspent(transaction, &own_inputs)? {
                return Ok(BeginResult::ProofsTaken);
            }
            let mut operation = operation.clone();
            operation.data.note_request();
            if let Some(keyset) = operation.data.keyset {
                // Other outputs than those of the last attempt, which the mint may have refused.
                let last = latest.filter(|latest| latest.data.keyset == Some(keyset));
                let from = last.map_or(0, |last| end_of_counters(&last.data));
                match tables::free_counters(transaction, &operation.data, keyset, from)? {
                    Some(first) => operation.data.first_counter = first,
                    None => return Ok(BeginResult::CountersReserved),
                }
            }
            tables::insert_operation(transaction, &mut operation)?;
            let reserved = ProofState::Reserved;
            tables::assign_proofs(transaction, &own_inputs, reserved, &operation.id)?;
            Ok(BeginResult::Begun(Box::new(operation)))
        })
        .await
    }

    /// Stores that the request of an operation is about to be made once more. `None` if it has ended.
    pub(crate) async fn renew(&self, operation: &Operation) -> Result<Option<Operation>> {
        let mut renewed = operation.clone();
        renewed.data.note_request();
        self.transact(move |transaction| {
            let is_open = tables::update_operation(transaction, &renewed)?;
            Ok(is_open.then(|| renewed.clone()))
        })
        .await
    }

    /// Ends an operation that the mint has done. `outputs` are what it signed, in order.
    pub(crate) async fn complete(
        &self,
        operation: &Operation,
        outputs: Proofs,
        fee: u64,
        paid: u64,
    ) -> Result<Operation> {
        let mut operation = operation.clone();
        let signed_outputs = tables::length(&outputs);
        let (sent, kept) =
            outputs.split_at_checked(operation.data.sent_outputs).unwrap_or((&outputs, &[]));
        let (sent, kept) = (sent.to_vec(), kept.to_vec());
        let own_inputs =
            if operation.data.has_own_inputs { total(&operation.data.inputs) } else { 0 };
        operation.state = OperationState::Done;
        operation.data.sent = total(&sent).saturating_add(paid);
        operation.data.received = total(&kept);
        operation.data.fee = fee;
        operation.delta = signed(operation.data.received).saturating_sub(signed(own_inputs));
        let ended = operation.clone();
        self.transact(move |transaction| {
            if tables::end_operation(transaction, &ended)? == EndResult::AlreadyEnded {
                return Ok(());
            }
            if ended.data.has_own_inputs {
                for input in &ended.data.inputs {
                    tables::delete_proof(transaction, input)?;
                }
            }
            advance_counter(transaction, &ended.data, signed_outputs)?;
            let holder = ended.purpose.to_string();
            for proof in &sent {
                let state = ProofState::PendingSpent;
                tables::put_proof(transaction, &ended.mint, proof, state, Some(&holder))?;
            }
            for proof in &kept {
                tables::put_proof(transaction, &ended.mint, proof, ProofState::Unspent, None)?;
            }
            Ok(())
        })
        .await?;
        Ok(operation)
    }

    pub(crate) async fn unspent(&self, mint: &MintUrl) -> Result<Proofs> {
        let mint = mint.clone();
        self.transact(move |transaction| tables::unspent_proofs(transaction, &mint)).await
    }

    /// The proofs of the token that was sent for this purpose, until [`WalletStore::forget_sent`].
    pub(crate) async fn sent(&self, purpose: &Purpose) -> Result<Proofs> {
        let purpose = purpose.clone();
        self.transact(move |transaction| tables::sent_proofs(transaction, &purpose)).await
    }

    /// The token that was sent for this purpose is redeemed.
    pub(crate) async fn forget_sent(&self, purpose: &Purpose) -> Result<()> {
        let purpose = purpose.clone();
        self.transact(move |transaction| tables::delete_sent_proofs(transaction, &purpose)).await
    }

    /// Whether one of these is in the wallet, or in a token of it that is not redeemed.
    pub(crate) async fn has_any(&self, ys: Vec<String>) -> Result<bool> {
        self.transact(move |transaction| tables::has_any_proof(transaction, &ys)).await
    }

    pub(crate) async fn balances(&self) -> Result<Vec<MintBalance>> {
        self.transact(tables::balances).await
    }

    /// Whether the seed's use at this mint is known here. Adds a mint that is new to the wallet: a
    /// seed that was just created has not been used anywhere.
    pub(crate) async fn is_restored(&self, mint: &MintUrl, seed: SeedOrigin) -> Result<bool> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            if let Some(restored) = tables::mint_is_restored(transaction, &mint)? {
                return Ok(restored);
            }
            let restored = seed == SeedOrigin::Created;
            tables::put_mint(transaction, &mint, restored)?;
            Ok(restored)
        })
        .await
    }

    /// The counter after the highest that a mint is known to have signed.
    pub(crate) async fn next_counter(&self, keyset: Id) -> Result<u64> {
        self.transact(move |transaction| tables::next_counter(transaction, keyset)).await
    }

    /// The seed's use at this mint is known.
    pub(crate) async fn set_restored(&self, mint: &MintUrl) -> Result<()> {
        let mint = mint.clone();
        self.transact(move |transaction| tables::put_mint(transaction, &mint, true)).await
    }

    /// Adds unspent proofs that a restore has found at the mint that owns their keyset, and moves
    /// its counter. Outputs of open operations are left to them. Returns the value of the proofs
    /// that are new there: another mint's wallet may have had them.
    pub(crate) async fn add_restored(
        &self,
        mint: &MintUrl,
        found: Vec<RestoredProof>,
        counter: NextCounter,
    ) -> Result<u64> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            let open = tables::open_operations(transaction, &mint)?;
            let is_awaited = |found: &RestoredProof| {
                open.iter().any(|operation| {
                    let data = &operation.data;
                    let count = u32::try_from(data.amounts.len()).unwrap_or(u32::MAX);
                    let counters = data.first_counter..data.first_counter.saturating_add(count);
                    data.keyset == Some(found.proof.keyset_id) && counters.contains(&found.counter)
                })
            };
            let mut added: u64 = 0;
            for found in found.iter().filter(|found| !is_awaited(found)) {
                let (proof, state) = (&found.proof, ProofState::Unspent);
                let amount = proof.amount.to_u64();
                if tables::insert_proof(transaction, &mint, proof, state, None)? {
                    added = added.saturating_add(amount);
                } else if let Some(other) = tables::move_proof(transaction, &mint, proof)? {
                    added = added.saturating_add(amount);
                    let (data, delta) = (OperationData::default(), signed(amount).saturating_neg());
                    insert_done(transaction, Purpose::WriteOff, &other, delta, data)?;
                }
            }
            tables::advance_counter(transaction, counter.keyset, u64::from(counter.next))?;
            if added > 0 {
                let data = OperationData { received: added, ..OperationData::default() };
                insert_done(transaction, Purpose::Restore, &mint, signed(added), data)?;
            }
            Ok(added)
        })
        .await
    }

    /// Removes proofs that another program has spent, but for those that an operation has by now.
    /// Returns their value.
    pub(crate) async fn write_off(&self, mint: &MintUrl, spent: Proofs) -> Result<u64> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            let mut removed: u64 = 0;
            for proof in &spent {
                if tables::delete_unspent(transaction, proof)? {
                    removed = removed.saturating_add(proof.amount.to_u64());
                }
            }
            if removed > 0 {
                let (data, delta) = (OperationData::default(), signed(removed).saturating_neg());
                insert_done(transaction, Purpose::WriteOff, &mint, delta, data)?;
            }
            Ok(removed)
        })
        .await
    }

    /// The mints that the wallet has ever used.
    pub(crate) async fn mints(&self) -> Result<Vec<MintUrl>> {
        self.transact(tables::mints).await
    }

    /// Brings URLs of mints that an earlier version stored to their canonical form.
    pub(crate) async fn rename_mints(&self) -> Result<()> {
        self.transact(tables::rename_mints).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdk::Amount;
    use cdk::nuts::SecretKey;
    use cdk::secret::Secret;
    use paygress_core::model::ids::OrderId;
    use paygress_core::model::units::UnixTime;

    #[tokio::test]
    async fn an_operation_that_another_process_requests_meanwhile_does_not_fail() {
        let directory = tempfile::tempdir().unwrap();
        let store = WalletStore::sqlite(&directory.path().join("wallet.sqlite")).await.unwrap();
        let mint = MintUrl::parse("https://mint.example").unwrap();
        let purpose = Purpose::Receive { order: OrderId::random() };
        let operation = Operation::new(purpose, &mint, OperationData::default());
        let begun = store.begin(operation, Vec::new(), None).await.unwrap();
        let BeginResult::Begun(begun) = begun else { panic!("not begun") };
        assert!(begun.data.requested_at.is_some());
        let mut read = *begun;
        read.data.requested_at = Some(UnixTime(1));
        assert_eq!(store.fail(&read, &[]).await.unwrap(), EndResult::Renewed);
        let renewed = store.renew(&read).await.unwrap().unwrap();
        assert_eq!(store.fail(&read, &[]).await.unwrap(), EndResult::Renewed);
        assert_eq!(store.fail(&renewed, &[]).await.unwrap(), EndResult::Ended);
        // It has ended: nothing is requested any more.
        assert!(store.renew(&renewed).await.unwrap().is_none());
        assert_eq!(store.fail(&renewed, &[]).await.unwrap(), EndResult::AlreadyEnded);
    }

    #[tokio::test]
    async fn an_operation_that_ends_beyond_a_restores_reach_leaves_the_counter_below() {
        let directory = tempfile::tempdir().unwrap();
        let store = WalletStore::sqlite(&directory.path().join("wallet.sqlite")).await.unwrap();
        let mint = MintUrl::parse("https://mint.example").unwrap();
        let keyset: Id = "009a1f293253e41e".parse().unwrap();
        let beyond = WINDOW + 1;
        // As version 0.1.0 has left it, and one that is made now.
        for (first_counter, next) in [(beyond, 0), (0, 1), (beyond, u64::from(beyond) + 1)] {
            let data =
                OperationData { keyset: Some(keyset), first_counter, ..OperationData::default() };
            let operation = Operation::new(Purpose::Restore, &mint, data);
            let stored = store.transact(move |transaction| {
                let mut operation = operation.clone();
                tables::insert_operation(transaction, &mut operation)?;
                Ok(operation)
            });
            let operation = stored.await.unwrap();
            let (c, secret) = (SecretKey::generate().public_key(), Secret::generate());
            let output = Proof::new(Amount::from(1), keyset, secret, c);
            store.complete(&operation, vec![output], 0, 0).await.unwrap();
            assert_eq!(store.next_counter(keyset).await.unwrap(), next, "{first_counter}");
        }
    }
}
