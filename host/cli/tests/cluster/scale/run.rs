//! Orders by the thousand, and what they cost.

use super::api::{RequestCounts, Requests};
use super::bare;
use super::processors::Processors;
use super::site::Site;
use crate::goal::Goal;
use crate::support::testbed::{Bought, Market, service_program};
use serde_json::Value;
use std::collections::BTreeSet;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

/// How long a buyer tries again.
const RETRY_LIMIT: Duration = Duration::from_secs(3_600);
/// As many orders as wait at a mint at the same time (`ORDERS_WAITING`): none of them is refused, and
/// none tries again later.
const WAITING: usize = 500;

pub(super) struct Numbers {
    /// Those of the burst are among them, and as many or [`WAITING`] beside the bare libraries.
    pub(super) leases: usize,
    /// Orders at the same time.
    pub(super) burst: usize,
    /// Orders beside these leases.
    pub(super) busy: usize,
    /// How many of these, and of those that make the leases, come in a second.
    pub(super) per_second: u32,
    /// How long the requests of an idle service are counted.
    pub(super) idle: Duration,
}

/// Orders that were offered together, and what became of them.
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) orders: usize,
    /// Pods that take logins.
    pub(super) ready: usize,
    /// Those whose money is gone, and that have no pod.
    pub(super) lost: usize,
    /// From the first order to the last answer.
    pub(super) per_second: f64,
    pub(super) requests_per_lease: f64,
}

/// Measures so many replicas, and prints it beside the goals; the phases, in order, and what is
/// requested without orders.
pub(super) fn run(numbers: &Numbers, replicas: usize) -> (Vec<Phase>, RequestCounts) {
    let Numbers { leases, burst, busy, per_second, idle } = *numbers;
    let pace = Duration::from_secs(1) / per_second;
    let mut site = Site::start(replicas, leases + busy, burst);
    let service = if replicas == 1 { "SQLite" } else { "Postgres, three times" };
    println!("── the service on {service}: {leases} leases, {burst} orders at once");
    print_program();
    print_start(&mut site.market, "start with a warm cache, ms", 60.0);
    site.wait_for_room(0);
    print_memory(&site.market, "memory without leases, MiB", 40.0);

    let ledger = site.market.ledger_bytes();
    let at_once = offer(&site.market, "a burst", burst, Duration::ZERO);
    let waiting = burst.min(WAITING);
    let compared = compare(&site, waiting);
    let until_full = offer(&site.market, "up to all leases", leases - burst - waiting, pace);
    if replicas == 1 {
        let grown = site.market.ledger_bytes().saturating_sub(ledger);
        println!("the ledger has grown by {:.0} bytes a lease", number(grown) / count(leases));
    }
    print_memory(&site.market, &format!("memory with {leases} leases, MiB"), 256.0);
    print_start(&mut site.market, &format!("start with {leases} leases, ms"), 5_000.0);
    print_memory(&site.market, &format!("memory after a start with {leases} leases, MiB"), 256.0);

    // A service that starts looks whether the pods of earlier ones show their ends.
    Requests::begin().settled();
    let busy = offer(&site.market, "orders beside all leases", busy, pace);
    Goal::AtLeast(f64::from(per_second))
        .print("orders a second beside all leases", busy.per_second);
    let growth = busy.requests_per_lease / at_once.requests_per_lease;
    Goal::AtMost(1.05).print("requests a lease, to those without other leases", growth);
    (vec![at_once, compared, until_full, busy], idle_requests(idle))
}

/// So many orders at the same time, and the same with the bare libraries.
fn compare(site: &Site, orders: usize) -> Phase {
    let phase = offer(&site.market, "beside the bare libraries", orders, Duration::ZERO);
    let tokens = site.market.tokens(orders);
    let bare = bare::orders_per_second(&site.market, tokens, site.next_port);
    println!(
        "the bare libraries: {:.1} Jobs a second are created, {:.1} pods become ready",
        bare.created, bare.ready
    );
    Goal::AtLeast(0.9)
        .print("orders a second, to Jobs of the bare libraries", phase.per_second / bare.created);
    Goal::AtLeast(0.9)
        .print("orders a second, to pods of the bare libraries", phase.per_second / bare.ready);
    phase
}

