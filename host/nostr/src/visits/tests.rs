use super::*;
use crate::address::AddressError;
use futures::poll;
use nostr_sdk::Kind;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::task::Poll;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;

const PRIORITIES: [Priority; 2] = [Priority::Paid, Priority::Unpaid];

fn relay(host: usize, path: usize) -> RelayUrl {
    RelayUrl::parse(&format!("wss://relay-{host}.example/{path}")).unwrap()
}

fn customer() -> PublicKey {
    Keys::generate().public_key()
}

/// Each of so many visits that has a place beside the ones before.
async fn acquire(
    slots: &VisitSlots,
    visits: impl IntoIterator<Item = (RelayUrl, PublicKey)>,
    priority: Priority,
) -> Vec<DeliveryPermit<'_>> {
    let mut permits = Vec::new();
    for (relay, customer) in visits {
        permits.extend(slots.acquire(&relay, customer, priority).await.ok());
    }
    permits
}

#[tokio::test(start_paused = true)]
async fn visits_are_bounded_in_all_for_each_host_and_for_each_customer() {
    const MANY: usize = 40;
    let customers: Vec<PublicKey> = (0..MANY).map(|_| customer()).collect();
    let visits = |visit: fn(usize) -> (usize, usize)| -> Vec<(RelayUrl, PublicKey)> {
        let visits = (0..MANY).map(|n| (n, visit(n)));
        visits.map(|(n, (host, owner))| (relay(host, n), customers[owner])).collect()
    };
    for (name, visits, most) in [
        ("to one host", visits(|n| (0, n)), VISITS_OF_HOST),
        ("for one customer", visits(|n| (n, 0)), VISITS_OF_CUSTOMER),
        ("for two customers", visits(|n| (n, n % 2)), 2 * VISITS_OF_CUSTOMER),
        ("to three hosts", visits(|n| (n % 3, n)), 3 * VISITS_OF_HOST),
        ("in all", visits(|n| (n, n)), VISITS),
    ] {
        for priority in PRIORITIES {
            let slots = VisitSlots::new();
            let mut permits = acquire(&slots, visits.clone(), priority).await;
            assert_eq!(permits.len(), most, "{name}, {priority:?}");
            // Another customer's, to another host, does not care for the limits of these.
            let other = slots.acquire(&relay(MANY, 0), customer(), priority).await;
            assert_eq!(other.is_ok(), most < VISITS, "{name}, {priority:?}");
            drop(other);
            permits.clear();
            let again = acquire(&slots, visits.clone(), priority).await;
            assert_eq!(again.len(), most, "{name}, {priority:?}: all have ended");
        }
    }
}

/// The visits that take all slots, by as few customers as can.
fn greedy() -> (PublicKey, Vec<(RelayUrl, PublicKey)>) {
    let customers: Vec<_> = (0..VISITS.div_ceil(VISITS_OF_CUSTOMER)).map(|_| customer()).collect();
    let owners = customers.iter().flat_map(|owner| std::iter::repeat_n(*owner, VISITS_OF_CUSTOMER));
    let visits = (0..VISITS).zip(owners).map(|(n, owner)| (relay(n, 0), owner)).collect();
    (customers[0], visits)
}

#[tokio::test(start_paused = true)]
async fn those_who_have_their_share_do_not_stand_before_others() {
    let (greedy, visits) = greedy();
    let slots = VisitSlots::new();
    let mut permits = acquire(&slots, visits, Priority::Paid).await;
    assert_eq!(permits.len(), VISITS);
    let relays = [100, 101, 102].map(|host| relay(host, 0));
    let begun = Instant::now();
    let more = slots.acquire(&relays[0], greedy, Priority::Paid).await;
    assert!(matches!(more.err(), Some(RelayError::Busy)));
    assert!(begun.elapsed().is_zero(), "refused at once");
    // Others wait, and get what is free in the order in which they came.
    let mut first = pin!(slots.acquire(&relays[0], customer(), Priority::Paid));
    let mut second = pin!(slots.acquire(&relays[1], customer(), Priority::Paid));
    assert!(poll!(first.as_mut()).is_pending() && poll!(second.as_mut()).is_pending());
    permits.pop();
    assert!(poll!(second.as_mut()).is_pending());
    let Poll::Ready(Ok(visit)) = poll!(first.as_mut()) else { panic!("the first still waits") };
    drop(visit);
    let Poll::Ready(Ok(visit)) = poll!(second.as_mut()) else { panic!("the second still waits") };
    // Nobody waits without end.
    let third = slots.acquire(&relays[2], customer(), Priority::Paid).await;
    assert!(matches!(third.err(), Some(RelayError::Busy)));
    let waited = begun.elapsed();
    assert!((VISIT_WAIT..2 * VISIT_WAIT).contains(&waited), "{waited:?}");
    drop(visit);
}

