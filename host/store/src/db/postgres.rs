//! A Postgres database that several replicas share.
//!
//! What is being worked belongs to one replica at a time. A replica is alive while it holds an
//! advisory lock under its number: the server gives the lock free when the replica's connection is
//! gone, however it died. Nobody's clock counts.

use crate::db::{Backend, DatabaseError, Row, Schema, Transaction, Undo, Value, Work};
use paygress_core::model::secret::Secret;
use postgres::error::SqlState;
use postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use postgres::{Client, Config, IsolationLevel};
use r2d2_postgres::PostgresConnectionManager;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections for transactions; the desk works this many orders' transactions at once.
const CONNECTIONS: u32 = 8;
/// How long a transaction waits for a connection, or for the server at all.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at a transaction that met another one.
const ATTEMPTS: u32 = 20;
/// How often this replica's own lock is looked after.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The server notices a replica whose machine has vanished after about this many seconds.
const VANISHED: u32 = 15;
/// Our half of the advisory locks' space: "payg".
const SPACE: i32 = 0x7061_7967;

type Manager = PostgresConnectionManager<MakeRustlsConnect>;

/// Why a Postgres database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL. What it is, is not told: it may hold a password.
    #[error(
        "DATABASE_URL is not a Postgres URL; write postgres://user:password@host:port/database?sslmode=require"
    )]
    Url,
    /// The server.
    #[error("the Postgres of DATABASE_URL cannot be used: {0}")]
    Connect(String),
    /// A newer version wrote it.
    #[error(
        "the schema {name} in Postgres is of version {found}, and this program knows {known}; use the newer program"
    )]
    Newer {
        /// Which.
        name: &'static str,
        /// Its version.
        found: usize,
        /// The newest that this program knows.
        known: usize,
    },
}

/// One database.
pub(crate) struct Postgres {
    // Until it is dropped.
    pool: Option<r2d2::Pool<Manager>>,
    worker: i32,
    closing: Arc<AtomicBool>,
    heart: Option<JoinHandle<()>>,
}

fn connect_error(error: impl std::fmt::Display) -> PostgresError {
    PostgresError::Connect(error.to_string())
}

impl Postgres {
    pub(crate) fn open(url: &Secret, schemas: &[Schema]) -> Result<Self, PostgresError> {
        let mut config: Config = url.expose().parse().map_err(|_| PostgresError::Url)?;
        config.connect_timeout(TIMEOUT).tcp_user_timeout(TIMEOUT).application_name("paygress");
        let tls = tls()?;
        let mut own = config.connect(tls.clone()).map_err(connect_error)?;
        for schema in schemas {
            migrate(&mut own, *schema)?;
        }
        let mut bytes = [0_u8; 4];
        getrandom::fill(&mut bytes).map_err(connect_error)?;
        // Never negative: `pg_locks` shows an unsigned number.
        let worker = i32::from_be_bytes(bytes) & i32::MAX;
        live(&mut own, worker).map_err(connect_error)?;
        let closing = Arc::new(AtomicBool::new(false));
        let heart = {
            let (closing, config, tls) = (Arc::clone(&closing), config.clone(), tls.clone());
            std::thread::spawn(move || beat(own, &config, &tls, worker, &closing))
        };
        let manager = PostgresConnectionManager::new(config, tls);
        let pool = r2d2::Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(1))
            .connection_timeout(TIMEOUT)
            .build(manager);
        Ok(Self { pool: Some(pool.map_err(connect_error)?), worker, closing, heart: Some(heart) })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let (pool, heart) = (self.pool.take(), self.heart.take());
        // Closing a connection blocks, and the thread that drops this may be an executor's.
        let closed = std::thread::spawn(move || {
            drop(pool);
            if let Some(heart) = heart {
                heart.thread().unpark();
                let _ = heart.join();
            }
        });
        let _ = closed.join();
    }
}

/// The schema in Postgres' words: its types have other names, and its tables need no hints.
fn in_postgres(step: &str) -> String {
    step.replace(" STRICT, WITHOUT ROWID", "")
        .replace(" STRICT", "")
        .replace("INTEGER", "BIGINT")
        .replace("body ->", "CAST(body AS json) ->")
}

/// Certificates are checked against the system's, whatever `sslmode` says beyond `disable`.
fn tls() -> Result<MakeRustlsConnect, PostgresError> {
    paygress_http_client::client().map(MakeRustlsConnect::new).map_err(connect_error)
}

fn migrate(client: &mut Client, schema: Schema) -> Result<(), PostgresError> {
    let mut transaction = client.transaction().map_err(connect_error)?;
    // One replica at a time.
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, 0)", &[&-SPACE])
        .map_err(connect_error)?;
    let versions = "CREATE TABLE IF NOT EXISTS paygress_schemas (name TEXT PRIMARY KEY, version BIGINT NOT NULL)";
    transaction.batch_execute(versions).map_err(connect_error)?;
    let row = transaction
        .query_opt("SELECT version FROM paygress_schemas WHERE name = $1", &[&schema.name])
        .map_err(connect_error)?;
    let found =
        row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(connect_error)?.unwrap_or(0);
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > schema.steps.len() {
        return Err(PostgresError::Newer { name: schema.name, found, known: schema.steps.len() });
    }
    for step in schema.steps.iter().skip(found) {
        transaction.batch_execute(&in_postgres(step)).map_err(connect_error)?;
    }
    let version = i64::try_from(schema.steps.len()).unwrap_or(i64::MAX);
    let write = "INSERT INTO paygress_schemas VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET version = excluded.version";
    transaction.execute(write, &[&schema.name, &version]).map_err(connect_error)?;
    transaction.commit().map_err(connect_error)
}

