//! A crowd that can pay, and fewer places: who gets none learns it as soon as all are reserved, and
//! nobody reserves more than they may.

use crate::busy_cluster::BusyCluster;
use crate::slow_mint::SlowMint;
use crate::support::fake::{FakeCluster, Generous, NullResponder, Room, settings};
use crate::{LONGEST_WAIT, Service};
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::store::PortAllocator;
use paygress_core::limits;
use paygress_core::model::ids::{LeaseId, OrderId};
use paygress_core::model::order::State;
use paygress_core::model::refusal::ErrorType;
use paygress_core::orders::{Backends, OrderService, Submission};
use paygress_core::protocol::Response;
use paygress_store::SqlStore;
use paygress_store::db::Database;
use paygress_store::db::testing::Server;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

const ROOM: u32 = 50;
const BUYERS: u64 = 300;

/// All of them have come before the first token is verified.
async fn crowd(service: &Service, kind: &str, buyers: u64) -> Vec<Submission> {
    let mut submissions = Vec::new();
    for number in 0..buyers {
        submissions.push(service.submit(kind, "a", number).await.unwrap());
    }
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    submissions
}

/// How many have got a pod; the others learn that there is no room.
async fn count_sold(submissions: Vec<Submission>) -> u32 {
    let mut sold = 0;
    for submission in submissions {
        match submission.answer().await.unwrap() {
            Response::Access(_) => sold += 1,
            other => {
                let message = &other.error().unwrap().message;
                assert!(message.contains("no node has enough left"), "{message}");
            }
        }
    }
    sold
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_refused_before_the_first_place_is_paid_for() {
    let service = Service::closed(ROOM).await;
    let begun = Instant::now();
    let submissions = crowd(&service, "honest", BUYERS).await;
    service.until(State::Refused, BUYERS - u64::from(ROOM)).await;
    println!("of {BUYERS} buyers all but {ROOM} were refused within {:?}", begun.elapsed());
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), ROOM);
    let paying = service.count(State::Redeeming).await;
    assert!((1..=u64::try_from(2 * limits::ORDERS_AT_ONCE).unwrap()).contains(&paying), "{paying}");
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(count_sold(submissions).await, ROOM, "what fits is sold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_refused_before_the_first_pod_is_validated() {
    let cluster = Arc::new(BusyCluster::new(ROOM));
    let service = Service::on(0, SlowMint::closed(), cluster.with_fake_parts()).await;
    let submissions = crowd(&service, "honest", BUYERS).await;
    service.until(State::Refused, BUYERS - u64::from(ROOM)).await;
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), ROOM);
    // However many have reserved, few load API server and mint at the same time.
    let begun = cluster.begun.load(Ordering::Relaxed);
    assert!(begun <= 2 * limits::ORDERS_AT_ONCE, "{begun} dry runs at once");
    cluster.validating.add_permits(Semaphore::MAX_PERMITS);
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(count_sold(submissions).await, ROOM, "what fits is sold");
}

/// Each has a token of its own, and no swap is answered: the limit is what they keep from others.
#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_not_paid_for_hold_so_many_places() {
    let cluster = FakeCluster { room: Some(400), ..FakeCluster::default() };
    let service = Service::on(0, SlowMint::closed(), Arc::new(cluster).into()).await;
    let submissions = crowd(&service, "honest", BUYERS).await;
    let most = limits::RESERVED_AT_MINT + limits::ORDERS_AT_ONCE;
    let ports = async || usize::try_from(service.ledger.ports_in_use().await.unwrap()).unwrap();
    let begun = Instant::now();
    loop {
        let held = ports().await;
        if held == most {
            break;
        }
        assert!(begun.elapsed() < LONGEST_WAIT, "{held} are reserved");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The others are not even verified.
    assert_eq!(service.mint.begun("honest"), most);
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(u64::from(count_sold(submissions).await), BUYERS);
}