/// Whoever names relays that never answer pays for an order, and has its delivery repeated for days.
#[tokio::test(start_paused = true)]
async fn customers_whose_relays_only_fail_leave_most_visits_to_others() {
    const MANY: usize = 70;
    const LEFT: usize = VISITS - VISITS_OF_FAILING - VISITS_OF_HOST;
    let slots = VisitSlots::new();
    let failing: Vec<PublicKey> = (0..MANY).map(|_| customer()).collect();
    for (host, failing) in failing.iter().enumerate() {
        for path in 0..3 {
            slots.note(&relay(host, path), failing, &Err(RelayError::Timeout));
        }
    }
    // Their lists have others by now.
    let visits = failing.iter().enumerate().map(|(n, failing)| (relay(n, 3), *failing));
    let mut permits = acquire(&slots, visits, Priority::Paid).await;
    assert_eq!(permits.len(), VISITS_OF_FAILING);
    // Those that wait keep nobody from a relay that they name.
    let begun = Instant::now();
    let shared = relay(MANY, 0);
    let wait = |n: usize| Box::pin(slots.acquire(&shared, failing[n], Priority::Paid));
    let mut waiting: Vec<_> = (MANY - VISITS_OF_HOST..MANY).map(wait).collect();
    for visit in &mut waiting {
        assert!(poll!(visit.as_mut()).is_pending());
    }
    let others = (0..VISITS_OF_HOST).map(|_| (shared.clone(), customer()));
    let at_shared = acquire(&slots, others, Priority::Paid).await;
    assert_eq!(at_shared.len(), VISITS_OF_HOST);
    let others = (MANY + 1..MANY + VISITS).map(|host| (relay(host, 0), customer()));
    let elsewhere = acquire(&slots, others.take(LEFT), Priority::Paid).await;
    assert_eq!(elsewhere.len(), LEFT);
    assert!(begun.elapsed().is_zero(), "nobody has waited for them");
    drop((waiting, at_shared, elsewhere));
    // Once one of their relays takes something they are as others are, and so they are in time.
    slots.note(&relay(0, 3), &failing[0], &Ok(()));
    permits.extend(slots.acquire(&relay(0, 4), failing[0], Priority::Paid).await.ok());
    tokio::time::advance(FAILING_KEPT).await;
    permits.extend(slots.acquire(&relay(1, 4), failing[1], Priority::Paid).await.ok());
    assert_eq!(permits.len(), VISITS_OF_FAILING + 2);
}

