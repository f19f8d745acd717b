//! What concerns the file.

use crate::support::{open, order};
use paygress_core::backend::store::{KvStore, OrderStore};
use paygress_store::SqlStore;
use paygress_store::db::{Database, SqliteError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file in a directory that does not exist yet.
fn new_file() -> (PathBuf, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (directory.path().join("new/ledger.sqlite"), directory)
}

#[tokio::test]
async fn orders_outlive_the_process() {
    let (path, _directory) = new_file();
    let store = SqlStore::sqlite(&path).await.unwrap();
    let kept = order("k1", &["k"]);
    open(&store, &kept).await;
    drop(store);
    let again = SqlStore::sqlite(&path).await.unwrap();
    assert_eq!(again.order(&kept.id).await.unwrap(), Some(kept));
}

#[tokio::test]
async fn one_process_writes_and_others_may_read() {
    let (path, _directory) = new_file();
    let store = SqlStore::sqlite(&path).await.unwrap();
    assert!(matches!(SqlStore::sqlite(&path).await, Err(SqliteError::InUse(_))));
    let kept = order("k1", &["k"]);
    open(&store, &kept).await;
    let reader = SqlStore::new(Database::sqlite_read_only(&path, SqlStore::SCHEMA).await.unwrap());
    assert_eq!(reader.order(&kept.id).await.unwrap(), Some(kept));
    assert!(reader.kv_write("x", "y").await.is_err());
}

#[tokio::test]
async fn no_other_user_may_read_the_files() {
    let (path, _directory) = new_file();
    let store = SqlStore::sqlite(&path).await.unwrap();
    open(&store, &order("k1", &["k"])).await;
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is for others too", entry.path());
    }
}

#[tokio::test]
async fn an_error_says_what_is_wrong_with_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage.sqlite");
    std::fs::write(&garbage, "not a database, and long enough to be read as one ".repeat(100))
        .unwrap();
    assert!(matches!(SqlStore::sqlite(&garbage).await, Err(SqliteError::Database { .. })));
    let newer = directory.path().join("newer.sqlite");
    drop(SqlStore::sqlite(&newer).await.unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqlStore::sqlite(&newer).await, Err(SqliteError::Newer { found: 99, .. })));
    let impossible = Path::new("/proc/none/ledger.sqlite");
    assert!(matches!(SqlStore::sqlite(impossible).await, Err(SqliteError::File { .. })));
    let missing = directory.path().join("missing.sqlite");
    let read = Database::sqlite_read_only(&missing, SqlStore::SCHEMA).await;
    assert!(matches!(read, Err(SqliteError::Missing(path)) if path == missing));
}
