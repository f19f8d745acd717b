//! Thousands of leases, on nodes that kwok plays: `cargo xtask cluster scale` prints what they cost,
//! beside its goals.
//!
//! ```text
//! site ─▶ run: a burst ─▶ beside the bare libraries (bare) ─▶ many leases ─▶ orders beside these
//!          └▶ api: what that requests of the API server; processors: who uses them
//! ```

mod api;
mod bare;
mod processors;
mod run;
mod site;

use crate::support::testbed::{CLUSTER, sized};
use run::{Numbers, Phase, run};
use std::time::Duration;

/// `cargo xtask cluster scale` sets it.
const REQUESTED: &str = "SCALE_FIGURES";
/// How many leases the figures are of, in place of those that the goals name; orders in proportion.
const NUMBER: &str = "SCALE_LEASES";
/// By how much the requests of a lease may differ: a write that meets another client's is repeated.
const TOLERANCE: f64 = 1.2;

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn no_order_is_lost_and_a_lease_costs_as_many_requests_beside_others() {
    let _alone = CLUSTER.lock();
    let (leases, burst, busy) = sized((50, 20, 15), (80, 30, 20));
    let numbers = Numbers { leases, burst, busy, per_second: 10, idle: Duration::from_secs(20) };
    for replicas in sized(vec![1], vec![1, 3]) {
        let (phases, idle) = run(&numbers, replicas);
        for Phase { name, orders, ready, lost, .. } in &phases {
            assert_eq!((*ready, *lost), (*orders, 0), "{name}: all that were paid for are sold");
        }
        let [first, .., last] = phases.as_slice() else { panic!("{} phases", phases.len()) };
        let (first, last) = (first.requests_per_lease, last.requests_per_lease);
        assert!(first > 0.0 && last < first * TOLERANCE, "{first} requests a lease, then {last}");
        assert!(idle.of_leases.is_empty(), "without orders: {:?}", idle.of_leases);
        // Each looks for pods without a lease, all of them on one page.
        let lists = idle.others.get("list jobs").copied().unwrap_or_default();
        assert!(lists <= u64::try_from(replicas).unwrap(), "{lists} lists of all Jobs");
    }
}

#[test]
#[ignore = "figures: run `cargo xtask cluster scale`"]
fn figures() {
    if std::env::var_os(REQUESTED).is_none() {
        println!("NOT RUN: the figures; `cargo xtask cluster scale` prints them");
        return;
    }
    let _alone = CLUSTER.lock();
    let leases: usize = std::env::var(NUMBER).map_or(5_000, |number| number.parse().unwrap());
    let numbers = Numbers {
        leases,
        burst: leases / 5,
        busy: leases / 5 * 6,
        per_second: 100,
        idle: Duration::from_secs(60),
    };
    for replicas in [1, 3] {
        run(&numbers, replicas);
    }
}
