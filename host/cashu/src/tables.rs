//! Statements on the wallet's tables, inside a transaction. Rows are rejected when this version
//! cannot read them; errors do not quote them: a proof is money.

use crate::counters::lowest_free;
use crate::operation::{MintBalance, Operation, OperationData, OperationState, ProofState};
use crate::purpose::Purpose;
use cdk::nuts::{Id, Proof, Proofs};
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_store::db::{DatabaseError, Retention, Row, Transaction, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) type Result<T> = std::result::Result<T, DatabaseError>;

fn encode<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_string(value).map(Value::Text).map_err(DatabaseError::unreadable)
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| DatabaseError::unreadable("a wallet row is unreadable"))
}

fn y_of(proof: &Proof) -> Result<Value> {
    proof.y().map(|y| Value::Text(y.to_hex())).map_err(DatabaseError::unreadable)
}

fn mint_value(mint: &MintUrl) -> Value {
    mint.as_str().into()
}

fn read_mint(row: &mut Row) -> Result<MintUrl> {
    MintUrl::parse(row.text()?).map_err(DatabaseError::unreadable)
}

fn read_operation(mut row: Row) -> Result<Operation> {
    Ok(Operation {
        id: row.text()?,
        purpose: row.text()?.parse().map_err(DatabaseError::unreadable)?,
        mint: read_mint(&mut row)?,
        state: OperationState::from_stored(&row.text()?)
            .ok_or_else(|| DatabaseError::unreadable("an operation's state is unknown"))?,
        at: UnixTime(row.amount()?),
        delta: row.number()?,
        data: decode(&row.text()?)?,
    })
}

fn select_operations(
    transaction: &mut dyn Transaction,
    condition: &str,
    values: &[Value],
) -> Result<Vec<Operation>> {
    let columns = "id, purpose, mint, state, at, delta, body";
    let statement = format!("SELECT {columns} FROM purse_operations {condition}");
    transaction.query(&statement, values)?.into_iter().map(read_operation).collect()
}

/// The last operation of this purpose.
pub(crate) fn latest_operation(
    transaction: &mut dyn Transaction,
    purpose: &Purpose,
) -> Result<Option<Operation>> {
    let condition = "WHERE purpose = ?1 ORDER BY id DESC LIMIT 1";
    let found = select_operations(transaction, condition, &[purpose.to_string().into()])?;
    Ok(found.into_iter().next())
}

/// The open operations of a mint, the oldest first.
pub(crate) fn open_operations(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
) -> Result<Vec<Operation>> {
    let condition = "WHERE mint = ?1 AND state = 'open' ORDER BY at, id";
    select_operations(transaction, condition, &[mint_value(mint)])
}

/// The operation with this id.
pub(crate) fn operation(transaction: &mut dyn Transaction, id: &str) -> Result<Option<Operation>> {
    let found = select_operations(transaction, "WHERE id = ?1", &[id.into()])?;
    Ok(found.into_iter().next())
}

/// Operations that are done, open, or failed at a loss; the oldest first.
pub(crate) fn relevant_operations(transaction: &mut dyn Transaction) -> Result<Vec<Operation>> {
    select_operations(transaction, "WHERE state <> 'failed' OR delta <> 0 ORDER BY at, id", &[])
}

/// Stores a new operation, numbered after those of the same purpose.
pub(crate) fn insert_operation(
    transaction: &mut dyn Transaction,
    operation: &mut Operation,
) -> Result<()> {
    let purpose = operation.purpose.to_string();
    // Not their count: those that failed are forgotten.
    let last = transaction.first(
        "SELECT max(id) FROM purse_operations WHERE purpose = ?1",
        &[Value::from(&purpose)],
    )?;
    let last = last.map(|mut row| row.optional_text()).transpose()?.flatten();
    let number = last
        .and_then(|id| id.rsplit_once('#')?.1.parse::<u64>().ok())
        .map_or(0, |last| last.saturating_add(1));
    operation.id = format!("{purpose} #{number:06}");
    let statement = "INSERT INTO purse_operations (id, purpose, mint, state, at, delta, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values = [
        Value::from(&operation.id),
        purpose.into(),
        mint_value(&operation.mint),
        operation.state.as_str().into(),
        operation.at.0.into(),
        operation.delta.into(),
        encode(&operation.data)?,
    ];
    transaction.execute(statement, &values).map(drop)
}

/// Whether an operation was ended by this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndResult {
    Ended,
    /// Another process was faster.
    AlreadyEnded,
    /// Another process has made its request once more.
    Renewed,
}

/// Stores what an operation does. Returns whether it was still in this state.
pub(crate) fn update_operation(
    transaction: &mut dyn Transaction,
    operation: &Operation,
) -> Result<bool> {
    let statement = "UPDATE purse_operations SET body = ?2 WHERE id = ?1 AND state = ?3";
    let state = operation.state.as_str();
    let values = [Value::from(&operation.id), encode(&operation.data)?, state.into()];
    Ok(transaction.execute(statement, &values)? == 1)
}

