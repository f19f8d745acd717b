//! The purse: proofs, counters and operations on disk.
//!
//! An operation is whatever changes what the purse holds. It is written before the mint is asked,
//! with all that is needed to ask again in the very same words (its inputs, and the place in the
//! seed that its outputs come from), and it stays open until the mint has told how it ended. So an
//! answer that was lost is asked for, never guessed.
//!
//! What the purse holds at a mint is the sum of `delta` over the mint's finished operations:
//! `audit` counts on it.

use cdk::nuts::{Id, Proof, Proofs};
use paygress_core::model::units::{MintUrl, UnixTime};
use paygress_store::db::{Database, DatabaseError, OpenError, Row, Schema, Transaction, Value};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Forward only: a released step is never edited, the next one is added.
const STEPS: &[&str] = &["
    CREATE TABLE purse_mints (
        url      TEXT PRIMARY KEY,
        restored INTEGER NOT NULL
    ) STRICT;

    -- The next place in the seed that was never used.
    CREATE TABLE purse_counters (
        keyset TEXT PRIMARY KEY,
        next   INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE purse_operations (
        id      TEXT PRIMARY KEY,
        purpose TEXT NOT NULL,
        mint    TEXT NOT NULL,
        state   TEXT NOT NULL,
        at      INTEGER NOT NULL,
        delta   INTEGER NOT NULL,
        body    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX purse_operations_purpose ON purse_operations (purpose);
    CREATE INDEX purse_operations_open ON purse_operations (mint) WHERE state = 'open';

    -- `unspent`: ours to spend. `held`: an open operation's. `given`: in a token that was handed out.
    CREATE TABLE purse_proofs (
        y      TEXT PRIMARY KEY,
        mint   TEXT NOT NULL,
        amount INTEGER NOT NULL,
        state  TEXT NOT NULL,
        holder TEXT,
        proof  TEXT NOT NULL
    ) STRICT;
    CREATE INDEX purse_proofs_state ON purse_proofs (mint, state, amount);
    CREATE INDEX purse_proofs_holder ON purse_proofs (holder);
"];

/// How an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// The mint has not told how it ended.
    Open,
    /// It was done.
    Done,
    /// It was not, for certain, and will not be.
    Failed,
}

impl OperationState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        [Self::Open, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| DatabaseError::Unreadable(format!("an operation in state {text:.20}")))
    }
}

/// What an operation does, and all that is needed to do it again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OperationData {
    /// What goes to the mint.
    pub(crate) inputs: Proofs,
    /// Whether these are the purse's own.
    pub(crate) own: bool,
    /// What comes back: from this place in the seed on, these amounts. A payment's change has
    /// amounts of zero.
    pub(crate) keyset: Option<Id>,
    pub(crate) start: u32,
    pub(crate) amounts: Vec<u64>,
    /// How many of them, from the first, are to be given away.
    pub(crate) given: usize,
    /// A Lightning payment's quote.
    pub(crate) quote: Option<String>,
    /// Why it failed.
    pub(crate) spent_elsewhere: bool,
    /// What was given away, or paid, once it is done.
    pub(crate) gave: u64,
    /// What the mint kept, once it is done.
    pub(crate) fee: u64,
    /// What the purse got, once it is done.
    pub(crate) got: u64,
}

/// Something that changes what the purse holds.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) purpose: String,
    pub(crate) mint: MintUrl,
    pub(crate) state: OperationState,
    pub(crate) at: UnixTime,
    pub(crate) delta: i64,
    pub(crate) work: OperationData,
}

impl Operation {
    pub(crate) fn new(purpose: &str, mint: &MintUrl, work: OperationData) -> Self {
        Self {
            id: String::new(),
            purpose: purpose.to_owned(),
            mint: mint.clone(),
            state: OperationState::Open,
            at: UnixTime::now(),
            delta: 0,
            work,
        }
    }
}

/// The purse.
#[derive(Clone)]
pub struct WalletStore {
    database: Database,
}

type Result<T> = std::result::Result<T, DatabaseError>;

/// What proofs are worth together.
pub(crate) fn total(proofs: &[Proof]) -> u64 {
    proofs.iter().fold(0, |sum, proof| sum.saturating_add(proof.amount.to_u64()))
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn json<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_string(value)
        .map(Value::Text)
        .map_err(|error| DatabaseError::Unreadable(error.to_string()))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    // The error would quote what it met, and that is money.
    serde_json::from_str(text).map_err(|_| {
        DatabaseError::Unreadable("the purse holds what this version cannot read".to_owned())
    })
}

