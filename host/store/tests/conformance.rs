//! What any ledger must do. Every implementation passes this one suite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use paygress_core::backend::cluster::EndReason;
use paygress_core::backend::policy::Resources;
use paygress_core::backend::responder::{ReplyTo, Transport};
use paygress_core::backend::store::{HourlyRevenue, LeaseUpdate, Ledger, LedgerError, OpenOutcome};
use paygress_core::backend::wallet::TokenInfo;
use paygress_core::model::order::{
    Lease, LeaseState, Order, OrderSecrets, Purchase, RefundEnd, State,
};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{
    Customer, LeaseId, MintUrl, OrderId, ProofY, Sat, Seconds, UnixTime,
};
use paygress_store::db::testing::Server;
use paygress_store::db::{Database, OpenError, Schema, Value};
use paygress_store::SqlStore;
use std::collections::HashSet;
use std::sync::Arc;

fn order(message: &str, ys: &[&str]) -> Order {
    let purchase = Purchase::Spawn {
        image: None,
        tier: None,
        username: "user".to_owned(),
        public_key: None,
        wanted: None,
    };
    Order {
        message: message.to_owned(),
        reply_to: ReplyTo {
            door: Transport::Nostr,
            customer: Customer("c".repeat(64)),
            relay: Some("wss://r".to_owned()),
            request: None,
        },
        token_info: TokenInfo {
            mint: MintUrl("https://m".to_owned()),
            gross: Sat(8),
            ys: ys.iter().map(|y| ProofY((*y).to_owned())).collect(),
        },
        created_at: UnixTime(100),
        secrets: OrderSecrets {
            token: Some(Secret::new("cashuBsecret")),
            password: Some(Secret::new("hunter22")),
            refund_token: None,
        },
        ..Order::blank(purchase)
    }
}

fn lease(port: u16, expires_at: u64) -> Lease {
    Lease {
        id: LeaseId::of(&OrderId::random()),
        customer: Customer("c".repeat(64)),
        tier: "basic".to_owned(),
        image: "i:1".to_owned(),
        resources: Resources { cpu_millicores: 1, memory_mib: 1 },
        username: "user".to_owned(),
        port,
        state: LeaseState::Live,
        created_at: UnixTime(100),
        expires_at: Some(UnixTime(expires_at)),
        end: None,
    }
}

async fn opened(ledger: &dyn Ledger, order: &Order) {
    assert_eq!(ledger.open(order).await.unwrap(), OpenOutcome::Created);
}

/// Moves an order through these states.
async fn through(ledger: &dyn Ledger, order: &mut Order, states: &[State]) {
    for state in states {
        let from = order.state;
        order.state = *state;
        ledger.transition(order, from, LeaseUpdate::Keep).await.unwrap();
    }
}

async fn a_proof_pays_once_and_a_refusal_gives_it_free(ledger: &dyn Ledger) {
    let mut first = order("m1", &["y1", "y2"]);
    opened(ledger, &first).await;
    let overlapping = order("m2", &["y2", "y3"]);
    assert!(
        matches!(ledger.open(&overlapping).await.unwrap(), OpenOutcome::ProofConflict(other) if other.id == first.id)
    );
    assert!(ledger.order(&overlapping.id).await.unwrap().is_none(), "nothing of it was written");
    opened(ledger, &order("m3", &["y3"])).await;
    let again = order("m1", &["y9"]);
    assert!(
        matches!(ledger.open(&again).await.unwrap(), OpenOutcome::Duplicate(known) if known.id == first.id),
        "one message is one order"
    );
    through(ledger, &mut first, &[State::Refused]).await;
    opened(ledger, &order("m4", &["y1", "y2"])).await;
}

async fn only_who_knows_the_state_moves_the_order(ledger: &dyn Ledger) {
    let mut moved = order("s1", &["s"]);
    opened(ledger, &moved).await;
    let mut late = moved.clone();
    through(ledger, &mut moved, &[State::Decided, State::Redeeming]).await;
    late.state = State::Decided;
    let refused = ledger.transition(&late, State::Received, LeaseUpdate::Keep).await;
    assert!(matches!(refused, Err(LedgerError::Conflict { .. })));
    assert_eq!(ledger.order(&moved.id).await.unwrap().unwrap().state, State::Redeeming);
}

