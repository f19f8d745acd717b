//! How often one order makes the service wait for the disk, and how much it writes: what is in the
//! ledger's write-ahead log, compared with `writes.json`. `cargo xtask bench --counts` prints it.
#![cfg(test)]

use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::{OrderStore, Repetition};
use paygress_core::model::ids::{MessageId, OrderId};
use paygress_core::model::secret::Secret;
use paygress_core::orders::NewOrder;
use paygress_core::protocol::Response;
use paygress_core::testing;
use paygress_sandbox::TestWallet;
use paygress_store::SqlStore;
use paygress_store::db::Database;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/writes.json");
/// What stores the figures of this build as the baseline.
const COMMAND: &str = "cargo xtask bench --counts --bless";
/// Set by that command.
const BLESS: &str = "PAYGRESS_COUNTS_BLESS";
/// More or less pages than the baseline by this much is a change: where a page is full depends on
/// random names. The number of commits does not.
const TOLERANCE_PERCENT: u64 = 10;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Commits, each of which waits for the disk once, and the pages that they write.
type Writes = BTreeMap<String, u64>;

/// All that is in the log, which begins with the file.
fn written(ledger: &Path) -> [u64; 2] {
    let mut path = ledger.as_os_str().to_owned();
    path.push("-wal");
    let log = std::fs::read(path).unwrap();
    let (header, frames) = log.split_at(32);
    let page = u32::from_be_bytes(header[8..12].try_into().unwrap());
    // A frame that does not have the log's salt is of an earlier one.
    let frames: Vec<&[u8]> = frames
        .chunks_exact(usize::try_from(page).unwrap().saturating_add(24))
        .take_while(|frame| frame[8..16] == header[16..24])
        .collect();
    // The last frame of a commit has the size of the database.
    let commits = frames.iter().filter(|frame| frame[4..8] != [0; 4]).count();
    [commits, frames.len()].map(|number| u64::try_from(number).unwrap())
}

fn order(token: String) -> NewOrder {
    NewOrder {
        repetition: Repetition::ByContent,
        message: MessageId::parse(OrderId::random()).unwrap(),
        reply_to: ReplyTo {
            // Its customers come for their answers, so nothing is sent.
            transport: paygress_http::TRANSPORT.to_owned(),
            customer: None,
            address: BTreeMap::new(),
        },
        network: None,
        token: Secret::new(token),
        purchase: testing::spawn(),
        password: Some(Secret::new("a good password")),
    }
}

/// Sells a pod, and waits for the last that is written of its order.
async fn sell(app: &App, payer: &TestWallet, reader: &SqlStore) {
    let token = payer.token(16).await.unwrap();
    let submission = app.orders.submit(order(token)).await.unwrap();
    let id = submission.order().clone();
    let response = submission.answer().await.unwrap();
    assert!(matches!(response, Response::Access(_)), "{response:?}");
    let recorded = async {
        while !reader.order(&id).await.unwrap().is_some_and(|order| order.delivered) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, recorded).await.expect("the delivery is not recorded");
}

fn is_changed(found: &Writes, baseline: &Writes) -> bool {
    let percent = |name: &str| if name == "pages" { TOLERANCE_PERCENT } else { 0 };
    found.len() != baseline.len()
        || found.iter().any(|(name, found)| {
            baseline.get(name).is_none_or(|before| {
                let allowed = before.saturating_mul(percent(name));
                found.abs_diff(*before).saturating_mul(100) > allowed
            })
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_writes_as_much_as_before() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let payer = TestWallet::new(sandbox.mint.url()).await.unwrap();
    payer.fill(1_000).await.unwrap();
    let app = sandbox.app().await.unwrap();
    let ledger = &sandbox.config.ledger;
    let reader = Database::sqlite_read_only(ledger, SqlStore::SCHEMA).await.map(SqlStore::new);
    let reader = reader.unwrap();
    // The first order of a service makes what later ones find.
    sell(&app, &payer, &reader).await;
    let before = written(ledger);
    sell(&app, &payer, &reader).await;
    let [commits, pages] = written(ledger);
    assert!(commits > before[0] && pages > before[1], "the log was begun anew meanwhile");
    let found = Writes::from([
        ("commits".to_owned(), commits.abs_diff(before[0])),
        ("pages".to_owned(), pages.abs_diff(before[1])),
    ]);
    let baseline: Writes =
        serde_json::from_str(&std::fs::read_to_string(BASELINE).unwrap()).unwrap();
    println!("an order writes {found:?}; the baseline is {baseline:?}");
    if std::env::var_os(BLESS).is_some() {
        let stored = serde_json::to_string_pretty(&found).unwrap();
        std::fs::write(BASELINE, format!("{stored}\n")).unwrap();
        return;
    }
    assert!(!is_changed(&found, &baseline), "if that is meant: {COMMAND}");
}

#[test]
fn a_commit_more_is_a_change() {
    let writes = |commits: u64, pages: u64| {
        Writes::from([("commits".to_owned(), commits), ("pages".to_owned(), pages)])
    };
    let baseline = writes(8, 100);
    for (found, expected) in [
        (writes(8, 110), false),
        (writes(8, 90), false),
        (writes(8, 111), true),
        (writes(9, 100), true),
        (writes(7, 100), true),
    ] {
        assert_eq!(is_changed(&found, &baseline), expected, "{found:?}");
    }
    assert!(is_changed(&baseline, &Writes::new()), "there is no baseline");
}
