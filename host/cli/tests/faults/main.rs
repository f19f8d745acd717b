//! Everything goes wrong, by a seed: the process is killed at any border of states and inside
//! requests; the mint, the cluster, the disk, the way back and the clock fail. After each run every
//! sat is accounted for: the ledger's audit holds, and what the mint has signed is what the
//! customers and the operator hold.
//!
//! `cargo test` makes a few runs; `cargo xtask faults` makes many. `FAULT_SEED` is the first seed,
//! `FAULT_RUNS` how many, `FAULT_MINT` a Nutshell mint's URL and `FAULT_MINT_DATABASE` its database.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod account;
mod backends;
#[allow(dead_code, unreachable_pub, reason = "the tests of policies use more of it")]
#[path = "../support/fake.rs"]
mod fake;
mod locks;
mod run;
mod scenario;
mod service;

use backends::{AtWrite, ClusterFault};
use paygress::config::default_policies;
use paygress_core::ErrorType;
use paygress_core::model::order::{Order, RefundEnd, State};
use paygress_core::model::units::Sat;
use paygress_core::orders::Capture;
use paygress_policy::{Host, PolicyDir, PolicyEngine};
use paygress_sandbox::{CodedAnswer, MintAnswer, NetworkFault, TestMint};
use run::{run_scenario, runtime};
use scenario::{Action, DAY, Outcome, ProcessRun, Scenario};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Numbers by a seed (SplitMix64): the same seed is the same run.
pub(crate) struct SeededRng(u64);

impl SeededRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn often(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    pub(crate) fn small(&mut self, below: u64) -> usize {
        usize::try_from(self.roll(below)).unwrap()
    }

    pub(crate) fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(u64::try_from(all.len()).unwrap())).unwrap()].clone()
    }
}

/// The mint: cdk's in this process, or a Nutshell whose database is read.
pub(crate) enum AnyMint {
    Cdk(TestMint),
    Nutshell { url: String, database: PathBuf },
}

impl AnyMint {
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Cdk(mint) => mint.url(),
            Self::Nutshell { url, .. } => url,
        }
    }

    /// What it has signed and nobody has redeemed, by its own accounts.
    pub(crate) async fn outstanding(&self) -> u64 {
        match self {
            Self::Cdk(mint) => mint.outstanding().await.unwrap(),
            Self::Nutshell { database, .. } => {
                let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
                let connection = rusqlite::Connection::open_with_flags(database, flags).unwrap();
                let sum =
                    "SELECT (SELECT coalesce(sum(amount), 0) FROM promises WHERE c_ IS NOT NULL)
                     - (SELECT coalesce(sum(amount), 0) FROM proofs_used)";
                u64::try_from(connection.query_row(sum, [], |row| row.get::<_, i64>(0)).unwrap())
                    .unwrap()
            }
        }
    }
}

