//! What a shadow costs the live orders, and when a spinning policy is stopped. Printed by `cargo
//! xtask bench`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

#[allow(dead_code, unreachable_pub)]
#[path = "../tests/support/fake.rs"]
mod fake;

use fake::{FakeBackends, spawn};
use paygress::config::default_policies;
use paygress_core::Policy;
use paygress_core::backend::policy::{Context, FaultKind, PolicyError, Slot};
use paygress_core::model::order::OrderView;
use paygress_policy::{DEADLINE, Host, PolicyDir, PolicyEngine, Source, Sources, read_component};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Orders with a shadow, and as many without, by turns: what else the machine does meets both.
const ORDERS: usize = 2_000;
/// One follows the other after this: a busy shop, with a hundred orders a second.
const PACE: Duration = Duration::from_millis(10);
const TURN: usize = 100;
const SETTLING: usize = 5;
const SPINS: usize = 20;
/// The first try of a call that may be quick, the ticks of both, and the others on its core.
const ALLOWANCE: Duration = Duration::from_millis(30);

/// The service's way: what is compiled is kept, and calls start from snapshots.
fn host(directory: &Path, sources: &Sources) -> Arc<Host> {
    let engine = PolicyEngine::start(Some(&directory.join("compiled"))).unwrap();
    Host::load(engine.with_snapshots(), sources).unwrap()
}

fn sources() -> Sources {
    PolicyDir::new(default_policies(), BTreeMap::new()).sources().unwrap()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

async fn shadow() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path(), &sources());
    let backends = FakeBackends::new(directory.path(), host.clone()).await;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut compared = 0;
    for turn in 0..3 * ORDERS / TURN {
        // Without, with, and without once more: how far the first and the last differ is noise.
        let kind = turn % 3;
        if kind == 1 {
            host.start_shadow(sources()).unwrap();
        }
        for number in 0..TURN {
            let begun = Instant::now();
            backends.order(10, spawn(None, None)).await;
            // The first ones meet what starting a shadow leaves behind: a compiler's threads, cold
            // pages.
            if number >= SETTLING {
                times[kind].push(begun.elapsed());
            }
            tokio::time::sleep(PACE.saturating_sub(begun.elapsed())).await;
        }
        if kind == 1 {
            let begun = Instant::now();
            let seen = |report: &paygress_policy::ShadowReport| {
                report.comparison.orders == u64::try_from(TURN).unwrap()
            };
            while !seen(&host.shadow_report().unwrap()) {
                assert!(
                    begun.elapsed() < Duration::from_secs(10),
                    "the shadow did not see every order"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            compared += host.stop_shadow().unwrap().comparison.orders;
        }
    }
    let [mut without, mut with, mut again] = times;
    println!("live orders, {ORDERS} each, of which the shadow compared {compared}");
    println!("{:<18}{:>12}{:>12}", "", "p50", "p99");
    for (name, times) in
        [("without", &mut without), ("with a shadow", &mut with), ("without, again", &mut again)]
    {
        println!(
            "{name:<18}{:>9} us{:>9} us",
            percentile(times, 50).as_micros(),
            percentile(times, 99).as_micros()
        );
    }
}

async fn spinning() {
    let hostile = default_policies().join("../plugins-for-tests/hostile.wasm");
    let mut sources = sources();
    sources.insert(Slot::Pricing, Source::plain(read_component(&hostile).unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path(), &sources);
    let order = |tier: &str| OrderView {
        id: "a".to_owned(),
        tier: Some(tier.to_owned()),
        username: "user".to_owned(),
        ..OrderView::default()
    };
    let (mut stopped, mut others) = (Vec::new(), Vec::new());
    for _ in 0..SPINS {
        let spinning = {
            let (host, order) = (Arc::clone(&host), order("spin"));
            tokio::spawn(async move {
                let begun = Instant::now();
                match host.current().quote(&order, &Context::default()).await {
                    Err(PolicyError::Fault(fault))
                        if matches!(fault.kind, FaultKind::Deadline(_)) =>
                    {
                        begun.elapsed()
                    }
                    other => panic!("{other:?}"),
                }
            })
        };
        while !spinning.is_finished() {
            let begun = Instant::now();
            host.current().quote(&order("good"), &Context::default()).await.unwrap();
            others.push(begun.elapsed());
        }
        stopped.push(spinning.await.unwrap());
    }
    let worst = percentile(&mut stopped, 100);
    println!(
        "a spinning policy, {SPINS} times: stopped after at most {:.1} ms; its deadline is {} ms",
        worst.as_secs_f64() * 1e3,
        DEADLINE.as_millis()
    );
    println!(
        "others meanwhile, {} calls: p50 {} us, p99 {} us",
        others.len(),
        percentile(&mut others, 50).as_micros(),
        percentile(&mut others, 99).as_micros()
    );
    assert!(worst <= DEADLINE + ALLOWANCE, "too late");
}

#[tokio::main]
async fn main() {
    spinning().await;
    shadow().await;
}
