//! What version 0.1.0 has stored, in every state: `host/cli/tests/fixtures/v0.1.0`.

use crate::support::server;
use paygress_core::backend::store::{
    LeaseStore, LeaseUpdate, LedgerError, OrderStore, PortAllocator, Reporting,
};
use paygress_core::model::order::{Order, State};
use paygress_store::SqlStore;
use paygress_store::db::Database;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/fixtures/v0.1.0").join(name)
}

/// The rows of a query whose columns are texts. No comma stands behind the last column.
async fn texts(database: &Database, statement: &str) -> Vec<Vec<String>> {
    let (statement, columns) = (statement.to_owned(), statement.matches(',').count() + 1);
    database
        .transact(move |transaction| {
            let rows = transaction.query(&statement, &[])?;
            let read = |mut row: paygress_store::db::Row| {
                (0..columns).map(|_| Ok(row.optional_text()?.unwrap_or_default())).collect()
            };
            rows.into_iter().map(read).collect::<Result<_, LedgerError>>()
        })
        .await
        .unwrap()
}

/// Reads everything; writes every order again, as it is.
async fn check_reading_and_writing(store: &SqlStore) {
    let counts = store.count_by_state().await.unwrap();
    assert_eq!(counts.len(), State::ALL.len(), "every state: {counts:?}");
    let orders = store.page(None, 1_000).await.unwrap();
    assert_eq!(orders.len(), 62);
    assert!(store.ports_in_use().await.unwrap() > 0);
    assert!(!store.live_leases(None).await.unwrap().is_empty());
    let ids: BTreeSet<_> = orders.iter().filter_map(Order::lease).collect();
    let mut leases = 0;
    for id in ids {
        assert!(!store.orders_of(&id).await.unwrap().is_empty());
        leases += usize::from(store.lease(&id.pod_name()).await.unwrap().is_some());
    }
    assert_eq!(leases, 38);
    // They become this replica's: the one that had them is gone.
    for order in store.unfinished().await.unwrap() {
        store.transition(&order, order.state(), LeaseUpdate::Keep).await.unwrap();
        assert_eq!(store.order(&order.id).await.unwrap(), Some(order));
    }
}

const ROWS: &str = "SELECT id, message, customer, lease, state, CAST(delivered AS TEXT), \
     CAST(created_at AS TEXT), body, token, password, refund_token, CAST(earned AS TEXT) \
     FROM orders ORDER BY id";

async fn check_rows_stay(database: &Database) {
    let before = texts(database, ROWS).await;
    check_reading_and_writing(&SqlStore::new(database.clone())).await;
    let after = texts(database, ROWS).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_sqlite_rows_are_read_and_written_again_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    std::fs::copy(fixture("ledger.sqlite"), &path).unwrap();
    check_rows_stay(&Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_postgres_rows_are_read_and_written_again_unchanged() {
    let server = server();
    let url = server.new_database().unwrap();
    server.run_file(&url, &fixture("ledger.postgres.sql")).unwrap();
    check_rows_stay(&Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap()).await;
}

/// A definition without comments and line breaks.
fn normalized(definition: &str) -> String {
    let code = |line: &str| line.split("--").next().unwrap_or_default().to_owned();
    let text: String = definition.lines().map(|line| code(line) + " ").collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn sqlite_schema(path: &Path) -> BTreeSet<(String, String)> {
    let database = Database::sqlite(path, SqlStore::SCHEMA).await.unwrap();
    let definitions = texts(&database, "SELECT name, sql FROM sqlite_master").await;
    definitions.into_iter().map(|row| (row[0].clone(), normalized(&row[1]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_sqlite_schema_is_that_of_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old.sqlite"), directory.path().join("new.sqlite"));
    std::fs::copy(fixture("ledger.sqlite"), &old).unwrap();
    let old = sqlite_schema(&old).await;
    assert!(old.len() > 10);
    assert_eq!(old, sqlite_schema(&new).await);
}

/// The tables and indexes of the ledger; the fixture holds the wallet's, too.
async fn postgres_schema(database: &Database) -> BTreeSet<Vec<String>> {
    let columns = "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), \
         CAST(data_type AS TEXT), CAST(is_nullable AS TEXT), CAST(column_default AS TEXT) \
         FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE 'purse%'";
    let indexes = "SELECT CAST(indexname AS TEXT), CAST(indexdef AS TEXT) FROM pg_indexes \
         WHERE schemaname = 'public' AND tablename NOT LIKE 'purse%'";
    let mut schema: BTreeSet<_> = texts(database, columns).await.into_iter().collect();
    schema.extend(texts(database, indexes).await);
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn its_postgres_schema_is_that_of_a_new_database() {
    let server = server();
    let (old, new) = (server.new_database().unwrap(), server.new_database().unwrap());
    server.run_file(&old, &fixture("ledger.postgres.sql")).unwrap();
    let old = Database::postgres(&old, &[SqlStore::SCHEMA]).await.unwrap();
    let new = Database::postgres(&new, &[SqlStore::SCHEMA]).await.unwrap();
    let old = postgres_schema(&old).await;
    assert!(old.len() > 20);
    assert_eq!(old, postgres_schema(&new).await);
}