/// Stores the end of an operation. `Done` wins over `Failed`: the mint has done it after all.
pub(crate) fn end_operation(
    transaction: &mut dyn Transaction,
    operation: &Operation,
) -> Result<EndResult> {
    let statement = match operation.state {
        OperationState::Done => {
            "UPDATE purse_operations SET state = ?2, delta = ?3, body = ?4
             WHERE id = ?1 AND state <> 'done'"
        }
        OperationState::Open | OperationState::Failed => {
            "UPDATE purse_operations SET state = ?2, delta = ?3, body = ?4
             WHERE id = ?1 AND state = 'open'"
        }
    };
    // Spent inputs are worth nothing, and need not be kept. Nothing is requested any more.
    let data = OperationData {
        inputs: Vec::new(),
        requested_at: None,
        request_id: None,
        ..operation.data.clone()
    };
    let values = [
        Value::from(&operation.id),
        operation.state.as_str().into(),
        operation.delta.into(),
        encode(&data)?,
    ];
    Ok(match transaction.execute(statement, &values)? {
        1 => EndResult::Ended,
        _ => EndResult::AlreadyEnded,
    })
}

/// Deletes failed operations that changed no balance: those from before, and of more than `most` the
/// oldest.
pub(crate) fn delete_failed_operations(
    transaction: &mut dyn Transaction,
    before: UnixTime,
    most: u32,
) -> Result<()> {
    const FAILED: Retention =
        Retention { table: "purse_operations", time: "at", kind: "state = 'failed' AND delta = 0" };
    FAILED.forget(transaction, before, most).map(drop)
}

/// Stores a proof that the wallet does not know yet. Returns whether it was new.
pub(crate) fn insert_proof(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    proof: &Proof,
    state: ProofState,
    holder: Option<&str>,
) -> Result<bool> {
    let statement = "INSERT INTO purse_proofs (y, mint, amount, state, holder, proof)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (y) DO NOTHING";
    let values = [
        y_of(proof)?,
        mint_value(mint),
        proof.amount.to_u64().into(),
        state.as_str().into(),
        holder.into(),
        encode(proof)?,
    ];
    Ok(transaction.execute(statement, &values)? == 1)
}

/// Stores a proof in this state, whatever its state was before.
pub(crate) fn put_proof(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    proof: &Proof,
    state: ProofState,
    holder: Option<&str>,
) -> Result<()> {
    delete_proof(transaction, proof)?;
    insert_proof(transaction, mint, proof, state, holder).map(drop)
}

/// Moves an unspent proof to the mint that it is of. Returns the mint that it was stored for.
pub(crate) fn move_proof(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    proof: &Proof,
) -> Result<Option<MintUrl>> {
    let statement =
        "SELECT mint FROM purse_proofs WHERE y = ?1 AND mint <> ?2 AND state = 'unspent'";
    let values = [y_of(proof)?, mint_value(mint)];
    let Some(mut row) = transaction.first(statement, &values)? else { return Ok(None) };
    transaction.execute("UPDATE purse_proofs SET mint = ?2 WHERE y = ?1", &values)?;
    read_mint(&mut row).map(Some)
}

/// Deletes a proof: it is spent.
pub(crate) fn delete_proof(transaction: &mut dyn Transaction, proof: &Proof) -> Result<()> {
    transaction.execute("DELETE FROM purse_proofs WHERE y = ?1", &[y_of(proof)?]).map(drop)
}

/// Deletes a proof that is spent and that no operation has; whether there was one.
pub(crate) fn delete_unspent(transaction: &mut dyn Transaction, proof: &Proof) -> Result<bool> {
    let statement = "DELETE FROM purse_proofs WHERE y = ?1 AND state = 'unspent'";
    Ok(transaction.execute(statement, &[y_of(proof)?])? > 0)
}

fn select_proofs(
    transaction: &mut dyn Transaction,
    condition: &str,
    values: &[Value],
) -> Result<Proofs> {
    let rows = transaction.query(&format!("SELECT proof FROM purse_proofs {condition}"), values)?;
    rows.into_iter().map(|mut row| decode(&row.text()?)).collect()
}

/// The unspent proofs of a mint, the largest first.
pub(crate) fn unspent_proofs(transaction: &mut dyn Transaction, mint: &MintUrl) -> Result<Proofs> {
    let condition = "WHERE mint = ?1 AND state = 'unspent' ORDER BY amount DESC, y";
    select_proofs(transaction, condition, &[mint_value(mint)])
}