/// Whoever swaps tokens in their own wallet while places are reserved for them pays nothing.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_double_spend_few_places_are_held_beside_the_slots() {
    let cluster = FakeCluster { room: Some(400), ..FakeCluster::default() };
    let service = Service::on(0, SlowMint::closed(), Arc::new(cluster).into()).await;
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    let mut submissions = Vec::new();
    // With these the mint is crowded: the next one hands its slot over.
    let before = limits::ORDERS_AT_ONCE - 1;
    for number in (1_000..).take(before) {
        submissions.push(service.submit("honest", "a", number).await.unwrap());
    }
    service.until(State::Redeeming, u64::try_from(before).unwrap()).await;
    let spent = service.submit("spent", "a", 2_000).await.unwrap().answer().await.unwrap();
    assert_eq!(spent.error().unwrap().error_type, ErrorType::TokenAlreadySpent);
    for number in 0..BUYERS {
        submissions.push(service.submit("honest", "a", number).await.unwrap());
    }
    let begun = Instant::now();
    while service.mint.begun("honest") < limits::ORDERS_AT_ONCE {
        assert!(begun.elapsed() < LONGEST_WAIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Time in which others would be verified.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = service.mint.begun("honest");
    assert!(held <= before + limits::ORDERS_AT_ONCE, "{held} have a place, and none is paid for");
    let all = submissions.len();
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(usize::try_from(count_sold(submissions).await).unwrap(), all);
}

/// Their mint answers nobody whose token is being verified; another order finds that all is sold.
#[tokio::test(flavor = "multi_thread")]
async fn whose_token_is_being_verified_is_refused_with_those_who_wait() {
    const SILENT: usize = 8;
    let cluster = Arc::new(BusyCluster::new(1));
    cluster.validating.add_permits(Semaphore::MAX_PERMITS);
    let service = Service::on(0, SlowMint::closed(), cluster.with_fake_parts()).await;
    let mut submissions = Vec::new();
    let mut numbers = 0..;
    let mut submit = async |kind: &str, orders: usize| {
        for number in numbers.by_ref().take(orders) {
            submissions.push(service.submit(kind, "a", number).await.unwrap());
        }
    };
    // With these the mint is crowded: the next ones are among those that are proven.
    submit("honest", limits::UNPROVEN_AT_ONCE).await;
    submit("silent", SILENT).await;
    let begun = Instant::now();
    while service.mint.begun("silent") < SILENT {
        assert!(begun.elapsed() < LONGEST_WAIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    submit("honest", 2 * limits::ORDERS_AT_ONCE).await;
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    let refused = u64::try_from(submissions.len()).unwrap() - 1;
    service.until(State::Refused, refused).await;
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(count_sold(submissions).await, 1);
}

/// Holds up the transaction that uses it until the test lets it go on.
struct HeldTransaction {
    reached: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Capacity for HeldTransaction {
    fn check(&self, _: &[Reservation], _: &Demand) -> Result<(), NoCapacity> {
        let _ = self.reached.send(());
        // An error once the sender is gone.
        let _ = self.go.lock().unwrap().recv();
        Err(NoCapacity::Nodes)
    }
    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity> {
        Room(0).fits(reserved, tier)
    }
    fn count(&self, _: &[Reservation], _: &Tier, _: u32) -> u32 {
        0
    }
    fn utilisation(&self) -> Utilisation {
        Room(0).utilisation()
    }
}

/// At all replicas one reservation is made after the other.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_before_their_turn_waits_for_nobody_who_reserves() {
    let server = spawn_blocking(|| Server::start().unwrap()).await.unwrap();
    let url = server.new_database().unwrap();
    let database = Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap();
    let mut service = Service::closed(0).await;
    service.ledger = Arc::new(SqlStore::new(database));
    let cluster = FakeCluster { room: Some(0), ..FakeCluster::default() };
    let backends = Backends {
        wallet: service.mint.clone(),
        policy: Arc::new(Generous),
        cluster: Arc::new(cluster).into(),
        ledger: service.ledger.clone(),
        responder: Arc::new(NullResponder),
    };
    service.orders = OrderService::new(settings(), backends);
    let (reached, has_reached) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let held = Arc::new(HeldTransaction { reached, go: Mutex::new(may_go) });
    let ledger = service.ledger.clone();
    let reserving = tokio::spawn(async move {
        let (lease, demand) = (LeaseId::of(&OrderId::random()), Demand::new("a pod".to_owned()));
        ledger.reserve_capacity(&lease, &demand, Some(held)).await
    });
    spawn_blocking(move || has_reached.recv()).await.unwrap().unwrap();
    for number in 0..20 {
        let submission = service.submit("honest", "a", number).await.unwrap();
        let answer = tokio::time::timeout(LONGEST_WAIT, submission.answer()).await;
        let answer = answer.expect("it waits for the reservation").unwrap();
        assert!(answer.error().unwrap().message.contains("no node has enough left"), "{answer:?}");
    }
    drop(go);
    assert_eq!(reserving.await.unwrap().unwrap(), Err(NoCapacity::Nodes));
}