async fn what_is_written_is_read_secrets_apart(ledger: &dyn Ledger) {
    let mut written = order("w1", &["w"]);
    opened(ledger, &written).await;
    written.redeemed = Some(Sat(7));
    written.secrets.token = None;
    written.secrets.refund_token = Some(Secret::new("cashuBrefund"));
    written.state = State::Decided;
    ledger.transition(&written, State::Received, LeaseUpdate::Keep).await.unwrap();
    assert_eq!(ledger.order(&written.id).await.unwrap().unwrap(), written);
    assert!(
        !serde_json::to_string(&written).unwrap().contains("cashuB"),
        "no secret in what is serialised"
    );
}

async fn unfinished_is_what_needs_work_or_an_answer(ledger: &dyn Ledger) {
    let ids = async || {
        ledger.unfinished().await.unwrap().into_iter().map(|order| order.id).collect::<HashSet<_>>()
    };
    let mut working = order("u1", &["u1"]);
    let mut answered = order("u2", &["u2"]);
    let mut refunding = order("u3", &["u3"]);
    for order in [&working, &answered, &refunding] {
        opened(ledger, order).await;
    }
    through(ledger, &mut working, &[State::Decided]).await;
    through(ledger, &mut answered, &[State::Refused]).await;
    through(ledger, &mut refunding, &[State::RefundPending]).await;
    ledger.delivered(&refunding.id, refunding.state).await.unwrap();
    assert!(
        ids()
            .await
            .is_superset(&[working.id.clone(), answered.id.clone(), refunding.id.clone()].into())
    );
    ledger.delivered(&answered.id, answered.state).await.unwrap();
    let left = ids().await;
    assert!(
        left.contains(&working.id) && left.contains(&refunding.id) && !left.contains(&answered.id)
    );
}

async fn ports_are_each_reserved_once(ledger: &dyn Ledger) {
    let (a, b, c) = (
        LeaseId::of(&OrderId::random()),
        LeaseId::of(&OrderId::random()),
        LeaseId::of(&OrderId::random()),
    );
    let before = ledger.ports_in_use().await.unwrap();
    let range = 40_000..=40_001;
    let first = ledger.reserve_port(&a, range.clone()).await.unwrap().unwrap();
    assert_eq!(
        ledger.reserve_port(&a, range.clone()).await.unwrap(),
        Some(first),
        "a lease keeps its port"
    );
    let second = ledger.reserve_port(&b, range.clone()).await.unwrap().unwrap();
    assert_ne!(first, second);
    assert_eq!(ledger.reserve_port(&c, range.clone()).await.unwrap(), None, "all are taken");
    assert_eq!(
        ledger.reassign_port(&a, range.clone()).await.unwrap(),
        None,
        "there is no other one…"
    );
    assert_eq!(
        ledger.reserve_port(&a, range.clone()).await.unwrap(),
        Some(first),
        "…and it keeps its own"
    );
    assert_eq!(ledger.ports_in_use().await.unwrap(), before + 2);
    ledger.release_port(&b).await.unwrap();
    assert_eq!(ledger.reassign_port(&a, range.clone()).await.unwrap(), Some(second));
    assert_eq!(ledger.reserve_port(&c, range.clone()).await.unwrap(), Some(first));
    ledger.release_port(&a).await.unwrap();
    ledger.release_port(&c).await.unwrap();
    assert_eq!(ledger.ports_in_use().await.unwrap(), before);
    assert_eq!(ledger.reserve_port(&a, 65_535..=65_535).await.unwrap(), Some(65_535));
    ledger.release_port(&a).await.unwrap();
}

async fn extensions_at_once_both_count(ledger: Arc<dyn Ledger>) {
    let sold = lease(41_000, 1_000);
    let mut first = order("e0", &["e0"]);
    opened(&*ledger, &first).await;
    first.state = State::Decided;
    ledger.transition(&first, State::Received, LeaseUpdate::Put(&sold)).await.unwrap();
    let extend = |n: u64| {
        let (ledger, pod) = (Arc::clone(&ledger), sold.pod());
        tokio::spawn(async move {
            let mut order = order(&format!("e{n}"), &[&format!("e{n}")]);
            opened(&*ledger, &order).await;
            order.state = State::Provisioning;
            ledger
                .transition(&order, State::Received, LeaseUpdate::Extend(&pod, Seconds(n)))
                .await
                .unwrap();
            order
        })
    };
    let mut orders = Vec::new();
    for task in [extend(10), extend(200), extend(3_000)] {
        orders.push(task.await.unwrap());
    }
    let end = async || ledger.lease(&sold.pod()).await.unwrap().unwrap().expires_at;
    assert_eq!(end().await, Some(UnixTime(4_210)));
    orders[1].state = State::RefundPending;
    ledger
        .transition(
            &orders[1],
            State::Provisioning,
            LeaseUpdate::Shorten(&sold.pod(), Seconds(200)),
        )
        .await
        .unwrap();
    assert_eq!(end().await, Some(UnixTime(4_010)));
    let mut ended = sold.clone();
    ended.state = LeaseState::Ended;
    ledger.end_lease(&ended, &[]).await.unwrap();
    assert_eq!(extend(7).await.unwrap().state, State::Provisioning);
    assert_eq!(end().await, ended.expires_at, "what has ended is not extended");
}