/// Says that this replica is alive, as long as this connection is.
fn live(client: &mut Client, worker: i32) -> Result<(), postgres::Error> {
    client.batch_execute(&format!(
        "SET tcp_keepalives_idle = {}; SET tcp_keepalives_interval = {}; SET tcp_keepalives_count = 3",
        VANISHED / 3,
        VANISHED / 5
    ))?;
    client.execute("SELECT pg_advisory_lock($1, $2)", &[&SPACE, &worker]).map(drop)
}

fn beat(
    client: Client,
    config: &Config,
    tls: &MakeRustlsConnect,
    worker: i32,
    closing: &AtomicBool,
) {
    let mut client = Some(client);
    while !closing.load(Ordering::Relaxed) {
        let alive = client.as_mut().is_some_and(|client| client.is_valid(TIMEOUT).is_ok());
        if !alive {
            tracing::warn!(
                "the connection to the ledger's Postgres was lost; other replicas may take our orders"
            );
            client = config.connect(tls.clone()).ok();
            if let Some(Err(error)) = client.as_mut().map(|client| live(client, worker)) {
                tracing::warn!(%error, "this replica could not say that it is alive");
                client = None;
            }
        }
        std::thread::park_timeout(HEARTBEAT);
    }
}

fn failed(error: &postgres::Error) -> DatabaseError {
    DatabaseError::Failed(error.as_db_error().map_or_else(
        || error.to_string(),
        |error| format!("{} ({})", error.message(), error.code().code()),
    ))
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Number(number) => match *ty {
                Type::INT4 => i32::try_from(*number)?.to_sql(ty, out),
                _ => number.to_sql(ty, out),
            },
            Self::Text(text) => text.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT8 | Type::INT4 | Type::TEXT | Type::VARCHAR)
    }

    to_sql_checked!();
}

/// `?1` is `$1` here.
fn numbered(statement: &str) -> String {
    statement.replace('?', "$")
}

/// A transaction, and the error that ended it: only that tells whether it may be tried again.
struct Attempt<'a> {
    transaction: postgres::Transaction<'a>,
    worker: i32,
    error: Option<SqlState>,
}

impl Attempt<'_> {
    fn run<T>(
        &mut self,
        call: impl FnOnce(&mut postgres::Transaction<'_>) -> Result<T, postgres::Error>,
    ) -> Result<T, DatabaseError> {
        call(&mut self.transaction).map_err(|error| {
            self.error = error.code().cloned();
            failed(&error)
        })
    }
}

impl Transaction for Attempt<'_> {
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        self.run(|transaction| transaction.execute(&numbered(statement), &borrowed(values)))
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        let rows =
            self.run(|transaction| transaction.query(&numbered(statement), &borrowed(values)))?;
        rows.iter().map(read).collect()
    }

    fn worker(&self) -> i64 {
        self.worker.into()
    }

    fn is_alive_elsewhere(&self, column: &str) -> String {
        format!(
            "({column} <> {} AND {column} IN (SELECT CAST(objid AS BIGINT) FROM pg_locks WHERE locktype = 'advisory' AND classid = {SPACE}
              AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))",
            self.worker
        )
    }
}

fn borrowed(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values
        .iter()
        .map(|value| {
            let value: &(dyn ToSql + Sync) = value;
            value
        })
        .collect()
}

fn read(row: &postgres::Row) -> Result<Row, DatabaseError> {
    let value = |(index, column): (usize, &postgres::Column)| {
        let number = |number: Option<i64>| number.map_or(Value::Null, Value::Number);
        let unreadable = |error: postgres::Error| DatabaseError::Unreadable(error.to_string());
        match *column.type_() {
            Type::INT8 => row.try_get(index).map(number).map_err(unreadable),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(index)
                .map(|value| number(value.map(i64::from)))
                .map_err(unreadable),
            _ => row.try_get::<_, Option<String>>(index).map(Value::from).map_err(unreadable),
        }
    };
    Ok(Row::new(row.columns().iter().enumerate().map(value).collect::<Result<_, _>>()?))
}

/// Whether another transaction came in between. A key that is taken is that too: seen again, it is
/// an answer.
fn met_another(state: Option<&SqlState>) -> bool {
    state.is_some_and(|state| {
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNIQUE_VIOLATION,
        ]
        .contains(state)
    })
}

impl Backend for Postgres {
    fn transact(&self, work: &mut Work<'_>) -> Result<(), Undo> {
        let undo = |error: &postgres::Error| Undo::Database(failed(error));
        let mut attempts = 0..ATTEMPTS;
        loop {
            let pool = self
                .pool
                .as_ref()
                .ok_or_else(|| Undo::Database(DatabaseError::Failed("closed".to_owned())))?;
            let mut client = pool
                .get()
                .map_err(|error| Undo::Database(DatabaseError::Failed(error.to_string())))?;
            let begun =
                client.build_transaction().isolation_level(IsolationLevel::Serializable).start();
            let mut this = Attempt {
                transaction: begun.map_err(|error| undo(&error))?,
                worker: self.worker,
                error: None,
            };
            let (done, state) = match work(&mut this) {
                Ok(()) => match this.transaction.commit() {
                    Ok(()) => return Ok(()),
                    Err(error) => (Err(undo(&error)), error.code().cloned()),
                },
                Err(error) => (Err(error), this.error),
            };
            if attempts.next().is_none() || !met_another(state.as_ref()) {
                return done;
            }
        }
    }
}
