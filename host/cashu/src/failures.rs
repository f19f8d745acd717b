//! Operations that were not done. Senders of worthless tokens can cause any number of them: their
//! rows are small, and only so many are kept.

use crate::operation::{Operation, OperationData, OperationState, total};
use crate::purpose::Purpose;
use crate::tables::{self, EndResult, Result};
use crate::wallet_store::{WalletStore, signed};
use cdk::nuts::{Proofs, State};
use paygress_core::limits;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::UnixTime;

impl WalletStore {
    /// Ends an operation that was not done. `input_states` are the mint's, in the inputs' order:
    /// own inputs that are spent are lost, the others are unspent again. One whose request another
    /// process has made since `operation` was read stays open.
    pub(crate) async fn fail(
        &self,
        operation: &Operation,
        input_states: &[State],
    ) -> Result<EndResult> {
        let mut ended = operation.clone();
        ended.state = OperationState::Failed;
        ended.data.spent_elsewhere = input_states.contains(&State::Spent);
        let inputs = operation.data.inputs.iter().zip(input_states);
        let lost: Proofs = inputs
            .filter(|(_, state)| **state == State::Spent)
            .map(|(proof, _)| proof.clone())
            .collect();
        if operation.data.has_own_inputs {
            ended.delta = signed(total(&lost)).saturating_neg();
        }
        let result = self
            .transact(move |transaction| {
                let stored = tables::operation(transaction, &ended.id)?;
                let open = stored.filter(|stored| stored.state == OperationState::Open);
                if open.is_some_and(|open| !open.data.has_request_of(&ended.data)) {
                    return Ok(EndResult::Renewed);
                }
                let result = tables::end_operation(transaction, &ended)?;
                if result == EndResult::Ended && ended.data.has_own_inputs {
                    for proof in &lost {
                        tables::delete_proof(transaction, proof)?;
                    }
                    tables::release_proofs(transaction, &ended.id)?;
                }
                Ok(result)
            })
            .await?;
        if self.failures.is_due()
            && let Err(error) = self.forget_failed().await
        {
            tracing::warn!(%error, "failed operations could not be forgotten yet");
        }
        Ok(result)
    }

    /// Stores that nothing more is begun for this purpose, whose order is about to be refused: another
    /// replica that had the order before may be about to begin. What is open or done for it, if
    /// there is something; then nothing is stored.
    pub(crate) async fn close(
        &self,
        purpose: &Purpose,
        mint: &MintUrl,
    ) -> Result<Option<Operation>> {
        let mut unbegun = Operation::new(purpose.clone(), mint, OperationData::default());
        (unbegun.state, unbegun.data.is_closed) = (OperationState::Failed, true);
        self.transact(move |transaction| {
            match tables::latest_operation(transaction, &unbegun.purpose)? {
                None => {
                    tables::insert_operation(transaction, &mut unbegun.clone())?;
                    Ok(None)
                }
                Some(mut failed) if failed.state == OperationState::Failed => {
                    failed.data.is_closed = true;
                    tables::update_operation(transaction, &failed)?;
                    Ok(None)
                }
                known => Ok(known),
            }
        })
        .await
    }