async fn the_end_of_a_lease_frees_its_port_and_wipes_its_login(ledger: &dyn Ledger) {
    let mut sold = lease(0, 500);
    sold.port = ledger.reserve_port(&sold.id, 42_000..=42_000).await.unwrap().unwrap();
    let mut order = order("l1", &["l1"]);
    opened(ledger, &order).await;
    order.lease = Some(sold.id.clone());
    order.state = State::Active;
    ledger.transition(&order, State::Received, LeaseUpdate::Put(&sold)).await.unwrap();
    let mine = Customer("c".repeat(64));
    assert!(ledger.live_leases(Some(&mine)).await.unwrap().contains(&sold));
    assert!(!ledger.live_leases(Some(&Customer("d".repeat(64)))).await.unwrap().contains(&sold));
    ledger.mark_ending(&sold.pod(), EndReason::Stopped).await.unwrap();
    assert_eq!(ledger.lease(&sold.pod()).await.unwrap().unwrap().end, Some(EndReason::Stopped));
    sold.state = LeaseState::Ended;
    sold.end = Some(EndReason::Expired);
    // Whoever ends it must know all of its active orders.
    assert!(matches!(ledger.end_lease(&sold, &[]).await, Err(LedgerError::Conflict { .. })));
    assert!(
        ledger.live_leases(None).await.unwrap().iter().any(|live| live.id == sold.id),
        "nothing was written"
    );
    order.state = State::Ended;
    order.secrets.password = None;
    ledger.delivered(&order.id, State::Active).await.unwrap();
    ledger.end_lease(&sold, std::slice::from_ref(&order)).await.unwrap();
    assert_eq!(ledger.lease(&sold.pod()).await.unwrap(), Some(sold.clone()));
    assert!(!ledger.live_leases(None).await.unwrap().contains(&sold));
    let ended = ledger.order(&order.id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.secrets.password, ended.delivered), (State::Ended, None, true));
    assert_eq!(ledger.orders_of(&sold.id).await.unwrap().len(), 1);
    assert_eq!(
        ledger.reserve_port(&LeaseId::of(&OrderId::random()), 42_000..=42_000).await.unwrap(),
        Some(42_000)
    );
}

async fn refunds_wait_until_they_are_claimed(ledger: &dyn Ledger) {
    let mut refunded = order("r1", &["r1"]);
    opened(ledger, &refunded).await;
    refunded.secrets.refund_token = Some(Secret::new("cashuBrefund"));
    through(ledger, &mut refunded, &[State::RefundPending, State::Refunded]).await;
    ledger.delivered(&refunded.id, refunded.state).await.unwrap();
    let waits = async || {
        ledger.pending_refunds(None).await.unwrap().iter().any(|order| order.id == refunded.id)
    };
    assert!(waits().await);
    let of = async |customer: &str| {
        ledger.pending_refunds(Some(&Customer(customer.repeat(64)))).await.unwrap()
    };
    assert!(of("c").await.iter().any(|order| order.id == refunded.id) && of("d").await.is_empty());
    let mut pending = order("r2", &["r2"]);
    opened(ledger, &pending).await;
    through(ledger, &mut pending, &[State::RefundPending]).await;
    assert!(of("c").await.iter().any(|order| order.id == pending.id), "it is being made");
    refunded.refund_end = Some(RefundEnd::Reclaimed(Sat(3)));
    refunded.secrets.refund_token = None;
    ledger.close_refund(&refunded).await.unwrap();
    assert!(!waits().await);
    assert!(
        matches!(ledger.close_refund(&refunded).await, Err(LedgerError::Conflict { .. })),
        "it ends once"
    );
    let stored = ledger.order(&refunded.id).await.unwrap().unwrap();
    assert_eq!((stored.refund_end, stored.delivered), (refunded.refund_end, true));
}

