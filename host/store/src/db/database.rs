use crate::db::dialect::{Schema, SchemaVersion};
use crate::db::error::DatabaseError;
use crate::db::postgres::{Postgres, PostgresError, PostgresState};
use crate::db::sqlite::{Access, Sqlite, SqliteError};
use crate::db::transaction::{Backend, FailureRecorder, Transaction, Undo};
use paygress_core::model::secret::Secret;
use std::path::Path;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// A database. Cheap to clone; it is closed when the last clone is dropped.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
}

impl Database {
    /// Opens a SQLite file that no other process may open this way at the same time. Creates it if
    /// there is none, and migrates its schema.
    ///
    /// # Errors
    /// [`SqliteError`], which says what to do.
    pub async fn sqlite(path: &Path, schema: Schema) -> Result<Self, SqliteError> {
        Self::open_sqlite(path, schema, Access::Exclusive).await
    }

    /// Opens a SQLite file that other processes may use too. Creates it if there is none, and
    /// migrates its schema.
    ///
    /// # Errors
    /// [`SqliteError`], which says what to do.
    pub async fn sqlite_shared(path: &Path, schema: Schema) -> Result<Self, SqliteError> {
        Self::open_sqlite(path, schema, Access::Shared).await
    }

    /// Opens a SQLite file to read it, while another process may be writing it.
    ///
    /// # Errors
    /// [`SqliteError`], which says what to do.
    pub async fn sqlite_read_only(path: &Path, schema: Schema) -> Result<Self, SqliteError> {
        Self::open_sqlite(path, schema, Access::ReadOnly).await
    }

    async fn open_sqlite(path: &Path, schema: Schema, access: Access) -> Result<Self, SqliteError> {
        let path = path.to_owned();
        let opened = spawn_blocking(move || Sqlite::open(&path, schema, access)).await?;
        Ok(Self { backend: Arc::new(opened?) })
    }

    /// Opens a Postgres database, which other replicas may share, and migrates its schemas.
    ///
    /// # Errors
    /// [`PostgresError`], which says what to do.
    pub async fn postgres(url: &Secret, schemas: &[Schema]) -> Result<Self, PostgresError> {
        let (url, schemas) = (url.clone(), schemas.to_vec());
        let opened = spawn_blocking(move || Postgres::open(&url, &schemas)).await;
        Ok(Self { backend: Arc::new(opened.map_err(PostgresError::connect)??) })
    }

    /// The version of a SQLite file's schema. It is not migrated, and another process may be writing
    /// it.
    ///
    /// # Errors
    /// [`SqliteError`], which says what to do.
    pub async fn sqlite_version(path: &Path, schema: Schema) -> Result<SchemaVersion, SqliteError> {
        let path = path.to_owned();
        spawn_blocking(move || Sqlite::version(&path, schema)).await?
    }

    /// What is in a Postgres database. Nothing is written or migrated, and no lock is taken.
    ///
    /// # Errors
    /// [`PostgresError`], which says what to do.
    pub async fn postgres_state(
        url: &Secret,
        schemas: &[Schema],
    ) -> Result<PostgresState, PostgresError> {
        let (url, schemas) = (url.clone(), schemas.to_vec());
        let state = spawn_blocking(move || PostgresState::read(&url, &schemas)).await;
        state.map_err(PostgresError::connect)?
    }

    /// Whether more than this many bytes are free on its disk. Of a server's disk that is not known:
    /// its operator watches it. Nor does a file system that does not say keep anybody from writing.
    pub async fn has_room(&self, reserve: u64) -> bool {
        let backend = Arc::clone(&self.backend);
        let free = spawn_blocking(move || backend.free_bytes()).await;
        match free.unwrap_or_else(|error| Err(DatabaseError::failed(error))) {
            Ok(free) => free.is_none_or(|free| free > reserve),
            Err(error) => {
                tracing::warn!(%error, "the room on a database's disk is not known");
                true
            }
        }
    }

    /// Runs one transaction on a thread for blocking work; it is on disk when this returns `Ok`.
    /// The body may run more than once, and is undone when it returns `Err`.
    ///
    /// # Errors
    /// The body's own, or the database's.
    pub async fn transact<T, E>(
        &self,
        mut work: impl FnMut(&mut dyn Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let backend = Arc::clone(&self.backend);
        let job = move || {
            let mut output: Option<Result<T, E>> = None;
            let transacted = backend.transact(&mut |transaction| {
                let mut recorder = FailureRecorder::new(transaction);
                let result = work(&mut recorder);
                let undo = match (&result, recorder.into_failure()) {
                    (Ok(_), _) => Ok(()),
                    (Err(_), Some(error)) => Err(Undo::Database(error)),
                    (Err(_), None) => Err(Undo::Caller),
                };
                output = Some(result);
                undo
            });
            match (transacted, output) {
                (Ok(()) | Err(Undo::Caller), Some(output)) => output,
                (Err(Undo::Database(error)), _) => Err(error.into()),
                (_, None) => Err(DatabaseError::failed("a transaction ran nothing").into()),
            }
        };
        spawn_blocking(job).await.unwrap_or_else(|error| Err(DatabaseError::failed(error).into()))
    }
}