/// The proofs of the token that was sent for this purpose.
pub(crate) fn sent_proofs(transaction: &mut dyn Transaction, purpose: &Purpose) -> Result<Proofs> {
    let condition = "WHERE holder = ?1 AND state = 'given' ORDER BY y";
    select_proofs(transaction, condition, &[purpose.to_string().into()])
}

pub(crate) fn delete_sent_proofs(
    transaction: &mut dyn Transaction,
    purpose: &Purpose,
) -> Result<()> {
    let statement = "DELETE FROM purse_proofs WHERE holder = ?1 AND state = 'given'";
    transaction.execute(statement, &[purpose.to_string().into()]).map(drop)
}

/// Whether no other operation has taken one of these proofs since they were selected.
pub(crate) fn are_unspent(transaction: &mut dyn Transaction, selected: &[Proof]) -> Result<bool> {
    for proof in selected {
        let statement = "SELECT 1 FROM purse_proofs WHERE y = ?1 AND state = 'unspent'";
        if transaction.first(statement, &[y_of(proof)?])?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves these proofs to a state and a holder (an operation's id, or a purpose).
pub(crate) fn assign_proofs(
    transaction: &mut dyn Transaction,
    proofs: &[Proof],
    state: ProofState,
    holder: &str,
) -> Result<()> {
    for proof in proofs {
        let statement = "UPDATE purse_proofs SET state = ?2, holder = ?3 WHERE y = ?1";
        let values = [y_of(proof)?, state.as_str().into(), holder.into()];
        transaction.execute(statement, &values)?;
    }
    Ok(())
}

/// Makes the proofs that this operation has reserved unspent again.
pub(crate) fn release_proofs(transaction: &mut dyn Transaction, operation_id: &str) -> Result<()> {
    let statement = "UPDATE purse_proofs SET state = 'unspent', holder = NULL WHERE holder = ?1";
    transaction.execute(statement, &[operation_id.into()]).map(drop)
}

/// Whether the wallet has one of these proofs.
pub(crate) fn has_any_proof(transaction: &mut dyn Transaction, ys: &[String]) -> Result<bool> {
    for y in ys {
        let statement = "SELECT 1 FROM purse_proofs WHERE y = ?1";
        if transaction.first(statement, &[Value::from(y)])?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is held at each mint, proofs in sent tokens excepted.
pub(crate) fn balances(transaction: &mut dyn Transaction) -> Result<Vec<MintBalance>> {
    let statement = "SELECT mint,
            CAST(sum(CASE WHEN state = 'unspent' THEN amount ELSE 0 END) AS BIGINT),
            CAST(sum(CASE WHEN state = 'held' THEN amount ELSE 0 END) AS BIGINT)
         FROM purse_proofs WHERE state <> 'given' GROUP BY mint ORDER BY mint";
    let read = |mut row: Row| {
        Ok(MintBalance {
            mint: read_mint(&mut row)?,
            available: Sat(row.amount()?),
            reserved: Sat(row.amount()?),
        })
    };
    transaction.query(statement, &[])?.into_iter().map(read).collect()
}

/// An open operation's outputs.
#[derive(Deserialize)]
struct ReservedCounters {
    keyset: Option<Id>,
    start: u64,
    amounts: Vec<u64>,
}

/// A keyset, and the mint that it is of.
pub(crate) struct OwnedKeyset {
    pub(crate) keyset: Id,
    pub(crate) mint: MintUrl,
    /// Set when it is not known which of the two it is of.
    pub(crate) rival: Option<MintUrl>,
}

pub(crate) fn owned_keysets(transaction: &mut dyn Transaction) -> Result<Vec<OwnedKeyset>> {
    let read = |mut row: Row| {
        Ok(OwnedKeyset {
            keyset: row.text()?.parse().map_err(DatabaseError::unreadable)?,
            mint: read_mint(&mut row)?,
            rival: row
                .optional_text()?
                .map(MintUrl::parse)
                .transpose()
                .map_err(DatabaseError::unreadable)?,
        })
    };
    let rows = transaction.query("SELECT keyset, mint, rival FROM purse_keysets", &[])?;
    rows.into_iter().map(read).collect()
}

pub(crate) fn insert_owned_keyset(
    transaction: &mut dyn Transaction,
    owned: &OwnedKeyset,
) -> Result<()> {
    let statement = "INSERT INTO purse_keysets (keyset, mint, rival) VALUES (?1, ?2, ?3)";
    let rival = owned.rival.as_ref().map(MintUrl::as_str);
    let values = [owned.keyset.to_string().into(), mint_value(&owned.mint), rival.into()];
    transaction.execute(statement, &values).map(drop)
}

pub(crate) fn delete_owned_keyset(transaction: &mut dyn Transaction, keyset: Id) -> Result<()> {
    let statement = "DELETE FROM purse_keysets WHERE keyset = ?1";
    transaction.execute(statement, &[keyset.to_string().into()]).map(drop)
}

/// The counter after the highest that the mint is known to have signed.
pub(crate) fn next_counter(transaction: &mut dyn Transaction, keyset: Id) -> Result<u64> {
    let statement = "SELECT next FROM purse_counters WHERE keyset = ?1";
    let row = transaction.first(statement, &[keyset.to_string().into()])?;
    Ok(row.map(|mut row| row.amount()).transpose()?.unwrap_or(0))
}

/// The first of as many free derivation counters (NUT-13) as the operation has outputs, from
/// `from` on if possible; `counters` says which. None when too many are reserved by open
/// operations. They are reserved once the operation is stored.
pub(crate) fn free_counters(
    transaction: &mut dyn Transaction,
    data: &OperationData,
    keyset: Id,
    from: u64,
) -> Result<Option<u32>> {
    let next = next_counter(transaction, keyset)?;
    let mut taken = Vec::new();
    let statement = "SELECT body FROM purse_operations WHERE state = 'open'";
    for mut row in transaction.query(statement, &[])? {
        let open: ReservedCounters = decode(&row.text()?)?;
        if open.keyset == Some(keyset) {
            taken.push(open.start..open.start.saturating_add(length(&open.amounts)));
        }
    }
    let first = lowest_free(next, from, length(&data.amounts), &taken, data.spender());
    first
        .map(u32::try_from)
        .transpose()
        .map_err(|_| DatabaseError::unreadable("a keyset's derivation counter is exhausted"))
}

pub(crate) fn length<T>(all: &[T]) -> u64 {
    u64::try_from(all.len()).unwrap_or(u64::MAX)
}

/// Moves the counter after the highest that is signed forward, never back.
pub(crate) fn advance_counter(
    transaction: &mut dyn Transaction,
    keyset: Id,
    next: u64,
) -> Result<()> {
    let statement = "INSERT INTO purse_counters (keyset, next) VALUES (?1, ?2)
         ON CONFLICT (keyset) DO UPDATE SET next = excluded.next
         WHERE purse_counters.next < excluded.next";
    transaction.execute(statement, &[keyset.to_string().into(), next.into()]).map(drop)
}

/// The mints that the wallet has ever used. A URL that this version cannot read was never reached.
pub(crate) fn mints(transaction: &mut dyn Transaction) -> Result<Vec<MintUrl>> {
    let rows = transaction.query("SELECT url FROM purse_mints ORDER BY url", &[])?;
    let mut mints = Vec::new();
    for mut row in rows {
        mints.extend(MintUrl::parse(row.text()?).ok());
    }
    Ok(mints)
}

/// Gives the rows of mints whose URLs were stored in another form the canonical one. What the seed's
/// use is known of a mint is known of both.
pub(crate) fn rename_mints(transaction: &mut dyn Transaction) -> Result<()> {
    let stored = "SELECT url FROM purse_mints UNION SELECT mint FROM purse_proofs
         UNION SELECT mint FROM purse_operations";
    for mut row in transaction.query(stored, &[])? {
        let old = row.text()?;
        let Ok(mint) = MintUrl::parse(&old) else { continue };
        if mint.as_str() == old {
            continue;
        }
        let values = [Value::from(&old), mint_value(&mint)];
        transaction.execute("UPDATE purse_proofs SET mint = ?2 WHERE mint = ?1", &values)?;
        transaction.execute("UPDATE purse_operations SET mint = ?2 WHERE mint = ?1", &values)?;
        transaction.execute("UPDATE purse_keysets SET mint = ?2 WHERE mint = ?1", &values)?;
        let was_restored = restored_at(transaction, &old)?;
        if was_restored.is_some() {
            let is_restored = [was_restored, mint_is_restored(transaction, &mint)?];
            put_mint(transaction, &mint, is_restored.contains(&Some(true)))?;
        }
        transaction.execute("DELETE FROM purse_mints WHERE url = ?1", &[Value::from(&old)])?;
    }
    Ok(())
}

/// Whether the seed's use at this mint is known, if the mint is.
pub(crate) fn mint_is_restored(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
) -> Result<Option<bool>> {
    restored_at(transaction, mint.as_str())
}

fn restored_at(transaction: &mut dyn Transaction, url: &str) -> Result<Option<bool>> {
    let statement = "SELECT restored FROM purse_mints WHERE url = ?1";
    let row = transaction.first(statement, &[url.into()])?;
    row.map(|mut row| Ok(row.number()? == 1)).transpose()
}

pub(crate) fn put_mint(
    transaction: &mut dyn Transaction,
    mint: &MintUrl,
    restored: bool,
) -> Result<()> {
    let statement = "INSERT INTO purse_mints (url, restored) VALUES (?1, ?2)
         ON CONFLICT (url) DO UPDATE SET restored = excluded.restored";
    transaction.execute(statement, &[mint_value(mint), i64::from(restored).into()]).map(drop)
}
