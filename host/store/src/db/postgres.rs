//! A Postgres database that several replicas share.
//!
//! An unfinished order belongs to one replica at a time. A replica is alive while it holds an
//! advisory lock under its id: the server releases the lock when the replica's connection is gone,
//! however the replica died. No clock is compared.

use crate::db::dialect::{Dialect, Schema, SchemaVersion};
use crate::db::error::DatabaseError;
use crate::db::transaction::{Backend, ReplicaId, Transaction, Undo, Work};
use crate::db::value::{Row, Value};
use backon::{BackoffBuilder, ExponentialBuilder};
use paygress_core::model::secret::Secret;
use postgres::error::SqlState;
use postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use postgres::{Client, Config, IsolationLevel, Statement};
use r2d2_postgres::PostgresConnectionManager;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections for transactions: so many run at the same time.
const CONNECTIONS: u32 = 8;
/// How long to wait for a connection, or for the server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at a transaction that conflicts with others…
const ATTEMPTS: usize = 200;
/// …and the pauses between them, doubling with jitter. One of the conflicting transactions has
/// committed each time, but in a crowd it may always be another one: on a busy machine hundreds of
/// orders at two replicas took longer than three seconds to have their turn.
const PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(128);
/// How often the connection that holds this replica's lock is checked.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The server notices that a replica's machine is gone after about this many seconds.
const KEEPALIVE_SECONDS: u32 = 15;
/// The first key of our advisory locks: "payg". `sql/postgres/*.sql` look for it in `pg_locks`.
pub(crate) const LOCK_CLASS: i32 = 0x7061_7967;

/// Statements that a connection keeps prepared: more than the program has.
const PREPARED: usize = 512;

/// A connection of the pool.
struct Connection {
    client: Client,
    /// What was prepared on it, by its text.
    prepared: HashMap<String, Statement>,
}

struct Manager(PostgresConnectionManager<MakeRustlsConnect>);

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = postgres::Error;

    fn connect(&self) -> Result<Connection, postgres::Error> {
        let mut client = self.0.connect()?;
        // Whoever reads a whole table conflicts with all who write to it, however small it is. Without
        // such reads one plan does for all values of most statements, which Postgres finds out by itself.
        client.batch_execute("SET enable_seqscan = off")?;
        // What has no index is so expensive then that it would be compiled each time. Before Postgres 11
        // there is no such setting.
        let _ = client.batch_execute("SET jit = off");
        Ok(Connection { client, prepared: HashMap::new() })
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), postgres::Error> {
        self.0.is_valid(&mut connection.client)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        self.0.has_broken(&mut connection.client)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL is left out: it may hold a password.
    #[error(
        "DATABASE_URL is not a Postgres URL; write postgres://user:password@host:port/database?sslmode=require"
    )]
    Url,
    #[error("Postgres at DATABASE_URL cannot be used: {0}")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    #[error(
        "schema {name} in Postgres has version {found}, and this program supports {known}; use the newer program"
    )]
    Newer {
        name: &'static str,
        found: usize,
        /// The newest version that this program supports.
        known: usize,
    },
}

impl PostgresError {
    pub(crate) fn connect(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Connect(source.into())
    }
}

pub(crate) struct Postgres {
    // `None` only while it is dropped.
    pool: Option<r2d2::Pool<Manager>>,
    replica_id: i32,
    closing: Arc<AtomicBool>,
    heartbeat: Option<JoinHandle<()>>,
}

impl Postgres {
    pub(crate) fn open(url: &Secret, schemas: &[Schema]) -> Result<Self, PostgresError> {
        let (config, tls) = (config(url)?, tls()?);
        let mut client = config.connect(tls.clone()).map_err(cannot_open)?;
        for schema in schemas {
            migrate(&mut client, *schema)?;
        }
        let mut bytes = [0_u8; 4];
        getrandom::fill(&mut bytes).map_err(PostgresError::connect)?;
        // Never negative: `pg_locks` shows an unsigned number.
        let replica_id = i32::from_be_bytes(bytes) & i32::MAX;
        lock_as_alive(&mut client, replica_id).map_err(cannot_open)?;
        let closing = Arc::new(AtomicBool::new(false));
        let heartbeat = {
            let (closing, config, tls) = (Arc::clone(&closing), config.clone(), tls.clone());
            std::thread::spawn(move || stay_alive(client, &config, &tls, replica_id, &closing))
        };
        let manager = Manager(PostgresConnectionManager::new(config, tls));
        let pool = r2d2::Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(1))
            .connection_timeout(TIMEOUT)
            .build(manager);
        let pool = Some(pool.map_err(PostgresError::connect)?);
        Ok(Self { pool, replica_id, closing, heartbeat: Some(heartbeat) })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let (pool, heartbeat) = (self.pool.take(), self.heartbeat.take());
        // Closing a connection blocks, and the thread that drops this may be an executor's.
        let closed = std::thread::spawn(move || {
            drop(pool);
            if let Some(heartbeat) = heartbeat {
                heartbeat.thread().unpark();
                let _ = heartbeat.join();
            }
        });
        let _ = closed.join();
    }
}

