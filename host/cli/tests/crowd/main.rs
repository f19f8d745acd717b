//! Crowds that pay nothing: what they may hold, and what one honest customer among them notices.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod busy_cluster;
mod named;
mod places;
mod slow_mint;
#[path = "../support/mod.rs"]
mod support;

use crate::slow_mint::SlowMint;
use crate::support::fake::{FakeCluster, Generous, NullResponder, TOO_LARGE, settings, spawn};
use async_trait::async_trait;
use paygress_core::backend::cluster::Cluster;
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::{LeaseStore, OrderStore, PortAllocator, Repetition, Reporting};
use paygress_core::limits;
use paygress_core::model::ids::{Customer, MessageId};
use paygress_core::model::order::State;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::orders::{Backends, Capture, NewOrder, OrderService, Settings, Submission};
use paygress_core::protocol::Response;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use std::collections::BTreeMap;
use std::ops::RangeFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const CROWD: u64 = 1_400;
/// How long the mint takes for each request.
const LATENCY: Duration = Duration::from_millis(40);
/// Longer than a crowd takes on a busy machine.
const LONGEST_WAIT: Duration = Duration::from_secs(180);

struct Service {
    orders: Arc<OrderService>,
    ledger: Arc<SqlStore>,
    mint: Arc<SlowMint>,
    _directory: TempDir,
}

impl Service {
    /// With a disk and a mint that cost no time.
    async fn fast() -> Self {
        Self::new(0, Duration::ZERO).await
    }

    async fn new(reserve: u64, latency: Duration) -> Self {
        Self::with(reserve, SlowMint::new(latency), FakeCluster::default()).await
    }

    /// With a mint that is closed, and room for so many pods.
    async fn closed(room: u32) -> Self {
        let cluster = FakeCluster { room: Some(room), ..FakeCluster::default() };
        Self::with(0, SlowMint::closed(), cluster).await
    }

    async fn with(reserve: u64, mint: SlowMint, cluster: FakeCluster) -> Self {
        Self::on(reserve, mint, Arc::new(cluster).into()).await
    }

