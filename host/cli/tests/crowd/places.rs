//! A crowd that can pay, and fewer places: who gets none learns it as soon as all are reserved, and
//! nobody reserves more than they may.

use crate::busy_cluster::BusyCluster;
use crate::slow_mint::SlowMint;
use crate::support::fake::FakeCluster;
use crate::{LONGEST_WAIT, Service};
use paygress_core::backend::store::PortAllocator;
use paygress_core::limits;
use paygress_core::model::order::State;
use paygress_core::orders::Submission;
use paygress_core::protocol::Response;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

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