#[tokio::test(start_paused = true)]
async fn a_customer_with_one_relay_that_fails_is_not_one_whose_relays_only_fail() {
    let slots = VisitSlots::new();
    let customer = customer();
    for path in 0..20 {
        slots.note(&relay(0, path), &customer, &Err(RelayError::Timeout));
        slots.note(&relay(1, 0), &customer, &Ok(()));
        slots.note(&relay(0, path), &customer, &Err(RelayError::Refused("no".to_owned())));
        assert!(slots.failures().times(&customer) < FAILURES_OF_CUSTOMER);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_paid_for_does_not_wait_and_takes_no_slot_of_what_was_paid_for() {
    let (_, visits) = greedy();
    let all = Visits::new(Reach::Any);
    let unpaid = acquire(&all.unpaid, visits.clone(), Priority::Unpaid).await;
    assert_eq!(unpaid.len(), VISITS);
    let begun = Instant::now();
    let more = all.unpaid.acquire(&relay(100, 0), customer(), Priority::Unpaid).await;
    assert!(matches!(more.err(), Some(RelayError::Busy)));
    // The same customers, at the same hosts.
    assert_eq!(acquire(&all.paid, visits, Priority::Paid).await.len(), VISITS);
    assert!(begun.elapsed().is_zero(), "nobody has waited");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_fails_is_left_alone_for_a_while() {
    let failed = || io::Error::other("no");
    for (error, is_the_relays) in [
        (RelayError::Timeout, true),
        (RelayError::Closed, true),
        (RelayError::NoAnswer, true),
        (RelayError::connection(tungstenite::Error::ConnectionClosed), true),
        (RelayError::Address(AddressError::Lookup(failed())), true),
        (RelayError::Address(AddressError::Tcp(failed())), true),
        (RelayError::Address(AddressError::Url), false),
        (RelayError::Refused("blocked: no".to_owned()), false),
        (RelayError::sdk("no"), false),
        (RelayError::Busy, false),
        (RelayError::FailedLately, false),
    ] {
        let (slots, text) = (VisitSlots::new(), error.to_string());
        let [failed, other] = [0, 1].map(|path| relay(0, path));
        slots.note(&failed, &customer(), &Err(error));
        let is_left_alone = async |relay: &RelayUrl| {
            let permit = slots.acquire(relay, customer(), Priority::Paid).await;
            matches!(permit.err(), Some(RelayError::FailedLately))
        };
        assert_eq!(is_left_alone(&failed).await, is_the_relays, "{text}");
        assert!(!is_left_alone(&other).await, "{text}: another relay of that host");
        tokio::time::advance(FAILED_KEPT).await;
        assert!(!is_left_alone(&failed).await, "{text}: after a while");
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_failed_relays_are_remembered() {
    let slots = VisitSlots::new();
    for host in 0..=FAILED_RELAYS {
        slots.note(&relay(host, 0), &customer(), &Err(RelayError::Timeout));
    }
    for (host, is_remembered) in [(0, false), (1, true), (FAILED_RELAYS, true)] {
        assert_eq!(slots.failed().contains(&relay(host, 0)), is_remembered, "{host}");
    }
}

/// Takes connections, and says nothing: nobody accepts them.
#[tokio::test(start_paused = true)]
async fn a_silent_relay_is_visited_once_and_whoever_cuts_the_visit_short_leaves_nothing_behind() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = RelayUrl::parse(&format!("ws://{}", silent.local_addr().unwrap())).unwrap();
    let event = EventBuilder::new(Kind::GiftWrap, "").sign_with_keys(&Keys::generate()).unwrap();
    let (visits, customer) = (Visits::new(Reach::Any), customer());
    for (priority, slots) in [(Priority::Paid, &visits.paid), (Priority::Unpaid, &visits.unpaid)] {
        let is_unused = || {
            let host = relay.host().unwrap().to_string();
            slots.all.available_permits() == VISITS
                && slots.hosts.count(&host) == 0
                && slots.customers.count(&customer) == 0
        };
        {
            let mut cut_short = pin!(visits.send(&relay, &event, customer, priority));
            assert!(poll!(cut_short.as_mut()).is_pending() && !is_unused());
        }
        assert!(is_unused(), "{priority:?}");
        let begun = Instant::now();
        let visited = visits.send(&relay, &event, customer, priority).await;
        assert!(matches!(visited, Err(RelayError::Timeout)), "{visited:?}");
        assert!(begun.elapsed() < 2 * CONNECT_TIMEOUT, "{:?}", begun.elapsed());
        let again = visits.send(&relay, &event, customer, priority).await;
        assert!(matches!(again, Err(RelayError::FailedLately)), "{again:?}");
        assert!(is_unused(), "{priority:?}");
    }
}