    async fn on(reserve: u64, mint: SlowMint, cluster: Cluster) -> Self {
        let directory = fast_directory().unwrap();
        let file = directory.path().join("ledger.sqlite");
        let ledger = Arc::new(SqlStore::sqlite(&file).await.unwrap().with_reserve(reserve));
        let mint = Arc::new(mint);
        let backends = Backends {
            wallet: mint.clone(),
            policy: Arc::new(Generous),
            cluster,
            ledger: ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        Self {
            orders: OrderService::new(settings(), backends),
            ledger,
            mint,
            _directory: directory,
        }
    }

    /// An order of a customer who sends nothing else: a key costs nothing.
    async fn submit(&self, kind: &str, mint: &str, number: u64) -> Result<Submission, Refusal> {
        self.submit_of(number, kind, mint, number).await
    }

    async fn submit_of(
        &self,
        customer: u64,
        kind: &str,
        mint: &str,
        number: u64,
    ) -> Result<Submission, Refusal> {
        let incoming = NewOrder {
            repetition: Repetition::ByContent,
            message: MessageId::parse(format!("{number:064x}")).unwrap(),
            reply_to: ReplyTo {
                transport: "fake".to_owned(),
                customer: Some(Customer::parse(&format!("{customer:064x}")).unwrap()),
                address: BTreeMap::new(),
            },
            network: None,
            token: Secret::new(format!("{kind}-{mint}-{number:x}")),
            purchase: spawn((kind == TOO_LARGE).then_some(TOO_LARGE), None),
            password: Some(Secret::new("a fake password")),
        };
        self.orders.submit(incoming).await
    }

    /// How many orders are in this state.
    async fn count(&self, state: State) -> u64 {
        let counts = self.ledger.count_by_state().await.unwrap();
        let count = counts.iter().find(|count| count.state == state);
        count.map_or(0, |count| count.orders)
    }

    /// Waits until so many orders are in this state.
    async fn until(&self, state: State, orders: u64) {
        let begun = Instant::now();
        while self.count(state).await != orders {
            assert!(begun.elapsed() < LONGEST_WAIT, "{orders} are not {state:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many orders are refused, or have had no answer.
    async fn until_unpaid(&self, orders: u64) {
        let begun = Instant::now();
        let unpaid = async || {
            self.count(State::Refused).await.saturating_add(self.count(State::PaymentUnknown).await)
        };
        while unpaid().await != orders {
            assert!(begun.elapsed() < LONGEST_WAIT, "{orders} are not unpaid");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Buys, and gives the time that it took.
    async fn buy(&self, mint: &str, number: u64) -> Duration {
        let begun = Instant::now();
        let answer = self.submit("honest", mint, number).await.unwrap().answer().await.unwrap();
        assert!(matches!(answer, Response::Access(_)), "{answer:?}");
        begun.elapsed()
    }
}

/// Honest orders of whose times and figures the median counts: one may meet a pause of the machine.
const HONEST: usize = 7;
/// What an order among forged ones may take beyond twice its quiet time: as long as one request to
/// the mint.
const ALLOWANCE: Duration = LATENCY;

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

struct Medians {
    quiet: Duration,
    crowded: Duration,
    meanwhile: usize,
}

/// Buys without a crowd and with one, in turn.
async fn buy_in_turn(
    without: &Service,
    service: &Service,
    numbers: &mut RangeFrom<u64>,
) -> Medians {
    let (mut quiet, mut crowded, mut meanwhile) = (Vec::new(), Vec::new(), Vec::new());
    for number in numbers.take(HONEST) {
        quiet.push(without.buy("a", number).await);
        let before = service.mint.begun("forged");
        crowded.push(service.buy("a", number).await);
        meanwhile.push(service.mint.begun("forged") - before);
    }
    Medians { quiet: median(quiet), crowded: median(crowded), meanwhile: median(meanwhile) }
}

/// Its quiet time is that at a service without a crowd, in turn with it: what else the machine does
/// delays both.
#[tokio::test(flavor = "multi_thread")]
async fn an_honest_order_among_forged_ones_takes_its_own_time() {
    let (service, without) = (Service::new(0, LATENCY).await, Service::new(0, LATENCY).await);
    // Everything that is made once is there.
    service.buy("a", 1_000_000).await;
    without.buy("a", 1_000_000).await;
    let mut waiting = Vec::new();
    let mut refused = 0;
    for number in 0..CROWD {
        match service.submit("forged", "a", number).await {
            Ok(submission) => waiting.push(submission),
            Err(refusal) => {
                assert_eq!(refusal.code, ErrorType::ResourceUnavailable);
                refused += 1;
            }
        }
    }
    let mut numbers = 1_000_001..;
    let mut medians = buy_in_turn(&without, &service, &mut numbers).await;
    for _ in 0..2 {
        if medians.crowded > 2 * medians.quiet + ALLOWANCE {
            medians = buy_in_turn(&without, &service, &mut numbers).await;
        }
    }
    let Medians { quiet, crowded, meanwhile } = medians;
    // Of another mint, although nothing of it is proven.
    let elsewhere = service.buy("b", 2_000_000).await;
    let left = service.count(State::Received).await;
    println!(
        "{CROWD} forged orders ({refused} refused a place, {left} waiting at the end): an honest \
         one took {} ms, and {} ms without them; at another mint {} ms; {meanwhile} requests of \
         forged tokens meanwhile",
        crowded.as_millis(),
        quiet.as_millis(),
        elsewhere.as_millis()
    );
    assert!(left > 0, "the crowd has gone before the last honest order");
    // Two requests of its own: at most so many rounds of those that run beside it.
    assert!(meanwhile <= 6 * limits::UNPROVEN_AT_ONCE, "{meanwhile} were served before it");
    assert!(crowded <= 2 * quiet + ALLOWANCE, "{crowded:?} among them, {quiet:?} without them");
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_place_is_not_for_forged_orders() {
    let service = Service::closed(1).await;
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    let mut forged = vec![service.submit("forged", "a", 0).await.unwrap()];
    service.until(State::Redeeming, 1).await;
    let honest = service.submit("honest", "a", 1_000_000).await.unwrap();
    // They are refused at once, and it waits.
    for number in 1..=100 {
        forged.push(service.submit("forged", "a", number).await.unwrap());
    }
    service.until(State::Refused, 100).await;
    assert_eq!(service.count(State::Received).await, 1);
    // However many more come while the first is found out.
    let mut answer = Box::pin(honest.answer());
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer.unwrap(),
            submitted = service.submit("forged", "a", u64::try_from(forged.len()).unwrap()) => {
                forged.push(submitted.unwrap());
            }
        }
    };
    assert!(matches!(answer, Response::Access(_)), "{answer:?}");
    println!("{} forged orders got none of one place", forged.len());
    for forged in forged {
        let answer = forged.answer().await.unwrap();
        assert!(answer.error().is_some(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_never_fits_waits_for_no_place() {
    let service = Service::closed(1).await;
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    let _forged = service.submit("forged", "a", 0).await.unwrap();
    service.until(State::Redeeming, 1).await;
    let large = service.submit(TOO_LARGE, "a", 1_000_000).await.unwrap();
    let answer = tokio::time::timeout(limits::ROOM_WAIT / 2, large.answer()).await.unwrap();
    assert!(answer.unwrap().error().unwrap().message.contains("no node is large enough"));
    assert_eq!(service.count(State::Redeeming).await, 1);
}

/// Nor does one whose token pays for none: it would keep forged orders, and with them all without
/// proofs, from every mint.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_pays_for_nothing_waits_for_no_place() {
    let service = Service::closed(1).await;
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    let _forged = service.submit("forged", "a", 0).await.unwrap();
    service.until(State::Redeeming, 1).await;
    let poor = service.submit("poor", "a", 1_000_000).await.unwrap();
    let answer = tokio::time::timeout(limits::ROOM_WAIT / 2, poor.answer()).await.unwrap();
    assert!(answer.unwrap().error().unwrap().message.contains("no node has enough left"));
    assert_eq!(service.count(State::Redeeming).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_orders_hold_few_places_until_they_are_found_out() {
    const ROOM: u32 = 50;
    let service = Service::closed(ROOM).await;
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    let mut submissions = Vec::new();
    for number in 0..300 {
        submissions.push(service.submit("forged", "a", number).await.unwrap());
    }
    let few = u32::try_from(limits::UNPROVEN_AT_ONCE).unwrap();
    service.until(State::Redeeming, few.into()).await;
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), few);
    // One that has money is decided beside them.
    submissions.push(service.submit("honest", "a", 1_000_000).await.unwrap());
    service.until(State::Redeeming, u64::from(few) + 1).await;
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    service.until(State::Refused, 300).await;
    let honest = submissions.pop().unwrap().answer().await.unwrap();
    assert!(matches!(honest, Response::Access(_)), "{honest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_orders_do_not_fill_the_disk() {
    const ORDERS: u64 = 2_048;
    let service = Service::fast().await;
    for number in 0..ORDERS {
        let submission = service.submit("forged", "a", number).await.unwrap();
        let answer = submission.answer().await.unwrap();
        assert_eq!(answer.error().unwrap().error_type, ErrorType::InvalidToken);
    }
    let stored = service.ledger.page(None, u32::MAX).await.unwrap();
    let whole = stored.iter().filter(|order| order.state.agreement().is_some()).count();
    println!("{ORDERS} refused orders: {whole} whole, {} stored", stored.len());
    let most = limits::REFUSED_WHOLE + limits::REFUSED_CHECK_EVERY;
    assert!(whole <= usize::try_from(most).unwrap(), "{whole} are whole");
    // The oldest gets the same answer again, and leaves no lease behind.
    let answer = service.submit("forged", "a", 0).await.unwrap().answer().await.unwrap();
    assert_eq!(answer.error().unwrap().message, "the token is forged");
    assert!(service.ledger.lease(&stored[0].pod()).await.unwrap().is_none());
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_takes_no_new_order() {
    let service = Service::new(u64::MAX, LATENCY).await;
    let refusal = service.submit("honest", "a", 1).await.unwrap_err();
    assert_eq!(refusal.code, ErrorType::ResourceUnavailable);
    assert!(refusal.message.contains("disk") && refusal.message.contains("not taken"));
    assert_eq!(service.mint.begun("honest"), 0, "before money moves");
    assert!(service.ledger.page(None, 10).await.unwrap().is_empty(), "and nothing is written");
    let reasons = service.orders.unready_reasons().await;
    assert!(reasons.iter().any(|reason| reason.contains("disk")), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_payments_hold_few_ports_and_requests_together() {
    let service = Service::fast().await;
    let begun = Instant::now();
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for number in 0..200 {
        let submission = service.submit("lost", "a", number).await.unwrap();
        let id = submission.order().clone();
        // Until its outcome is unknown, or it is refused.
        loop {
            match service.ledger.order(&id).await.unwrap().unwrap().state() {
                State::PaymentUnknown => break,
                State::Refused => {
                    refused += 1;
                    break;
                }
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        waiting.push(submission);
    }
    // They give their ports back as soon as they are worked: none of them is proven.
    while service.ledger.ports_in_use().await.unwrap() > 0 {
        assert!(begun.elapsed() < LONGEST_WAIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let orders = service.count(State::PaymentUnknown).await;
    let repeated = service.mint.resolutions.load(Ordering::Relaxed);
    println!(
        "200 payments without an answer: {orders} unknown, {refused} refused before the swap, no \
         ports, {repeated} repetitions in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    // One more than the limit: those that were being decided meanwhile.
    assert!(orders <= u64::try_from(limits::UNKNOWN_UNPROVEN + limits::UNPROVEN_AT_ONCE).unwrap());
    assert_eq!(refused + orders, 200);
    assert!(u64::try_from(repeated).unwrap() <= begun.elapsed().as_secs() + 2);
    // Of those that are proven, few keep what they have reserved.
    for number in 0..20 {
        service.submit("hung", "c", 2_000_000 + number).await.unwrap();
    }
    service.until(State::PaymentUnknown, orders + 20).await;
    let ports = async || usize::try_from(service.ledger.ports_in_use().await.unwrap()).unwrap();
    while ports().await > limits::UNKNOWN_PORTS_AT_MINT {
        assert!(begun.elapsed() < LONGEST_WAIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A token that cannot be forged is served there all the same, and every token elsewhere.
    service.buy("a", 1_000_000).await;
    service.buy("b", 1_000_001).await;
}

/// Keys and networks cost nothing, a pod does: whoever has one is served where forged tokens have
/// taken the places of all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_forged_tokens_have_shut_is_open_to_customers_with_a_pod() {
    const TENANT: u64 = 1_000_000;
    let service = Service::fast().await;
    service.buy("a", TENANT).await;
    for number in 0..100 {
        service.submit("lost", "a", number).await.unwrap();
    }
    service.until_unpaid(100).await;
    let shut = service.count(State::PaymentUnknown).await;
    let answer = async |customer, number| {
        let submission = service.submit_of(customer, "plain", "a", number).await.unwrap();
        submission.answer().await.unwrap()
    };
    let refused = answer(2_000_000, 2_000_000).await;
    assert_eq!(refused.error().unwrap().error_type, ErrorType::MintNetworkError);
    let served = answer(TENANT, 2_000_001).await;
    assert!(matches!(served, Response::Access(_)), "{served:?}");
    // But not for whatever they send.
    for number in 0..10 {
        service.submit_of(TENANT, "lost", "a", 3_000_000 + number).await.unwrap();
        service.until_unpaid(102 + number).await;
    }
    let of_tenant = service.count(State::PaymentUnknown).await - shut;
    println!("{shut} unknown payments shut a mint; a customer with a pod adds {of_tenant}");
    assert_eq!(usize::try_from(of_tenant).unwrap(), limits::UNKNOWN_OF_ONE);
    let refused = answer(TENANT, 2_000_002).await;
    assert_eq!(refused.error().unwrap().error_type, ErrorType::MintNetworkError);
    service.buy("a", 1_000_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_without_an_answer_run_few_pods() {
    let mut service = Service::fast().await;
    let cluster = Arc::new(FakeCluster::default());
    let backends = Backends {
        wallet: service.mint.clone(),
        policy: Arc::new(Generous),
        cluster: cluster.clone().into(),
        ledger: service.ledger.clone(),
        responder: Arc::new(NullResponder),
    };
    let settings = Settings { capture: Capture::OnceReady, ..settings() };
    service.orders = OrderService::new(settings, backends);
    for number in 0..20 {
        service.submit("hung", "a", number).await.unwrap();
    }
    service.until(State::PaymentUnknown, 20).await;
    let most = cluster.most.load(Ordering::Relaxed);
    println!("20 payments without an answer: {most} pods run unpaid at most");
    assert!((1..=limits::UNPAID_LAUNCHES).contains(&most), "{most}");
}

/// A relay that never answers responses that nobody has paid for.
struct SilentRelay {
    unpaid: AtomicUsize,
    paid: Semaphore,
}

#[async_trait]
impl paygress_core::backend::responder::Responder for SilentRelay {
    async fn send(
        &self,
        _: &ReplyTo,
        response: &Response,
    ) -> Result<(), paygress_core::backend::responder::SendError> {
        if response.is_paid() {
            self.paid.add_permits(1);
            return Ok(());
        }
        self.unpaid.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_nobody_takes_do_not_pile_up_in_memory() {
    const ORDERS: u64 = 1_500;
    let relay = Arc::new(SilentRelay { unpaid: AtomicUsize::new(0), paid: Semaphore::new(0) });
    let mut service = Service::fast().await;
    let backends = Backends {
        wallet: service.mint.clone(),
        policy: Arc::new(Generous),
        cluster: Arc::new(FakeCluster::default()).into(),
        ledger: service.ledger.clone(),
        responder: relay.clone(),
    };
    service.orders = OrderService::new(settings(), backends);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for number in 0..ORDERS {
        let answer = service.submit("forged", "a", number).await.unwrap().answer().await.unwrap();
        assert_eq!(answer.error().unwrap().error_type, ErrorType::InvalidToken);
    }
    // A resume loop finds those that are not delivered, and keeps no more of them.
    service.orders.resume().await.unwrap();
    service.buy("a", 1_000_000).await;
    let delivered = tokio::time::timeout(LONGEST_WAIT, relay.paid.acquire()).await;
    assert!(delivered.is_ok(), "the paid answer waits for the others");
    let (kept, sending) = (tasks() - before, relay.unpaid.load(Ordering::SeqCst));
    println!("{ORDERS} refusals that nobody takes: {kept} are kept, {sending} of them being sent");
    assert_eq!(sending, limits::DELIVERIES_AT_ONCE);
    assert!(kept > sending && kept <= limits::DELIVERIES_WAITING + 8, "{kept} tasks");
}