/// What all runs share.
pub(crate) struct World {
    pub(crate) mint: AnyMint,
    pub(crate) policy: Arc<Host>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// The clock is one for all tests of this program: they take turns.
static CLOCK: Mutex<()> = Mutex::new(());

/// The mint of the environment, or one of cdk.
async fn mint() -> AnyMint {
    match (std::env::var("FAULT_MINT"), std::env::var("FAULT_MINT_DATABASE")) {
        (Ok(url), Ok(database)) => AnyMint::Nutshell { url, database: database.into() },
        _ => AnyMint::Cdk(TestMint::start(100).await.unwrap()),
    }
}

fn world(outside: &Runtime) -> World {
    let mint = outside.block_on(mint());
    let sources = PolicyDir::new(default_policies(), BTreeMap::new()).sources().unwrap();
    World { mint, policy: Host::load(PolicyEngine::start(None).unwrap(), &sources).unwrap() }
}

/// Runs one scenario in a world of its own.
fn outcome(actions: Vec<Action>, runs: Vec<ProcessRun>) -> Outcome {
    let _turn = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let outside = runtime();
    let world = World {
        mint: AnyMint::Cdk(outside.block_on(TestMint::start(100)).unwrap()),
        ..world(&outside)
    };
    run_scenario(&world, &outside, Scenario { actions, runs, capture: Capture::BeforeLaunch }, 0)
        .unwrap_or_else(|why| panic!("{why}"))
}

fn away(path: &'static str, fault: NetworkFault) -> ProcessRun {
    ProcessRun { mint: Some((path, fault, 0, 10_000)), ..ProcessRun::good() }
}

#[test]
fn a_mint_that_is_away_for_a_day_keeps_no_port_and_no_money() {
    let day_later =
        || ProcessRun { clock: DAY, lasts: true, ..away("v1/", NetworkFault::Status(500)) };
    // It took the token, and the process was killed: what it gave is given back. Or it never saw
    // it: the token is still good, once the swap can no longer be on its way.
    for (lost, refunded) in
        [(NetworkFault::Hang(true), Some(29)), (NetworkFault::LostOnTheWay, None)]
    {
        let scenario = outcome(vec![Action::Spawn(30)], vec![away("v1/swap", lost), day_later()]);
        let first = &scenario.responses[0].error().unwrap().message;
        assert!(first.contains("does not answer whether it has taken your token"), "{first}");
        let last = scenario.responses.last().unwrap().error().unwrap();
        assert_eq!(
            (last.error_type, last.refund.as_ref().map(|refund| refund.refunded_sats)),
            (ErrorType::MintNetworkError, refunded),
            "{last:?}"
        );
        assert!(scenario.orders.iter().all(|order| order.state().is_final()));
    }
}

#[test]
fn a_swap_that_is_refused_with_any_answer_ends_its_order_at_once() {
    for answer in [MintAnswer::UNKNOWN_CODE, MintAnswer::FORBIDDEN, MintAnswer::UNPROCESSABLE] {
        let refuses = away("v1/swap", NetworkFault::Answer(answer));
        let scenario = outcome(vec![Action::Spawn(30)], vec![refuses]);
        // In the first life: with the mint's answers as they should be, it would have been served.
        let order = &scenario.orders[0];
        assert_eq!(order.state(), State::Refused, "{answer:?}");
        assert_eq!(order.state.refusal().unwrap().code, ErrorType::MintError, "{answer:?}");
    }
}

#[test]
fn an_order_that_a_lost_answer_leaves_stored_is_not_called_refused() {
    let lost = ProcessRun { write: Some((1, AtWrite::AnswerLost)), ..ProcessRun::good() };
    let scenario = outcome(vec![Action::Spawn(30), Action::TopUp(20)], vec![lost]);
    // Who was answered can extend the pod.
    let states: Vec<State> = scenario.orders.iter().map(Order::state).collect();
    assert_eq!(states, [State::Active, State::Active]);
}

#[test]
fn a_refund_that_nobody_redeems_is_the_operators_again_after_its_time() {
    let fails = ProcessRun { cluster: ClusterFault::NeverReady, ..ProcessRun::good() };
    let later = ProcessRun { clock: 40 * DAY, lasts: true, ..ProcessRun::good() };
    let scenario = outcome(vec![Action::Spawn(30)], vec![fails, later]);
    let refund = scenario.responses[0].error().unwrap().refund.as_ref().unwrap();
    assert!(refund.refund_token.is_some(), "{refund:?}");
    assert_eq!(
        scenario.orders[0].state.refund().unwrap().end(),
        Some(RefundEnd::Reclaimed(Sat(28))),
        "29 less the mint's fee"
    );
    assert_eq!(scenario.orders[0].state.refund_token(), None);
}

#[test]
fn both_times_of_capture_are_among_a_few_seeds() {
    let of_seeds: Vec<Capture> = (1..=24).map(|seed| Scenario::of(seed).capture).collect();
    for capture in [Capture::BeforeLaunch, Capture::OnceReady] {
        assert!(of_seeds.contains(&capture), "{capture:?} is never tried");
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_few_answers_are_the_same() {
    let answers = |seeds: std::ops::RangeInclusive<u64>| -> Vec<CodedAnswer> {
        let runs = seeds.flat_map(|seed| Scenario::of(seed).runs);
        let faults = runs.filter_map(|run| run.mint.map(|(_, fault, ..)| fault));
        let coded = faults.filter_map(|fault| match fault {
            NetworkFault::Coded(answer) => Some(answer),
            _ => None,
        });
        coded.collect()
    };
    let all = answers(1..=1_000);
    assert_eq!(all, answers(1..=1_000));
    let different: HashSet<(u16, Option<u32>)> =
        all.iter().map(|answer| (answer.status, answer.code)).collect();
    println!("1,000 runs have {} answers of {} kinds", all.len(), different.len());
    assert!(different.len() > 100, "{} of {}", different.len(), all.len());
    for class in 2..=5 {
        for done in [true, false] {
            let is_one = |answer: &CodedAnswer| answer.status / 100 == class && answer.done == done;
            assert!(all.iter().any(is_one), "no {class}xx, done: {done}");
        }
    }
}

#[test]
fn no_sat_is_lost_and_none_is_spent_twice() {
    // To look into a seed: FAULT_LOG=debug.
    if let Ok(filter) = std::env::var("FAULT_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let (first, runs) = (number("FAULT_SEED", 1), number("FAULT_RUNS", 24));
    let _turn = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let outside = runtime();
    let world = world(&outside);
    // What earlier runs have left in wallets.
    let mut kept = outside.block_on(world.mint.outstanding());
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    let mut longest = (Duration::ZERO, 0);
    for seed in first..first + runs {
        let begun = Instant::now();
        let scenario = Scenario::of(seed);
        let (what, capture) = (format!("{scenario:?}"), scenario.capture);
        match run_scenario(&world, &outside, scenario, kept) {
            Ok(outcome) => {
                kept = outcome.outstanding;
                // Of each time of capture apart.
                let ends = outcome.orders.iter().map(|order| order.state().as_str());
                let ends = ends.map(|end| format!("capture: {capture:?}: orders {end}"));
                for what in ends.chain(outcome.met) {
                    *met.entry(what).or_default() += 1;
                }
            }
            Err(why) => panic!("seed {seed}: {why}\n{what}"),
        }
        longest = longest.max((begun.elapsed(), seed));
        if begun.elapsed() > Duration::from_secs(10) {
            println!("seed {seed} took {:.0} s: {what}", begun.elapsed().as_secs_f64());
        }
    }
    println!(
        "{runs} runs from seed {first}; the longest took {:.1} s (seed {})",
        longest.0.as_secs_f64(),
        longest.1
    );
    for (fault, times) in &met {
        println!("  {fault}: {times}");
    }
    println!("0 sats unaccounted for; the mint has {kept} sat outstanding");
}
