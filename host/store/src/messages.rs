use crate::db::{DialectSql, Retention, Value};
use crate::dialect_sql;
use crate::rows::time;
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::store::{KvStore, LedgerError, MessageLog, SalesStore};
use paygress_core::model::ids::MessageId;
use paygress_core::model::sales::Sales;
use paygress_core::model::units::UnixTime;

/// All but those of [`USED_LOGIN`](paygress_core::backend::store::USED_LOGIN).
const MESSAGES: Retention =
    Retention { table: "seen", time: "at", kind: "substr(id, 1, 10) <> 'app-login:'" };

pub(crate) const CLAIM_MESSAGE: DialectSql = dialect_sql!("claim_message");

#[async_trait]
impl MessageLog for SqlStore {
    async fn claim_message(&self, id: &MessageId, now: UnixTime) -> Result<bool> {
        let id = id.clone();
        self.database
            .transact(move |transaction| {
                let values = [Value::from(id.as_str()), time(now), transaction.replica_id().into()];
                Ok(transaction.execute_dialect(CLAIM_MESSAGE, &values)? == 1)
            })
            .await
    }

    async fn complete_message(&self, id: &MessageId, now: UnixTime) -> Result<()> {
        let id = id.clone();
        self.database
            .transact(move |transaction| {
                let complete = "INSERT INTO seen (id, at, worker, done) VALUES (?1, ?2, ?3, 1)
                     ON CONFLICT (id) DO UPDATE SET done = 1";
                let values = [Value::from(id.as_str()), time(now), transaction.replica_id().into()];
                Ok(transaction.execute(complete, &values).map(drop)?)
            })
            .await
    }

    async fn forget_messages(&self, before: UnixTime, most: u32) -> Result<u64> {
        self.database
            .transact(move |transaction| Ok(MESSAGES.forget(transaction, before, most)?))
            .await
    }

    async fn forget_used_logins(&self, before: UnixTime) -> Result<u64> {
        self.database
            .transact(move |transaction| {
                let old = "DELETE FROM seen WHERE substr(id, 1, 10) = 'app-login:' AND at < ?1";
                Ok(transaction.execute(old, &[time(before)])?)
            })
            .await
    }
}

/// The note that says what is sold.
const SALES: &str = "sales";

#[async_trait]
impl SalesStore for SqlStore {
    async fn sales(&self) -> Result<Sales> {
        let Some(name) = self.kv_read(SALES).await? else { return Ok(Sales::default()) };
        let unknown = || LedgerError::unreadable(format!("unknown state of sales {name}"));
        Sales::parse(&name).ok_or_else(unknown)
    }

    async fn set_sales(&self, sales: Sales) -> Result<()> {
        self.kv_write(SALES, sales.as_str()).await
    }
}

#[async_trait]
impl KvStore for SqlStore {
    async fn kv_read(&self, name: &str) -> Result<Option<String>> {
        let name = name.to_owned();
        self.database
            .transact(move |transaction| {
                let statement = "SELECT value FROM notes WHERE name = ?1";
                let row = transaction.first(statement, &[Value::from(&name)])?;
                Ok(row.map(|mut row| row.text()).transpose()?)
            })
            .await
    }

    async fn kv_write(&self, name: &str, value: &str) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.database
            .transact(move |transaction| {
                let statement = "INSERT INTO notes (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value";
                let values = [Value::from(&name), Value::from(&value)];
                Ok(transaction.execute(statement, &values).map(drop)?)
            })
            .await
    }
}
