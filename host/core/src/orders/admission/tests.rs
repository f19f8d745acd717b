use super::*;
use crate::model::ids::ProofY;
use crate::model::secret::Secret;
use crate::model::token::TokenInfo;
use crate::model::units::Sat;
use crate::orders::waiting_memory::held_bytes;
use std::net::Ipv4Addr;

const LANES: [Lane; 2] = [Lane::Unproven, Lane::Proven];

fn source(n: u32) -> Source {
    Source::Network(IpAddr::V4(Ipv4Addr::from_bits(n)))
}

fn mint(name: &str) -> MintUrl {
    MintUrl::parse(format!("https://{name}.invalid")).unwrap()
}

/// The place of an order that holds so many bytes.
fn sized(
    admission: &Arc<Admission>,
    n: u32,
    mint: &MintUrl,
    lane: Lane,
    bytes: usize,
) -> Result<Place, Refusal> {
    admission.claim_place(admission.accept(source(n))?, mint, lane, bytes)
}

fn place(admission: &Arc<Admission>, n: u32, mint: &MintUrl, lane: Lane) -> Result<Place, Refusal> {
    sized(admission, n, mint, lane, 0)
}

/// Runs the future once: whether it is done.
async fn is_done<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn fourteen_hundred_forged_orders_do_not_take_the_turn_of_one_that_is_proven() {
    let (admission, mint) = (Arc::new(Admission::default()), mint("a"));
    // Each with a key of its own: that costs nothing.
    let crowd: Vec<Place> =
        (0..1_400).filter_map(|n| place(&admission, n, &mint, Lane::Unproven).ok()).collect();
    assert_eq!(crowd.len(), limits::ORDERS_WAITING, "the others are not looked at");
    assert!(admission.is_crowded(&mint));
    let mut turns: Vec<_> = crowd.iter().map(|place| Box::pin(place.slot())).collect();
    let mut running = Vec::new();
    for turn in &mut turns {
        running.extend(is_done(turn).await);
    }
    assert_eq!(running.len(), limits::UNPROVEN_AT_ONCE);
    let honest = place(&admission, 9_999, &mint, Lane::Proven).unwrap();
    let slot = is_done(&mut Box::pin(honest.slot())).await;
    assert!(slot.is_some(), "it waits for none of them");
    println!("1,400 forged orders: {} wait, a proven one has 0 turns before it", turns.len());
}

#[tokio::test]
async fn sources_take_turns_and_one_source_has_so_many_orders() {
    let (admission, mint) = (Arc::new(Admission::default()), mint("a"));
    let flood: Vec<Place> =
        (0..1_400).filter_map(|_| place(&admission, 1, &mint, Lane::Unproven).ok()).collect();
    assert_eq!(flood.len(), limits::ORDERS_OF_ONE);
    let refusal = place(&admission, 1, &mint, Lane::Unproven).err().unwrap();
    assert_eq!(refusal.code, ErrorType::ResourceUnavailable);
    let mut flooding: Vec<_> = flood.iter().map(|place| Box::pin(place.slot())).collect();
    let mut running = Vec::new();
    for turn in &mut flooding {
        running.extend(is_done(turn).await);
    }
    let other = place(&admission, 2, &mint, Lane::Unproven).unwrap();
    let mut turn = Box::pin(other.slot());
    assert!(is_done(&mut turn).await.is_none());
    // After one more of the flood, however many wait.
    let mut turns = 0;
    let slot = loop {
        drop(running.pop().expect("a running order"));
        turns += 1;
        if let Some(slot) = is_done(&mut turn).await {
            break slot;
        }
    };
    assert!(turns <= 2, "it waited for {turns} turns");
    drop((slot, running, flooding));
    drop(flood);
    assert!(admission.sources.count(&source(2)) > 0);
    drop(turn);
    drop(other);
    assert!(admission.sources.is_empty(), "a source without orders is forgotten");
}