async fn a_refused_request_may_be_sent_again(ledger: &dyn Ledger) {
    let asked = |door| {
        let mut order = order("h1", &["h1"]);
        order.reply_to.door = door;
        order
    };
    let mut first = asked(Transport::Http);
    opened(ledger, &first).await;
    assert!(
        matches!(ledger.open(&asked(Transport::Http)).await.unwrap(), OpenOutcome::Duplicate(known) if known.id == first.id)
    );
    through(ledger, &mut first, &[State::Refused]).await;
    ledger.delivered(&first.id, first.state).await.unwrap();
    let second = asked(Transport::Http);
    opened(ledger, &second).await;
    let kept = ledger.order(&first.id).await.unwrap().unwrap();
    assert_eq!(
        (kept.message, kept.delivered),
        (format!("h1:{}", first.id), true),
        "and the first one is still there"
    );
    assert!(
        matches!(ledger.open(&asked(Transport::Http)).await.unwrap(), OpenOutcome::Duplicate(known) if known.id == second.id)
    );
    // A message's words are its id: it is answered as before.
    let mut message = order("n1", &["n1"]);
    opened(ledger, &message).await;
    through(ledger, &mut message, &[State::Refused]).await;
    assert!(matches!(ledger.open(&order("n1", &["n1"])).await.unwrap(), OpenOutcome::Duplicate(_)));
}

async fn what_was_taken_is_told_by_the_hour(ledger: &dyn Ledger) {
    for (n, at) in [(1, 7_200), (2, 7_300), (3, 90_000)] {
        let mut paid = order(&format!("t{n}"), &[&format!("t{n}")]);
        paid.created_at = UnixTime(at);
        opened(ledger, &paid).await;
        paid.redeemed = Some(Sat(10 * n));
        // A part of it went back.
        (paid.refunded, paid.refund_fee) = (Some(Sat(3)), Some(Sat(1)));
        through(ledger, &mut paid, &[State::Paid]).await;
    }
    let hour =
        |from, orders, earned| HourlyRevenue { from: UnixTime(from), orders, earned: Sat(earned) };
    assert_eq!(
        ledger.revenue(UnixTime(7_000)).await.unwrap(),
        [hour(7_200, 2, 22), hour(90_000, 1, 26)]
    );
    assert_eq!(ledger.revenue(UnixTime(8_000)).await.unwrap(), [hour(90_000, 1, 26)]);
    let count_by_state = ledger.count_by_state().await.unwrap();
    assert!(count_by_state.contains(&(State::Paid, 3)), "{count_by_state:?}");
}

/// A ledger as version 1 left it knows what its orders have brought.
async fn an_old_ledger_is_brought_up(old: Database, reopen: impl AsyncFnOnce() -> Database) {
    let mut paid = order("old", &["old"]);
    paid.redeemed = Some(Sat(9));
    (paid.refunded, paid.refund_fee) = (Some(Sat(2)), Some(Sat(1)));
    paid.refund_end = Some(RefundEnd::Reclaimed(Sat(2)));
    let body = serde_json::to_string(&paid).unwrap();
    let id = paid.id.clone();
    old.transact(move |transaction| {
        let insert = "INSERT INTO orders (id, message, customer, state, created_at, worker, body) VALUES (?1, ?1, '', 'paid', 100, 0, ?2)";
        Ok::<_, LedgerError>(transaction.execute(insert, &[Value::from(&id.0), Value::from(&body)])?)
    })
    .await
    .unwrap();
    drop(old);
    let book = SqlStore::new(reopen().await);
    assert_eq!(
        book.revenue(UnixTime(0)).await.unwrap(),
        [HourlyRevenue { from: UnixTime(0), orders: 1, earned: Sat(8) }]
    );
    assert_eq!(paid.earned(), Sat(8), "as for a new one");
}