fn y_of(proof: &Proof) -> Result<String> {
    proof.y().map(|y| y.to_hex()).map_err(|error| DatabaseError::Unreadable(error.to_string()))
}

const OPERATION: &str = "SELECT id, purpose, mint, state, at, delta, body FROM purse_operations";

fn read_operation(mut row: Row) -> Result<Operation> {
    Ok(Operation {
        id: row.text()?,
        purpose: row.text()?,
        mint: MintUrl(row.text()?),
        state: OperationState::parse(&row.text()?)?,
        at: UnixTime(row.amount()?),
        delta: row.number()?,
        work: parse(&row.text()?)?,
    })
}

fn find(transaction: &mut dyn Transaction, rest: &str, values: &[Value]) -> Result<Vec<Operation>> {
    transaction
        .query(&format!("{OPERATION} {rest}"), values)?
        .into_iter()
        .map(read_operation)
        .collect()
}

/// The last operation of this purpose.
pub(crate) fn latest(
    transaction: &mut dyn Transaction,
    purpose: &str,
) -> Result<Option<Operation>> {
    Ok(find(transaction, "WHERE purpose = ?1 ORDER BY id DESC LIMIT 1", &[purpose.into()])?
        .into_iter()
        .next())
}

/// Writes a new operation, numbered after those of the same purpose.
pub(crate) fn insert(transaction: &mut dyn Transaction, operation: &mut Operation) -> Result<()> {
    let count = transaction.first(
        "SELECT count(*) FROM purse_operations WHERE purpose = ?1",
        &[Value::from(&operation.purpose)],
    )?;
    let number = count.map(|mut row| row.number()).transpose()?.unwrap_or_default();
    operation.id = format!("{} #{number:06}", operation.purpose);
    let statement = "INSERT INTO purse_operations (id, purpose, mint, state, at, delta, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values = [
        Value::from(&operation.id),
        Value::from(&operation.purpose),
        Value::from(&operation.mint.0),
        operation.state.as_str().into(),
        operation.at.0.into(),
        operation.delta.into(),
        json(&operation.work)?,
    ];
    transaction.execute(statement, &values).map(drop)
}

/// Ends an operation; `false` when somebody else has. What was done was done, whoever had given it
/// up.
fn end(transaction: &mut dyn Transaction, operation: &Operation) -> Result<bool> {
    let statement = match operation.state {
        OperationState::Done => {
            "UPDATE purse_operations SET state = ?2, delta = ?3, body = ?4 WHERE id = ?1 AND state <> 'done'"
        }
        _ => {
            "UPDATE purse_operations SET state = ?2, delta = ?3, body = ?4 WHERE id = ?1 AND state = 'open'"
        }
    };
    // What was spent is worth nothing to anybody any more, and need not be kept.
    let work = OperationData { inputs: Vec::new(), ..operation.work.clone() };
    let values = [
        Value::from(&operation.id),
        operation.state.as_str().into(),
        operation.delta.into(),
        json(&work)?,
    ];
    Ok(transaction.execute(statement, &values)? == 1)
}

/// Writes a proof as it is now, whatever it was before.
fn keep(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    proof: &Proof,
    state: &str,
    holder: Option<&str>,
) -> Result<()> {
    forget(transaction, proof)?;
    put(transaction, mint, proof, state, holder).map(drop)
}

/// Removes a proof: it is spent.
pub(crate) fn forget(transaction: &mut dyn Transaction, proof: &Proof) -> Result<()> {
    transaction
        .execute("DELETE FROM purse_proofs WHERE y = ?1", &[Value::from(y_of(proof)?)])
        .map(drop)
}

/// Writes a proof that is new; `false` when it is there.
pub(crate) fn put(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    proof: &Proof,
    state: &str,
    holder: Option<&str>,
) -> Result<bool> {
    let statement = "INSERT INTO purse_proofs (y, mint, amount, state, holder, proof) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (y) DO NOTHING";
    let values = [
        Value::from(y_of(proof)?),
        Value::from(&mint.0),
        proof.amount.to_u64().into(),
        state.into(),
        holder.into(),
        json(proof)?,
    ];
    Ok(transaction.execute(statement, &values)? == 1)
}

fn proofs(transaction: &mut dyn Transaction, rest: &str, values: &[Value]) -> Result<Proofs> {
    let rows = transaction.query(&format!("SELECT proof FROM purse_proofs {rest}"), values)?;
    rows.into_iter().map(|mut row| parse(&row.text()?)).collect()
}