    /// Keeps as many failed operations as there is need of: one is kept for each refused order.
    pub(crate) async fn forget_failed(&self) -> Result<()> {
        let before = UnixTime::now().minus(limits::REFUSED_KEPT);
        self.transact(move |transaction| {
            tables::delete_failed_operations(transaction, before, limits::REFUSED_MOST)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet_store::BeginResult;
    use cdk::Amount;
    use cdk::nuts::{Id, Proof, SecretKey};
    use cdk::secret::Secret;
    use paygress_core::model::ids::OrderId;
    use paygress_store::db::DatabaseError;
    use paygress_store::db::testing::fast_directory;
    use tempfile::TempDir;

    async fn store() -> (WalletStore, TempDir) {
        let directory = fast_directory().unwrap();
        let store = WalletStore::sqlite(&directory.path().join("wallet.sqlite")).await.unwrap();
        (store, directory)
    }

    fn keyset() -> Id {
        "009a1f293253e41e".parse().unwrap()
    }

    fn order(number: u64) -> Purpose {
        Purpose::Receive { order: OrderId::parse(format!("{number:016x}")).unwrap() }
    }

    /// A token of an order that was received at this time, and that its mint has refused.
    async fn refused(store: &WalletStore, purpose: Purpose, at: u64, proofs: usize) -> Operation {
        let c = SecretKey::generate().public_key();
        let proof = || Proof::new(Amount::from(1), keyset(), Secret::generate(), c);
        let data = OperationData {
            inputs: (0..proofs).map(|_| proof()).collect(),
            keyset: Some(keyset()),
            amounts: vec![1],
            ..OperationData::default()
        };
        let mint = MintUrl::parse("https://mint.invalid").unwrap();
        let mut operation = Operation::new(purpose, &mint, data);
        operation.at = UnixTime(at);
        let begun = store.begin(operation, Vec::new(), None).await.unwrap();
        let BeginResult::Begun(operation) = begun else { panic!("it is not begun") };
        let states = vec![State::Unspent; proofs];
        assert_eq!(store.fail(&operation, &states).await.unwrap(), EndResult::Ended);
        *operation
    }

    async fn number(store: &WalletStore, statement: &'static str) -> i64 {
        let read = store.transact(move |transaction| {
            let row = transaction.first(statement, &[])?;
            row.ok_or_else(|| DatabaseError::failed("no row"))?.number()
        });
        read.await.unwrap()
    }

    async fn forget(store: &WalletStore, before: u64, most: u32) {
        let delete = store.transact(move |transaction| {
            tables::delete_failed_operations(transaction, UnixTime(before), most)
        });
        delete.await.unwrap();
    }

    #[tokio::test]
    async fn failed_operations_are_small_and_the_newest_are_kept() {
        let (store, _directory) = store().await;
        let begin = UnixTime::now().0;
        let at = |n: u64| begin.saturating_add(n);
        for n in 0..6 {
            refused(&store, order(n), at(n), 50).await;
        }
        let bytes = "SELECT max(length(id) + length(purpose) + length(mint) + length(body))
             FROM purse_operations";
        let bytes = number(&store, bytes).await;
        println!("a failed operation over 50 proofs: {bytes} bytes");
        assert!(bytes < 320, "{bytes} bytes");
        let count = "SELECT count(*) FROM purse_operations";
        forget(&store, 0, 6).await;
        assert_eq!(number(&store, count).await, 6);
        forget(&store, 0, 4).await;
        let oldest = number(&store, "SELECT min(at) FROM purse_operations").await;
        assert_eq!(u64::try_from(oldest).unwrap(), at(2));
        forget(&store, at(5), 4).await;
        assert_eq!(number(&store, count).await, 1, "the others are too old");
        // Another attempt has other outputs than the last, and a number of its own.
        let first = store.latest(&order(5)).await.unwrap().unwrap();
        let second = refused(&store, order(5), at(6), 1).await;
        assert_eq!((first.data.first_counter, second.data.first_counter), (0, 1));
        forget(&store, 0, 1).await;
        let third = refused(&store, order(5), at(7), 1).await;
        assert_eq!(third.id, format!("{} #000002", order(5)));
    }

    #[tokio::test]
    async fn of_two_requests_within_a_second_the_first_does_not_end_the_other() {
        let (store, _directory) = store().await;
        let mint = MintUrl::parse("https://mint.invalid").unwrap();
        let operation = Operation::new(order(0), &mint, OperationData::default());
        let begun = store.begin(operation, Vec::new(), None).await.unwrap();
        let BeginResult::Begun(mut read) = begun else { panic!("it is not begun") };
        let renewed = store.renew(&read).await.unwrap().unwrap();
        read.data.requested_at = renewed.data.requested_at;
        assert_eq!(store.fail(&read, &[]).await.unwrap(), EndResult::Renewed);
        assert_eq!(store.fail(&renewed, &[]).await.unwrap(), EndResult::Ended);
    }

    /// Nobody waits for the next look at the wallet.
    #[tokio::test]
    async fn a_flood_of_failures_forgets_the_old_ones() {
        let (store, _directory) = store().await;
        let last = u64::from(limits::REFUSED_CHECK_EVERY);
        let now = UnixTime::now().0;
        // The first looks at them, and the one after so many more.
        refused(&store, order(0), now, 1).await;
        refused(&store, order(1), 1, 1).await;
        for n in 2..last {
            refused(&store, order(n), now, 1).await;
        }
        assert!(store.latest(&order(1)).await.unwrap().is_some());
        refused(&store, order(last), now, 1).await;
        assert!(store.latest(&order(1)).await.unwrap().is_none());
        let left = number(&store, "SELECT count(*) FROM purse_operations").await;
        assert_eq!(u64::try_from(left), Ok(last));
    }
}
