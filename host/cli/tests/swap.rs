//! Orders flow while policies are replaced, compared and replayed.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod support;

use futures::StreamExt;
use paygress::commands::ledger::all_orders;
use paygress::config::default_policies;
use paygress_core::Policy;
use paygress_core::backend::policy::{Digests, Slot};
use paygress_core::model::order::{Order, State};
use paygress_policy::{
    Aspect, Candidate, Comparison, Host, PolicyDir, PolicyEngine, Publisher, Revision,
    ShadowReport, Source, Sources, SwapError, Trigger, read_component,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use support::fake::{FakeBackends, spawn};
use tokio::sync::watch;

/// Ten thousand with `SWAP_ORDERS=10000`; a multiple of a hundred.
static ORDERS: LazyLock<usize> = LazyLock::new(|| {
    std::env::var("SWAP_ORDERS").map_or(1_000, |orders| orders.parse().expect("a number"))
});
/// Orders between two swaps.
const ORDERS_A_SWAP: usize = 50;
fn swaps() -> usize {
    *ORDERS / ORDERS_A_SWAP
}

/// Concurrent customers.
const AT_ONCE: usize = 32;

/// Each fills the machine: at the same time they would keep calls from running until their
/// deadlines are over.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn built(path: &str) -> Vec<u8> {
    read_component(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path)).unwrap()
}

fn publisher(directory: &Path) -> Arc<Publisher> {
    let engine = PolicyEngine::start(Some(&directory.join("compiled"))).unwrap();
    Arc::new(
        Publisher::open(
            engine,
            &directory.join("policies"),
            PolicyDir::new(default_policies(), BTreeMap::new()),
        )
        .unwrap(),
    )
}