/// What may be spent at a mint, the largest first.
pub(crate) fn unspent(transaction: &mut dyn Transaction, mint: &MintUrl) -> Result<Proofs> {
    proofs(
        transaction,
        "WHERE mint = ?1 AND state = 'unspent' ORDER BY amount DESC, y",
        &[Value::from(&mint.0)],
    )
}

/// Nobody else has taken these proofs since they were chosen.
pub(crate) fn check_free(transaction: &mut dyn Transaction, chosen: &[Proof]) -> Result<()> {
    for proof in chosen {
        let free = "SELECT 1 FROM purse_proofs WHERE y = ?1 AND state = 'unspent'";
        if transaction.first(free, &[Value::from(y_of(proof)?)])?.is_none() {
            return Err(DatabaseError::Failed(
                "a proof was spent in between; it is tried again".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Gives these proofs to a holder.
pub(crate) fn hold(
    transaction: &mut dyn Transaction,
    held: &[Proof],
    state: &str,
    holder: &str,
) -> Result<()> {
    for proof in held {
        let statement = "UPDATE purse_proofs SET state = ?2, holder = ?3 WHERE y = ?1";
        transaction
            .execute(statement, &[Value::from(y_of(proof)?), state.into(), holder.into()])?;
    }
    Ok(())
}

/// Takes so many places of the seed, never to be used again.
pub(crate) fn reserve_places(
    transaction: &mut dyn Transaction,
    keyset: Id,
    count: usize,
) -> Result<u32> {
    let id = keyset.to_string();
    let next = transaction
        .first("SELECT next FROM purse_counters WHERE keyset = ?1", &[Value::from(&id)])?;
    let next = next.map(|mut row| row.amount()).transpose()?.unwrap_or(0);
    let after = next.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    set_counter(transaction, &id, after)?;
    u32::try_from(next)
        .map_err(|_| DatabaseError::Unreadable("a keyset's counter has run out".to_owned()))
}

/// The places of an operation that was not done were never signed. If no later one was taken they
/// can be taken again: forged tokens must not spread the purse's proofs over places so far apart
/// that a restore gives up in between.
fn give_places_back(transaction: &mut dyn Transaction, work: &OperationData) -> Result<()> {
    let Some(keyset) = work.keyset else { return Ok(()) };
    let after =
        u64::from(work.start).saturating_add(u64::try_from(work.amounts.len()).unwrap_or(u64::MAX));
    let statement = "UPDATE purse_counters SET next = ?2 WHERE keyset = ?1 AND next = ?3";
    transaction
        .execute(
            statement,
            &[keyset.to_string().into(), u64::from(work.start).into(), after.into()],
        )
        .map(drop)
}

fn set_counter(transaction: &mut dyn Transaction, keyset: &str, next: u64) -> Result<()> {
    let statement = "INSERT INTO purse_counters (keyset, next) VALUES (?1, ?2) ON CONFLICT (keyset) DO UPDATE SET next = excluded.next
         WHERE purse_counters.next < excluded.next";
    transaction.execute(statement, &[keyset.into(), next.into()]).map(drop)
}

impl WalletStore {
    /// What a database needs to hold a purse.
    pub const SCHEMA: Schema = Schema { name: "purse", steps: STEPS };

    /// The purse in this database, opened with [`WalletStore::SCHEMA`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// One SQLite file. The service and the operator's commands may use it at the same time.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn sqlite(path: &Path) -> std::result::Result<Self, OpenError> {
        Database::sqlite_shared(path, Self::SCHEMA).map(Self::new)
    }

    pub(crate) async fn transact<T, E>(
        &self,
        work: impl FnMut(&mut dyn Transaction) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        self.database.transact(work).await
    }

    pub(crate) async fn latest(&self, purpose: &str) -> Result<Option<Operation>> {
        let purpose = purpose.to_owned();
        self.transact(move |transaction| latest(transaction, &purpose)).await
    }

    /// The operations of a mint that are open, the oldest first.
    pub(crate) async fn open_operations(&self, mint: &MintUrl) -> Result<Vec<Operation>> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            find(
                transaction,
                "WHERE mint = ?1 AND state = 'open' ORDER BY at, id",
                &[Value::from(&mint.0)],
            )
        })
        .await
    }

    /// Every operation that is done, open or has cost something, without what it would take to do
    /// it again.
    pub(crate) async fn operations(&self) -> Result<Vec<Operation>> {
        self.transact(|transaction| {
            find(transaction, "WHERE state <> 'failed' OR delta <> 0 ORDER BY at, id", &[])
        })
        .await
    }

    /// The operation was done: `got` is what came back, in the order of its outputs.
    pub(crate) async fn done(
        &self,
        operation: &Operation,
        got: Proofs,
        fee: u64,
        paid: u64,
    ) -> Result<Operation> {
        let mut operation = operation.clone();
        let (given, kept) = got.split_at_checked(operation.work.given).unwrap_or((&got, &[]));
        let (given, kept) = (given.to_vec(), kept.to_vec());
        let inputs = if operation.work.own { total(&operation.work.inputs) } else { 0 };
        operation.state = OperationState::Done;
        operation.work.gave = total(&given).saturating_add(paid);
        operation.work.got = total(&kept);
        operation.work.fee = fee;
        operation.delta = signed(operation.work.got).saturating_sub(signed(inputs));
        let ended = operation.clone();
        self.transact(move |transaction| {
            if end(transaction, &ended)? {
                for input in ended.work.inputs.iter().filter(|_| ended.work.own) {
                    forget(transaction, input)?;
                }
                for proof in &given {
                    keep(transaction, &ended.mint, proof, "given", Some(&ended.purpose))?;
                }
                for proof in &kept {
                    keep(transaction, &ended.mint, proof, "unspent", None)?;
                }
            }
            Ok::<_, DatabaseError>(())
        })
        .await?;
        Ok(operation)
    }

    /// The operation was not done. Of its inputs, those that are spent (at these places) are lost;
    /// the others are free.
    pub(crate) async fn failed(&self, operation: &Operation, spent: &[bool]) -> Result<Operation> {
        let mut operation = operation.clone();
        operation.state = OperationState::Failed;
        operation.work.spent_elsewhere = spent.contains(&true);
        let lost: Proofs = operation
            .work
            .inputs
            .iter()
            .zip(spent)
            .filter(|(_, spent)| **spent)
            .map(|(proof, _)| proof.clone())
            .collect();
        if operation.work.own {
            operation.delta = signed(total(&lost)).saturating_neg();
        }
        let ended = operation.clone();
        self.transact(move |transaction| {
            let was_open = end(transaction, &ended)?;
            if was_open {
                give_places_back(transaction, &ended.work)?;
            }
            if was_open && ended.work.own {
                for proof in &lost {
                    forget(transaction, proof)?;
                }
                let free =
                    "UPDATE purse_proofs SET state = 'unspent', holder = NULL WHERE holder = ?1";
                transaction.execute(free, &[Value::from(&ended.id)])?;
            }
            Ok::<_, DatabaseError>(())
        })
        .await?;
        Ok(operation)
    }

    /// The proofs that were given away for this purpose.
    pub(crate) async fn given(&self, purpose: &str) -> Result<Proofs> {
        let purpose = purpose.to_owned();
        self.transact(move |transaction| {
            proofs(
                transaction,
                "WHERE holder = ?1 AND state = 'given' ORDER BY y",
                &[Value::from(&purpose)],
            )
        })
        .await
    }

    /// What was given away for this purpose was redeemed: it is no proof any more.
    pub(crate) async fn forget_given(&self, purpose: &str) -> Result<()> {
        let purpose = purpose.to_owned();
        self.transact(move |transaction| {
            transaction
                .execute(
                    "DELETE FROM purse_proofs WHERE holder = ?1 AND state = 'given'",
                    &[Value::from(&purpose)],
                )
                .map(drop)
        })
        .await
    }

    /// Whether one of these is, or was until it was redeemed, the purse's own.
    pub(crate) async fn knows(&self, ys: &[String]) -> Result<bool> {
        let ys = ys.to_vec();
        self.transact(move |transaction| {
            for y in &ys {
                if transaction
                    .first("SELECT 1 FROM purse_proofs WHERE y = ?1", &[Value::from(y)])?
                    .is_some()
                {
                    return Ok(true);
                }
            }
            Ok::<_, DatabaseError>(false)
        })
        .await
    }

    /// What the purse holds at each mint: free to spend, and held by operations that are open.
    pub(crate) async fn balances(&self) -> Result<Vec<(MintUrl, u64, u64)>> {
        self.transact(|transaction| {
            let held = "SELECT mint, CAST(sum(CASE WHEN state = 'unspent' THEN amount ELSE 0 END) AS BIGINT),
                    CAST(sum(CASE WHEN state = 'held' THEN amount ELSE 0 END) AS BIGINT)
                 FROM purse_proofs WHERE state <> 'given' GROUP BY mint ORDER BY mint";
            let rows = transaction.query(held, &[])?;
            rows.into_iter().map(|mut row| Ok::<_, DatabaseError>((MintUrl(row.text()?), row.amount()?, row.amount()?))).collect()
        })
        .await
    }

    /// Whether this mint's part of the seed is known here; a mint that is new to the purse is
    /// noted.
    pub(crate) async fn is_restored(&self, mint: &MintUrl, seed_is_new: bool) -> Result<bool> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            let found = transaction.first(
                "SELECT restored FROM purse_mints WHERE url = ?1",
                &[Value::from(&mint.0)],
            )?;
            if let Some(mut row) = found {
                return Ok(row.number()? == 1);
            }
            let note = "INSERT INTO purse_mints (url, restored) VALUES (?1, ?2)";
            transaction.execute(note, &[Value::from(&mint.0), i64::from(seed_is_new).into()])?;
            Ok::<_, DatabaseError>(seed_is_new)
        })
        .await
    }

    /// What was found of the seed at a mint: proofs that can be spent, with their places, and the
    /// places that were used. What an open operation waits for is left to it.
    pub(crate) async fn restored(
        &self,
        mint: &MintUrl,
        found: Vec<(u32, Proof)>,
        used: Vec<(Id, u32)>,
    ) -> Result<u64> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            let open = find(transaction, "WHERE mint = ?1 AND state = 'open'", &[Value::from(&mint.0)])?;
            let awaited = |keyset: Id, place: u32| {
                open.iter().any(|operation| {
                    let after = operation.work.start.saturating_add(u32::try_from(operation.work.amounts.len()).unwrap_or(u32::MAX));
                    operation.work.keyset == Some(keyset) && (operation.work.start..after).contains(&place)
                })
            };
            let mut new: u64 = 0;
            for (place, proof) in &found {
                if !awaited(proof.keyset_id, *place) && put(transaction, &mint, proof, "unspent", None)? {
                    new = new.saturating_add(proof.amount.to_u64());
                }
            }
            for (keyset, next) in &used {
                set_counter(transaction, &keyset.to_string(), u64::from(*next))?;
            }
            if new > 0 {
                let work = OperationData { got: new, ..OperationData::default() };
                let mut operation = Operation::new("restore", &mint, work);
                (operation.state, operation.delta) = (OperationState::Done, signed(new));
                insert(transaction, &mut operation)?;
            }
            let note = "INSERT INTO purse_mints (url, restored) VALUES (?1, 1) ON CONFLICT (url) DO UPDATE SET restored = 1";
            transaction.execute(note, &[Value::from(&mint.0)])?;
            Ok::<_, DatabaseError>(new)
        })
        .await
    }

    /// These proofs turned out to be spent by somebody else: they are written off.
    pub(crate) async fn write_off(&self, mint: &MintUrl, dead: Proofs) -> Result<()> {
        let mint = mint.clone();
        self.transact(move |transaction| {
            for proof in &dead {
                forget(transaction, proof)?;
            }
            let mut operation = Operation::new("written off", &mint, OperationData::default());
            (operation.state, operation.delta) =
                (OperationState::Done, signed(total(&dead)).saturating_neg());
            insert(transaction, &mut operation)
        })
        .await
    }

    /// Forgets operations that came to nothing long ago.
    pub(crate) async fn forget_failed(&self, before: UnixTime) -> Result<()> {
        self.transact(move |transaction| {
            let old =
                "DELETE FROM purse_operations WHERE state = 'failed' AND delta = 0 AND at < ?1";
            transaction.execute(old, &[before.0.into()]).map(drop)
        })
        .await
    }

    /// The open operations of a mint whose purpose begins so.
    pub(crate) async fn open_with(
        &self,
        mint: &MintUrl,
        prefix: &'static str,
    ) -> Result<Vec<Operation>> {
        let open = self.open_operations(mint).await?;
        Ok(open.into_iter().filter(|operation| operation.purpose.starts_with(prefix)).collect())
    }

    /// The mints that the purse has ever dealt with.
    pub(crate) async fn mints(&self) -> Result<Vec<MintUrl>> {
        self.transact(|transaction| {
            let rows = transaction.query("SELECT url FROM purse_mints ORDER BY url", &[])?;
            rows.into_iter().map(|mut row| Ok::<_, DatabaseError>(MintUrl(row.text()?))).collect()
        })
        .await
    }
}