/// What is in a database, without a change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresState {
    /// As the server shows its version.
    pub server: String,
    pub schemas: Vec<SchemaVersion>,
}

impl PostgresState {
    /// Blocks.
    pub(crate) fn read(url: &Secret, schemas: &[Schema]) -> Result<Self, PostgresError> {
        let mut client = config(url)?.connect(tls()?).map_err(cannot_open)?;
        let mut reading =
            client.build_transaction().read_only(true).start().map_err(cannot_open)?;
        let server: String = reading
            .query_one("SHOW server_version", &[])
            .and_then(|row| row.try_get(0))
            .map_err(cannot_open)?;
        let is_there: bool = reading
            .query_one("SELECT to_regclass('paygress_schemas') IS NOT NULL", &[])
            .and_then(|row| row.try_get(0))
            .map_err(cannot_open)?;
        let mut versions = Vec::new();
        for schema in schemas {
            let known = schema.steps.len();
            let found = if is_there { schema_version(&mut reading, *schema)? } else { 0 };
            versions.push(SchemaVersion { name: schema.name, found, known });
        }
        Ok(Self { server, schemas: versions })
    }
}

fn config(url: &Secret) -> Result<Config, PostgresError> {
    let mut config: Config = url.expose().parse().map_err(|_| PostgresError::Url)?;
    config.connect_timeout(TIMEOUT).tcp_user_timeout(TIMEOUT).application_name("paygress");
    Ok(config)
}

/// Certificates are checked against the system's roots, whatever `sslmode` says beyond `disable`.
fn tls() -> Result<MakeRustlsConnect, PostgresError> {
    paygress_http_client::tls_config().map(MakeRustlsConnect::new).map_err(PostgresError::connect)
}

fn migrate(client: &mut Client, schema: Schema) -> Result<(), PostgresError> {
    let mut transaction = client.transaction().map_err(cannot_open)?;
    // One replica migrates at a time.
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, 0)", &[&-LOCK_CLASS])
        .map_err(cannot_open)?;
    let versions = "CREATE TABLE IF NOT EXISTS paygress_schemas
         (name TEXT PRIMARY KEY, version BIGINT NOT NULL)";
    transaction.batch_execute(versions).map_err(cannot_open)?;
    let found = schema_version(&mut transaction, schema)?;
    for step in schema.steps.iter().skip(found) {
        transaction.batch_execute(step.postgres).map_err(cannot_open)?;
    }
    let version = i64::try_from(schema.steps.len()).unwrap_or(i64::MAX);
    let write = "INSERT INTO paygress_schemas VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET version = excluded.version";
    transaction.execute(write, &[&schema.name, &version]).map_err(cannot_open)?;
    transaction.commit().map_err(cannot_open)
}

/// The schema's version in a database with the table of them, if this program supports it.
fn schema_version(
    transaction: &mut postgres::Transaction<'_>,
    schema: Schema,
) -> Result<usize, PostgresError> {
    let row = transaction
        .query_opt("SELECT version FROM paygress_schemas WHERE name = $1", &[&schema.name])
        .map_err(cannot_open)?;
    let found =
        row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(cannot_open)?.unwrap_or(0);
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    let known = schema.steps.len();
    if found > known {
        return Err(PostgresError::Newer { name: schema.name, found, known });
    }
    Ok(found)
}

/// Takes the lock that marks this replica as alive, for as long as the connection lasts.
fn lock_as_alive(client: &mut Client, replica_id: i32) -> Result<(), postgres::Error> {
    client.batch_execute(&format!(
        "SET tcp_keepalives_idle = {}; SET tcp_keepalives_interval = {}; \
         SET tcp_keepalives_count = 3",
        KEEPALIVE_SECONDS / 3,
        KEEPALIVE_SECONDS / 5
    ))?;
    client.execute("SELECT pg_advisory_lock($1, $2)", &[&LOCK_CLASS, &replica_id]).map(drop)
}

/// Holds the lock that marks this replica as alive: connects and locks again when the connection is
/// lost.
fn stay_alive(
    client: Client,
    config: &Config,
    tls: &MakeRustlsConnect,
    replica_id: i32,
    closing: &AtomicBool,
) {
    let mut client = Some(client);
    while !closing.load(Ordering::Relaxed) {
        let alive = client.as_mut().is_some_and(|client| client.is_valid(TIMEOUT).is_ok());
        if !alive {
            tracing::warn!(
                "connection to Postgres was lost; other replicas may take over this one's orders"
            );
            client = config.connect(tls.clone()).ok();
            if let Some(Err(error)) =
                client.as_mut().map(|client| lock_as_alive(client, replica_id))
            {
                tracing::warn!(%error, "this replica cannot mark itself as alive");
                client = None;
            }
        }
        std::thread::park_timeout(HEARTBEAT);
    }
}

/// Shows the server's message and code, which the library's own text leaves out.
#[derive(Debug)]
struct StatementError(postgres::Error);

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "{} ({})", error.message(), error.code().code()),
            None => self.0.fmt(f),
        }
    }
}