/// Buyers that come in this time each.
fn offer(market: &Market, name: &'static str, orders: usize, pace: Duration) -> Phase {
    let tokens = market.tokens(orders);
    let (requests, processors) = (Requests::begin(), Processors::begin());
    let begun = Instant::now();
    let bought = market.buy_until(tokens, pace, RETRY_LIMIT);
    let took = begun.elapsed();
    processors.print(name);
    let requests = requests.settled();
    let ready: Vec<&Bought> = bought.iter().filter(|bought| bought.is_ready()).collect();
    let pods: BTreeSet<String> = ready.iter().map(|bought| pod_name(bought)).collect();
    let without_own = ready.len() - pods.len();
    let is_lost = |bought: &&Bought| !bought.is_ready() && !has_money(market, bought);
    let lost = bought.iter().filter(is_lost).count() + without_own;
    let phase = Phase {
        name,
        orders,
        ready: pods.len(),
        lost,
        per_second: count(pods.len()) / took.as_secs_f64(),
        requests_per_lease: number(requests.of_leases.values().sum()) / count(pods.len().max(1)),
    };
    phase.print(took, &bought, &requests);
    phase
}

impl Phase {
    fn print(&self, took: Duration, bought: &[Bought], requests: &RequestCounts) {
        let Self { name, orders, ready, per_second, requests_per_lease, .. } = self;
        println!(
            "{name}: {ready} pods for {orders} orders in {took:.1?}, {per_second:.1} a second"
        );
        Goal::AtMost(0.0).print(&format!("{name}: orders lost"), count(self.lost));
        let mut times: Vec<Duration> = bought.iter().map(|bought| bought.took).collect();
        times.sort_unstable();
        if let (Some(median), Some(last)) = (times.get(times.len() / 2), times.last()) {
            println!("{name}: half of them within {median:.1?}, all within {last:.1?}");
        }
        println!("{name}: {requests_per_lease:.2} requests to the API server a lease");
        for (kind, requests) in &requests.of_leases {
            println!("   {:.2} {kind}", number(*requests) / count(*ready));
        }
        for bought in bought.iter().filter(|bought| !bought.is_ready()).take(3) {
            // The whole answer may hold a refund.
            let detail = answer_of(bought)["detail"].clone();
            println!("{name}: not sold: {}, {detail}", bought.answer.status);
        }
    }
}

fn pod_name(bought: &Bought) -> String {
    bought.answer.json()["pod_name"].as_str().expect("it names its pod").to_owned()
}

fn answer_of(bought: &Bought) -> Value {
    serde_json::from_str(&bought.answer.body).unwrap_or_default()
}

/// Whether the buyer has the token still, or a refund.
fn has_money(market: &Market, bought: &Bought) -> bool {
    answer_of(bought)["refund_token"].is_string()
        || market.unspent(slice::from_ref(&bought.token)) > 0
}

fn print_program() {
    let program = service_program();
    let bytes = std::fs::metadata(&program).unwrap().len();
    Goal::AtMost(40.0).print("the program, MB", number(bytes) / 1e6);
}

/// The slowest replica.
fn print_start(market: &mut Market, what: &str, goal: f64) {
    let slowest = market.restart().into_iter().max().unwrap();
    Goal::AtMost(goal).print(what, slowest.as_secs_f64() * 1_000.0);
}

/// The largest replica.
fn print_memory(market: &Market, what: &str, goal: f64) {
    let [now, most] = ["VmRSS:", "VmHWM:"].map(|name| {
        let largest = market.memory(name).into_iter().max().unwrap();
        number(largest) / 1_024.0
    });
    Goal::AtMost(goal).print(what, now);
    println!("   at most: {most:.1}");
}

fn idle_requests(time: Duration) -> RequestCounts {
    let requests = Requests::begin();
    thread::sleep(time);
    let counts = requests.count();
    println!(
        "in {time:?} without orders: {:?}, and of leases {:?}",
        counts.others, counts.of_leases
    );
    counts
}

fn count(items: usize) -> f64 {
    f64::from(u32::try_from(items).unwrap())
}

/// No figure here is as large as four thousand million.
fn number(units: u64) -> f64 {
    f64::from(u32::try_from(units).unwrap())
}
