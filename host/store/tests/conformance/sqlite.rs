//! What concerns the file.

use crate::support::{open, order, sell};
use paygress_core::backend::store::{
    KvStore, LeaseStore, OrderStore, RefundStore, Repetition, Reporting,
};
use paygress_core::model::ids::{LeaseId, OrderId};
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
}

#[tokio::test]
async fn one_damaged_row_keeps_no_other_from_being_served() {
    let (path, _directory) = new_file();
    let store = SqlStore::sqlite(&path).await.unwrap();
    let (damaged, good) = (order("k1", &["a"]), order("k2", &["b"]));
    open(&store, &damaged).await;
    open(&store, &good).await;
    let (of_damaged, damaged_lease) = sell(&store, "k3", 40_000, 200).await;
    let (_, lease) = sell(&store, "k4", 40_001, 200).await;
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let damage = "UPDATE orders SET body = '{}' WHERE id IN (?1, ?2)";
    connection.execute(damage, [damaged.id.as_str(), of_damaged.id.as_str()]).unwrap();
    let damage = "UPDATE leases SET body = '{\"id\": 7}' WHERE id = ?1";
    connection.execute(damage, [damaged_lease.id.as_str()]).unwrap();
    drop(connection);
    let store = SqlStore::sqlite(&path).await.unwrap();
    let ids: Vec<OrderId> =
        store.unfinished().await.unwrap().into_iter().map(|order| order.id).collect();
    assert!(ids.contains(&good.id) && !ids.contains(&damaged.id), "{ids:?}");
    let leases: Vec<LeaseId> =
        store.live_leases(None).await.unwrap().into_iter().map(|lease| lease.id).collect();
    assert_eq!(leases, [lease.id]);
    assert_eq!(store.pending_refunds(None).await.unwrap(), []);
    // Whoever looks at that very row, or at all of them, fails, with its name.
    let failed = store.order(&damaged.id).await.unwrap_err().to_string();
    assert!(failed.contains(&format!("order {}", damaged.id)), "{failed}");
    assert!(store.page(None, 10).await.is_err());
    let same_proofs = order("k5", &["a"]);
    assert!(store.open(&same_proofs, Repetition::ByContent).await.is_err(), "it stays closed");
}