#[tokio::test]
async fn a_mint_that_hangs_holds_up_its_own_orders_only() {
    let admission = Arc::new(Admission::default());
    let (slow, fast) = (mint("slow"), mint("fast"));
    let stuck: Vec<Place> =
        (0..600).filter_map(|n| place(&admission, n, &slow, Lane::Proven).ok()).collect();
    let mut slots = Vec::new();
    let mut turns: Vec<_> = stuck.iter().map(|place| Box::pin(place.slot())).collect();
    for turn in &mut turns {
        slots.extend(is_done(turn).await);
    }
    assert_eq!(slots.len(), limits::ORDERS_AT_ONCE);
    let other = place(&admission, 9_999, &fast, Lane::Unproven).unwrap();
    assert!(is_done(&mut Box::pin(other.slot())).await.is_some());
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_the_slot_to_the_next() {
    let (admission, mint) = (Arc::new(Admission::default()), mint("a"));
    let places: Vec<Place> =
        (0..6).map(|n| place(&admission, n, &mint, Lane::Unproven).unwrap()).collect();
    let mut turns: Vec<_> = places.iter().map(|place| Box::pin(place.slot())).collect();
    let mut slots = Vec::new();
    for turn in &mut turns {
        slots.extend(is_done(turn).await);
    }
    let mut last = turns.pop().unwrap();
    drop(turns.pop());
    drop(slots.pop());
    assert!(is_done(&mut last).await.is_some());
    // A slot that was given and never taken is free again.
    let unclaimed = Box::pin(places.last().unwrap().slot());
    drop(slots);
    drop(unclaimed);
    let mints = admission.mints();
    assert_eq!(mints.by_url.values().map(|at_mint| at_mint.unproven.running).sum::<usize>(), 0);
}

#[tokio::test]
async fn an_order_knows_whether_proven_ones_wait_for_it() {
    let (admission, mint) = (Arc::new(Admission::default()), mint("a"));
    let places: Vec<Place> = (0..32)
        .map(|n| place(&admission, n, &mint, Lane::Proven).unwrap())
        .chain((32..48).map(|n| place(&admission, n, &mint, Lane::Unproven).unwrap()))
        .collect();
    let (proven, unproven) = places.split_at(32);
    let mut running = Vec::new();
    for place in &proven[..limits::ORDERS_AT_ONCE] {
        running.extend(is_done(&mut Box::pin(place.slot())).await);
    }
    assert_eq!(running.len(), limits::ORDERS_AT_ONCE);
    let mut forged = Box::pin(unproven[0].slot());
    assert!(is_done(&mut forged).await.is_none());
    assert!(!proven[0].is_awaited(), "they have slots of their own");
    let mut honest = Box::pin(proven[limits::ORDERS_AT_ONCE].slot());
    assert!(is_done(&mut honest).await.is_none());
    assert!(proven[0].is_awaited() && unproven[0].is_awaited());
    drop(forged);
    drop(running.pop());
    assert!(is_done(&mut honest).await.is_some());
    assert!(!proven[0].is_awaited());
}

/// What an order of the largest token holds.
fn largest() -> usize {
    let y = ProofY::parse("0".repeat(66)).unwrap();
    let ys = vec![y; limits::TOKEN_PROOFS];
    held_bytes(
        &Secret::new("x".repeat(limits::TOKEN_BYTES)),
        &TokenInfo { mint: mint("a"), gross: Sat(1), ys },
    )
}

#[test]
fn the_largest_orders_of_many_mints_hold_so_much_and_each_mint_has_some_of_its_own() {
    const MINTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (admission, largest) = (Arc::new(Admission::default()), largest());
    let (mut places, mut sources) = (Vec::new(), 0..);
    for lane in LANES {
        for mint in MINTS {
            let crowd = sources.by_ref().take(600);
            let claimed =
                crowd.filter_map(|n| sized(&admission, n, &self::mint(mint), lane, largest).ok());
            let claimed: Vec<Place> = claimed.collect();
            // However much the others hold.
            assert!(claimed.len() >= limits::ORDERS_AT_ONCE, "{mint}, {lane:?}");
            places.extend(claimed);
        }
    }
    let held = places.len().saturating_mul(largest);
    println!(
        "9,600 orders with tokens of 60 KB at 8 mints: {} wait and hold {} MiB",
        places.len(),
        held >> 20
    );
    let own = LANES.len() * MINTS.len() * limits::ORDERS_AT_ONCE * largest;
    assert!(held <= LANES.len() * limits::ORDERS_WAITING_BYTES + own);
    // A smaller one may find room where the largest does not.
    let lane = Lane::Unproven;
    let left = admission.memory.left(lane);
    assert!(left < largest);
    let refusal = sized(&admission, u32::MAX, &mint("b"), lane, left + 1).err().unwrap();
    assert_eq!(refusal.code, ErrorType::ResourceUnavailable);
    assert!(sized(&admission, u32::MAX, &mint("b"), lane, left).is_ok());
    drop(places);
    for lane in LANES {
        assert_eq!(admission.memory.left(lane), limits::ORDERS_WAITING_BYTES);
    }
}