/// Pricing and duration with the same mark: the decision shows which of them decided.
fn marked(mark: u64) -> Sources {
    let pricing = format!(r#"{{"sats_per_hour": {}}}"#, 60 * mark);
    let duration = format!(r#"{{"refund_step_seconds": {mark}, "minimum_seconds": 1}}"#);
    Sources::from([
        (Slot::Pricing, Source { component: built("plugins/pricing.wasm"), settings: pricing }),
        (Slot::Duration, Source { component: built("plugins/duration.wasm"), settings: duration }),
    ])
}

/// A component that must be rejected, together with a good one.
fn broken(number: usize) -> Sources {
    let mut sources = marked(9_999);
    let hostile = |settings: &str| Source {
        component: built("plugins-for-tests/hostile.wasm"),
        settings: settings.to_owned(),
    };
    let (slot, source) = match number % 4 {
        0 => (Slot::Pricing, hostile(r#"{"configure": "panic"}"#)),
        1 => (Slot::Duration, Source::plain(built("plugins/images.wasm"))),
        2 => (
            Slot::Duration,
            Source {
                component: built("plugins/duration.wasm"),
                settings: r#"{"maximum_seconds": 0}"#.to_owned(),
            },
        ),
        _ => (Slot::Images, Source::plain(built("plugins/images.wasm")[..1_000].to_vec())),
    };
    sources.insert(slot, source);
    sources
}

/// Replaces the policies again and again, every fourth time with a broken set; gives how many were
/// refused.
async fn replace(publisher: Arc<Publisher>, mut progress: watch::Receiver<usize>) -> usize {
    let mut refused = 0;
    for number in 1..=swaps() {
        // One for every so many orders, whatever the machine's pace.
        let due = number * *ORDERS / (swaps() + 1);
        progress.wait_for(|done| *done >= due).await.unwrap();
        let publisher = Arc::clone(&publisher);
        let sources = if number % 4 == 0 {
            broken(number / 4)
        } else {
            marked(u64::try_from(number).unwrap() + 1)
        };
        let swap = move || publisher.publish(&sources, Trigger::Operator);
        match tokio::task::spawn_blocking(swap).await.unwrap() {
            Ok(_) => assert_ne!(number % 4, 0, "a broken one was accepted"),
            Err(SwapError::Rejected(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_flow_while_policies_are_replaced_again_and_again() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path());
    publisher.publish(&marked(1), Trigger::Operator).unwrap();
    let backends = Arc::new(FakeBackends::new(directory.path(), publisher.host().clone()).await);
    let (done, progress) = watch::channel(0_usize);
    let replacing = tokio::spawn(replace(Arc::clone(&publisher), progress));
    let orders = futures::stream::iter(0..*ORDERS).map(|_| {
        let (backends, done) = (Arc::clone(&backends), done.clone());
        async move {
            let answer = backends.order(1_000, spawn(None, None)).await;
            done.send_modify(|done| *done += 1);
            assert!(answer.get("pod_name").is_some(), "{answer}");
        }
    });
    let begun = Instant::now();
    orders.buffer_unordered(AT_ONCE).collect::<()>().await;
    let took = begun.elapsed();
    assert_eq!(replacing.await.unwrap(), swaps() / 4, "each broken one was refused");

    let orders = all_orders(&*backends.ledger).await.unwrap();
    assert_eq!(
        (orders.len(), orders.iter().filter(|order| order.state() == State::Active).count()),
        (*ORDERS, *ORDERS),
        "an order was lost"
    );
    let marks = deciding_sets(&orders, &publisher.history());
    assert!(marks > swaps() / 2, "only {marks} sets decided: the swaps did not meet the orders");
    println!("{} orders under {marks} sets in {:.1} s", *ORDERS, took.as_secs_f64());
}

/// How many sets decided these orders: each a whole one, and one of those that were published.
fn deciding_sets(orders: &[Order], history: &[Revision]) -> usize {
    assert_eq!(history.len(), 2 + swaps() - swaps() / 4);
    let published: BTreeSet<String> =
        history.iter().map(|revision| revision.set[&Slot::Pricing].settings.clone()).collect();
    let digests = |slot| history[0].set[&slot].digest.clone();
    let expected = Digests {
        images: digests(Slot::Images),
        pricing: digests(Slot::Pricing),
        duration: digests(Slot::Duration),
        pod_template: digests(Slot::PodTemplate),
        settings: None,
    };
    let mut marks = BTreeSet::new();
    for order in orders {
        let decision = &order.state.agreement().unwrap().decision;
        let mark = decision.quote.price.msat.0 * 60 / decision.quote.price.seconds.0 / 1_000;
        assert_eq!(decision.refund.unwrap().step.0, mark, "a mixed set decided order {}", order.id);
        assert!(
            published.contains(&format!(r#"{{"sats_per_hour": {}}}"#, 60 * mark)),
            "{mark} was never published"
        );
        assert_eq!(Digests { settings: None, ..decision.digests.clone() }, expected);
        marks.insert(mark);
    }
    marks.len()
}

/// The settings and components of the installation.
fn own() -> Sources {
    PolicyDir::new(default_policies(), BTreeMap::new()).sources().unwrap()
}

/// A pricing that gives half the time for the money.
fn dearer() -> Sources {
    let settings = r#"{"sats_per_hour": 120}"#.to_owned();
    Sources::from([(Slot::Pricing, Source { settings, ..own()[&Slot::Pricing].clone() })])
}

/// How many orders of each of the ten kinds there are.
fn tenth() -> u64 {
    u64::try_from(*ORDERS / 10).unwrap()
}

/// Granted, refused by each slot that may, and topped up.
async fn all_kinds_of_orders(backends: &FakeBackends) {
    let orders = futures::stream::iter(0..*ORDERS).map(async |number| match number % 10 {
        0 => backends.order(10, spawn(Some("galactic"), None)).await,
        1 => backends.order(10, spawn(None, Some("evil.example/miner:1"))).await,
        2 => backends.order(1, spawn(None, None)).await,
        3 => backends.order(100_000, spawn(None, None)).await,
        _ => backends.order(10, spawn(None, None)).await,
    });
    orders.buffer_unordered(AT_ONCE).for_each(|_| std::future::ready(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_replayed_and_shadowed() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path());
    publisher.host().start_shadow(dearer()).unwrap();
    let backends = FakeBackends::new(directory.path(), publisher.host().clone()).await;
    all_kinds_of_orders(&backends).await;
    let orders = all_orders(&*backends.ledger).await.unwrap();
    let granted = orders.iter().filter(|order| order.state() == State::Active).count();
    assert_eq!((orders.len(), granted), (*ORDERS, *ORDERS / 10 * 7));

    let compare = |sources: Sources| {
        let engine = PolicyEngine::start(Some(&directory.path().join("compiled"))).unwrap();
        let candidate = Candidate::new(
            publisher.host().set().with(&engine, &sources).unwrap(),
            sources.keys().copied().collect(),
        );
        let mut comparison = Comparison::default();
        orders.iter().for_each(|order| comparison.add(order, &candidate));
        comparison
    };
    let same = compare(own());
    assert_eq!((same.orders, same.same, same.faults), (10 * tenth(), 10 * tenth(), 0), "{same:?}");
    assert!(
        same.differing.is_empty()
            && same.income_sat == same.would_be_income_sat
            && same.income_sat.0 == tenth() * 61
    );
    let replayed = compare(dearer());
    assert_eq!(
        serde_json::to_string(&replayed).unwrap(),
        serde_json::to_string(&compare(dearer())).unwrap(),
        "to the byte"
    );
    assert_dearer(&replayed);
    assert_shadowed(&shadow_report(publisher.host()).await, &replayed);

    // What the candidate says is used for nothing until it is promoted.
    let mut agreed = orders.iter().filter_map(|order| order.state.agreement());
    assert!(agreed.all(|agreement| agreement.decision.quote.price.msat.0 == 1_000));
    assert_eq!(publisher.promote().unwrap().trigger, Trigger::Promotion);
    assert!(publisher.host().shadow_report().is_none());
}

/// An order of 1 sat is too small now; one that paid far too much still is refused; the others get
/// half the time.
fn assert_dearer(replayed: &Comparison) {
    assert_eq!(replayed.differing[&Aspect::Outcome], tenth());
    assert_eq!(
        (replayed.differing[&Aspect::Price], replayed.differing[&Aspect::Seconds]),
        (7 * tenth(), 6 * tenth()),
        "{replayed:?}"
    );
    assert_eq!(replayed.income_sat.0 - replayed.would_be_income_sat.0, tenth());
    assert_eq!(replayed.sold_seconds.0, tenth() * (6 * 600 + 60));
    assert_eq!(replayed.would_be_sold_seconds.0, 6 * tenth() * 300);
}

/// The report once each order was compared or skipped.
async fn shadow_report(host: &Host) -> ShadowReport {
    let begun = Instant::now();
    loop {
        let report = host.shadow_report().unwrap();
        if report.comparison.orders + report.skipped == 10 * tenth() {
            return report;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{report:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The shadow saw the same orders, and says the same: as far as it could keep up.
fn assert_shadowed(report: &ShadowReport, replayed: &Comparison) {
    // Without a pause it takes what fits into its queue, and what it can beside the orders.
    assert!(report.comparison.orders > 256, "{} were skipped", report.skipped);
    if report.skipped == 0 {
        assert_eq!(
            (report.comparison.same, &report.comparison.differing),
            (replayed.same, &replayed.differing)
        );
    }
    assert_eq!(report.comparison.faults, 0);
    assert!(
        report.candidates.len() == 1
            && report.candidates[0].slot == Slot::Pricing
            && report.candidates[0].calls > 128
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_list_the_images_of_the_active_policy_and_orders_do_without_a_list() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path());
    let backends = FakeBackends::new(directory.path(), publisher.host().clone()).await;
    let listed = async || {
        let catalog = backends.orders.offers().await.unwrap();
        assert_eq!(catalog.offers.len(), 3);
        catalog.images.into_iter().map(|image| image.reference).collect::<Vec<_>>()
    };
    let publish = |component: &str| {
        let sources = Sources::from([(Slot::Images, Source::plain(built(component)))]);
        publisher.publish(&sources, Trigger::Operator).unwrap();
    };
    // Calls of the active policy, whether they fail or not.
    let calls = || {
        let report = publisher.host().report();
        report.iter().find(|stats| stats.slot == Slot::Images).unwrap().calls
    };
    assert_eq!(listed().await, ["paygress.local/ssh:1"]);
    publish("plugins-for-tests/hostile-images.wasm");
    for _ in 0..10 {
        assert_eq!(listed().await, ["debian:13"]);
    }
    assert_eq!(calls(), 1, "whoever reads offers has paid nothing");
    // With a pod leased it lists a thousand images, and with two a huge one.
    for _ in 0..2 {
        let answer = backends.order(10, spawn(None, Some("debian:13"))).await;
        assert_eq!(answer["type"], "access_details", "{answer}");
        publish("plugins/images.wasm");
        assert_eq!(listed().await, ["paygress.local/ssh:1"], "another policy has another list");
        publish("plugins-for-tests/hostile-images.wasm");
        for _ in 0..10 {
            assert!(listed().await.is_empty());
        }
        assert_eq!(calls(), 1, "a fault has cost the most");
    }
}