/// The schema of version 1.
const FIRST: Schema =
    Schema { name: SqlStore::SCHEMA.name, steps: SqlStore::SCHEMA.steps.split_at(1).0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_version_1_is_brought_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    let old = Database::sqlite(&path, FIRST).unwrap();
    an_old_ledger_is_brought_up(old, async || Database::sqlite(&path, SqlStore::SCHEMA).unwrap())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_of_version_1_is_brought_up() {
    let server = Server::start().unwrap();
    let old = Database::postgres(&server.url(), &[FIRST]).await.unwrap();
    an_old_ledger_is_brought_up(old, async || {
        Database::postgres(&server.url(), &[SqlStore::SCHEMA]).await.unwrap()
    })
    .await;
}

async fn all_orders_are_paged_through_and_old_refused_ones_forgotten(ledger: &dyn Ledger) {
    let mut old = order("o1", &["o1"]);
    old.created_at = UnixTime(7);
    opened(ledger, &old).await;
    through(ledger, &mut old, &[State::Refused]).await;
    let mut all: Vec<Order> = Vec::new();
    loop {
        let page = ledger.page(all.last().map(|order| &order.id), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    let ids: HashSet<&OrderId> = all.iter().map(|order| &order.id).collect();
    assert_eq!((ids.len(), &all[0].id), (all.len(), &old.id), "each once, the oldest first");
    assert_eq!(
        ledger.forget_refused(UnixTime(8)).await.unwrap(),
        0,
        "its answer was not delivered"
    );
    ledger.delivered(&old.id, old.state).await.unwrap();
    assert_eq!(ledger.forget_refused(UnixTime(8)).await.unwrap(), 1);
    assert_eq!(ledger.order(&old.id).await.unwrap(), None);
    // A refused top-up of long ago does not take the lease with it that others have paid for.
    let (mut sold, mut over) = (order("o2", &["o2"]), lease(41_999, 500));
    over.state = LeaseState::Ended;
    sold.lease = Some(over.id.clone());
    opened(ledger, &sold).await;
    sold.state = State::Decided;
    ledger.transition(&sold, State::Received, LeaseUpdate::Put(&over)).await.unwrap();
    let mut refused = order("o3", &["o3"]);
    (refused.created_at, refused.lease) = (UnixTime(7), Some(over.id.clone()));
    opened(ledger, &refused).await;
    through(ledger, &mut refused, &[State::Refused]).await;
    ledger.delivered(&refused.id, refused.state).await.unwrap();
    assert_eq!(ledger.forget_refused(UnixTime(8)).await.unwrap(), 1);
    assert_eq!(ledger.lease(&over.pod()).await.unwrap(), Some(over));
}

async fn ids_are_remembered_and_forgotten(ledger: &dyn Ledger) {
    let now = UnixTime(1_000);
    assert!(ledger.claim_message("i1", now).await.unwrap());
    assert!(ledger.claim_message("i1", now).await.unwrap(), "this process may try again");
    ledger.complete_message("i1", now, UnixTime(0)).await.unwrap();
    ledger.complete_message("i1", now, UnixTime(0)).await.unwrap();
    assert!(!ledger.claim_message("i1", now).await.unwrap());
    ledger.complete_message("i2", UnixTime(3_000), UnixTime(2_000)).await.unwrap();
    assert!(
        ledger.claim_message("i1", now).await.unwrap()
            && !ledger.claim_message("i2", now).await.unwrap()
    );
    assert_eq!(ledger.kv_read("n").await.unwrap(), None);
    ledger.kv_write("n", "1").await.unwrap();
    ledger.kv_write("n", "2").await.unwrap();
    assert_eq!(ledger.kv_read("n").await.unwrap().as_deref(), Some("2"));
}

async fn conforms(ledger: Arc<dyn Ledger>) {
    a_proof_pays_once_and_a_refusal_gives_it_free(&*ledger).await;
    only_who_knows_the_state_moves_the_order(&*ledger).await;
    what_is_written_is_read_secrets_apart(&*ledger).await;
    unfinished_is_what_needs_work_or_an_answer(&*ledger).await;
    ports_are_each_reserved_once(&*ledger).await;
    extensions_at_once_both_count(Arc::clone(&ledger)).await;
    the_end_of_a_lease_frees_its_port_and_wipes_its_login(&*ledger).await;
    refunds_wait_until_they_are_claimed(&*ledger).await;
    a_refused_request_may_be_sent_again(&*ledger).await;
    what_was_taken_is_told_by_the_hour(&*ledger).await;
    all_orders_are_paged_through_and_old_refused_ones_forgotten(&*ledger).await;
    ids_are_remembered_and_forgotten(&*ledger).await;
    many_at_once_get_what_one_after_the_other_would(ledger).await;
}

/// The same proof, port and message for many at the same moment: one gets it.
async fn many_at_once_get_what_one_after_the_other_would(ledger: Arc<dyn Ledger>) {
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let opening =
                    ledger.open(&order(&format!("many{n}"), &["contended"])).await.unwrap();
                let port = ledger
                    .reserve_port(&LeaseId::of(&OrderId::random()), 43_000..=43_004)
                    .await
                    .unwrap();
                (opening == OpenOutcome::Created, port)
            })
        })
        .collect();
    let (mut opened, mut ports) = (0, Vec::new());
    for task in tasks {
        let (won, port) = task.await.unwrap();
        opened += usize::from(won);
        ports.extend(port);
    }
    assert_eq!(opened, 1, "a proof pays for one order");
    assert_eq!(
        (ports.len(), ports.iter().collect::<HashSet<_>>().len()),
        (5, 5),
        "each port once, and none left over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(Arc::new(SqlStore::sqlite(&directory.path().join("ledger.sqlite")).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    let server = Server::start().unwrap();
    let open = async || {
        SqlStore::new(Database::postgres(&server.url(), &[SqlStore::SCHEMA]).await.unwrap())
    };
    conforms(Arc::new(open().await)).await;
    // Again, beside another replica, on a schema that is there.
    let (_other, ledger) = (open().await, open().await);
    assert!(!ledger.page(None, 1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_postgres_an_order_is_one_living_replicas() {
    let server = Server::start().unwrap();
    let open = async || {
        SqlStore::new(Database::postgres(&server.url(), &[SqlStore::SCHEMA]).await.unwrap())
    };
    let (first, second) = (open().await, open().await);
    let mut sold = order("p1", &["p1"]);
    opened(&first, &sold).await;
    assert!(first.claim_message("message", UnixTime(1)).await.unwrap());
    assert!(second.unfinished().await.unwrap().is_empty(), "its replica lives");
    assert!(!second.claim_message("message", UnixTime(1)).await.unwrap());
    sold.state = State::Decided;
    let refused = second.transition(&sold, State::Received, LeaseUpdate::Keep).await;
    assert!(matches!(refused, Err(LedgerError::Conflict { .. })), "it is another's to move");
    drop(first);
    // Postgres lets go of what a connection held when it has seen it close.
    let begun = std::time::Instant::now();
    let taken = loop {
        let taken = second.unfinished().await.unwrap();
        if !taken.is_empty() {
            break taken;
        }
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(20),
            "a dead replica's order is not taken up"
        );
    };
    assert_eq!(taken.iter().map(|order| &order.id).collect::<Vec<_>>(), [&sold.id]);
    second.transition(&sold, State::Received, LeaseUpdate::Keep).await.unwrap();
    assert!(second.claim_message("message", UnixTime(1)).await.unwrap(), "and so is its message");
}

#[tokio::test]
async fn sqlite_survives_its_process_and_is_for_one_process_and_user() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/ledger.sqlite");
    let ledger = SqlStore::sqlite(&path).unwrap();
    assert!(matches!(SqlStore::sqlite(&path), Err(OpenError::InUse(_))));
    let kept = order("k1", &["k"]);
    opened(&ledger, &kept).await;
    let reader = SqlStore::new(Database::sqlite_to_read(&path, SqlStore::SCHEMA).unwrap());
    assert_eq!(
        reader.order(&kept.id).await.unwrap(),
        Some(kept.clone()),
        "who only reads may, beside it"
    );
    assert!(reader.kv_write("x", "y").await.is_err());
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?} is for others too",
            entry.path()
        );
    }
    drop(ledger);
    let again = SqlStore::sqlite(&path).unwrap();
    assert_eq!(again.order(&kept.id).await.unwrap(), Some(kept));
}

#[test]
fn sqlite_says_what_is_wrong_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage.sqlite");
    std::fs::write(&garbage, "not a database, and long enough to be looked at as one ".repeat(100))
        .unwrap();
    assert!(matches!(SqlStore::sqlite(&garbage), Err(OpenError::Database { .. })));
    let newer = directory.path().join("newer.sqlite");
    drop(SqlStore::sqlite(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqlStore::sqlite(&newer), Err(OpenError::Newer { found: 99, .. })));
    assert!(matches!(
        SqlStore::sqlite(std::path::Path::new("/proc/none/ledger.sqlite")),
        Err(OpenError::File { .. })
    ));
}
