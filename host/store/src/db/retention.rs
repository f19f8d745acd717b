//! Rows of which only the newest are kept, since clients that pay nothing can cause any number of
//! them.

use crate::db::error::DatabaseError;
use crate::db::transaction::Transaction;
use crate::db::value::Value;
use paygress_core::model::units::UnixTime;

/// Rows of one kind in a table, ordered by their time, and by `id` among those of the same time.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub table: &'static str,
    /// The column with their time.
    pub time: &'static str,
    /// The condition that they are of this kind.
    pub kind: &'static str,
}

impl Retention {
    /// The newest of these rows that has at least so many newer ones. With its values
    /// [`beyond`](Self::beyond) selects it and all older ones.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn first_beyond(
        self,
        transaction: &mut dyn Transaction,
        newer: u32,
    ) -> Result<Option<[Value; 2]>, DatabaseError> {
        let Self { table, time, kind } = self;
        let statement = format!(
            "SELECT {time}, id FROM {table} WHERE {kind}
             ORDER BY {time} DESC, id DESC LIMIT 1 OFFSET ?1"
        );
        match transaction.first(&statement, &[Value::Number(newer.into())])? {
            Some(mut row) => Ok(Some([row.number()?.into(), row.text()?.into()])),
            None => Ok(None),
        }
    }

    /// The condition that a row is of this kind, and that one or older.
    #[must_use]
    pub fn beyond(self) -> String {
        let Self { time, kind, .. } = self;
        format!("{kind} AND ({time}, id) <= (?1, ?2)")
    }

    /// Deletes these rows from before this time, and of more than `most` the oldest; returns how
    /// many.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn forget(
        self,
        transaction: &mut dyn Transaction,
        before: UnixTime,
        most: u32,
    ) -> Result<u64, DatabaseError> {
        let Self { table, time, kind } = self;
        let old = format!("DELETE FROM {table} WHERE {kind} AND {time} < ?1");
        let forgotten = transaction.execute(&old, &[before.0.into()])?;
        let Some(first) = self.first_beyond(transaction, most)? else { return Ok(forgotten) };
        let beyond = format!("DELETE FROM {table} WHERE {}", self.beyond());
        Ok(forgotten.saturating_add(transaction.execute(&beyond, &first)?))
    }
}