impl Error for StatementError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn cannot_open(error: postgres::Error) -> PostgresError {
    PostgresError::connect(StatementError(error))
}

fn failed(error: postgres::Error) -> DatabaseError {
    DatabaseError::failed(StatementError(error))
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
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

/// Shared statements have their parameters in SQLite's form, `?1`; Postgres' is `$1`. The files in
/// `sql/postgres` have it already. No statement holds a question mark for anything else.
fn with_postgres_parameters(statement: &str) -> String {
    statement.replace('?', "$")
}

/// A transaction, and the error that ended it, which decides whether it is tried again.
struct Attempt<'a> {
    transaction: postgres::Transaction<'a>,
    prepared: &'a mut HashMap<String, Statement>,
    replica_id: i32,
    error: Option<SqlState>,
}

impl Attempt<'_> {
    fn run<T>(
        &mut self,
        call: impl FnOnce(&mut postgres::Transaction<'_>) -> Result<T, postgres::Error>,
    ) -> Result<T, DatabaseError> {
        call(&mut self.transaction).map_err(|error| {
            self.error = error.code().cloned();
            failed(error)
        })
    }

    /// A statement that was not used on this connection before costs a request more.
    fn prepare(&mut self, statement: &str) -> Result<Statement, DatabaseError> {
        if let Some(prepared) = self.prepared.get(statement) {
            return Ok(prepared.clone());
        }
        let prepared =
            self.run(|transaction| transaction.prepare(&with_postgres_parameters(statement)))?;
        if self.prepared.len() >= PREPARED {
            self.prepared.clear();
        }
        self.prepared.insert(statement.to_owned(), prepared.clone());
        Ok(prepared)
    }
}

impl Transaction for Attempt<'_> {
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        let prepared = self.prepare(statement)?;
        self.run(|transaction| transaction.execute(&prepared, &borrowed(values)))
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        let prepared = self.prepare(statement)?;
        let rows = self.run(|transaction| transaction.query(&prepared, &borrowed(values)))?;
        rows.iter().map(read).collect()
    }

    fn replica_id(&self) -> ReplicaId {
        ReplicaId::new(self.replica_id.into())
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
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
        let unreadable = |error: postgres::Error| DatabaseError::unreadable(error);
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

/// Whether another transaction interfered. A unique violation counts: on the next attempt the
/// transaction reads the row that it ran into.
fn is_conflict(state: Option<&SqlState>) -> bool {
    state.is_some_and(|state| {
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNIQUE_VIOLATION,
        ]
        .contains(state)
    })
}

/// Whether what was prepared is out of date: a newer version has changed a table, or the server has
/// forgotten it.
fn is_outdated(state: Option<&SqlState>) -> bool {
    state.is_some_and(|state| {
        [SqlState::FEATURE_NOT_SUPPORTED, SqlState::INVALID_SQL_STATEMENT_NAME].contains(state)
    })
}

impl Postgres {
    /// Runs the body once, and commits. With the failure comes what the server says of it.
    fn attempt(&self, work: &mut Work<'_>) -> Result<(), (Undo, Option<SqlState>)> {
        let pool = self.pool.as_ref().ok_or_else(|| DatabaseError::failed("database is closed"));
        let unavailable = |error: DatabaseError| (Undo::Database(error), None);
        let refused = |error: postgres::Error| {
            let state = error.code().cloned();
            (Undo::Database(failed(error)), state)
        };
        let mut connection = pool
            .map_err(unavailable)?
            .get()
            .map_err(|error| unavailable(DatabaseError::failed(error)))?;
        let Connection { client, prepared } = &mut *connection;
        let begun =
            client.build_transaction().isolation_level(IsolationLevel::Serializable).start();
        let mut attempt = Attempt {
            transaction: begun.map_err(refused)?,
            prepared,
            replica_id: self.replica_id,
            error: None,
        };
        match work(&mut attempt) {
            Ok(()) => attempt.transaction.commit().map_err(refused),
            Err(failure) => {
                if is_outdated(attempt.error.as_ref()) {
                    attempt.prepared.clear();
                }
                Err((failure, attempt.error))
            }
        }
    }
}

impl Backend for Postgres {
    fn free_bytes(&self) -> Result<Option<u64>, DatabaseError> {
        Ok(None)
    }

    fn transact(&self, work: &mut Work<'_>) -> Result<(), Undo> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(*PAUSE.start())
            .with_max_delay(*PAUSE.end())
            .with_factor(2.0)
            .with_jitter()
            .with_max_times(ATTEMPTS)
            .build();
        // Each connection has its own statements.
        let mut prepared_anew = 0..CONNECTIONS;
        loop {
            let Err((failure, state)) = self.attempt(work) else { return Ok(()) };
            if is_outdated(state.as_ref()) && prepared_anew.next().is_some() {
                continue;
            }
            match pauses.next().filter(|_| is_conflict(state.as_ref())) {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(failure),
            }
        }
    }
}
