//! Pairs of figures: the bare library and the host take turns in many short rounds, so that what
//! else the machine does meets both. `cargo xtask bench` computes what it prints from the rounds.

use serde_json::json;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

/// Names the file that the rounds are appended to, a line for each pair, and for the calls of what has
/// no bare figure.
const FILE: &str = "PAYGRESS_BENCH_PAIRS";

/// How often a pair is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Besides the first one, which is not counted.
    pub(crate) rounds: u32,
    /// Of each side in a round.
    pub(crate) calls: u32,
}

/// A side of which the whole call counts.
pub(crate) fn calls<T>(mut call: impl FnMut() -> T) -> impl FnMut(u32) -> Duration {
    move |count: u32| {
        let begun = Instant::now();
        for _ in 0..count {
            black_box(call());
        }
        begun.elapsed()
    }
}

/// A side whose calls take something that is prepared outside of the measurement.
pub(crate) fn prepared_calls<I, T>(
    mut prepare: impl FnMut() -> I,
    mut call: impl FnMut(I) -> T,
) -> impl FnMut(u32) -> Duration {
    move |count: u32| {
        let timed = (0..count).map(|_| {
            let input = prepare();
            let begun = Instant::now();
            black_box(call(input));
            begun.elapsed()
        });
        timed.sum::<Duration>()
    }
}

/// Measures a pair. Without `--bench` everything runs once: a test of the benchmark.
pub(crate) fn measure(
    name: &str,
    plan: Plan,
    mut bare: impl FnMut(u32) -> Duration,
    mut host: impl FnMut(u32) -> Duration,
) {
    let Plan { rounds, calls } = match std::env::args().any(|argument| argument == "--bench") {
        true => plan,
        false => Plan { rounds: 0, calls: 1 },
    };
    let each = |took: Duration| took.as_secs_f64() * 1e9 / f64::from(calls);
    let (mut of_bare, mut of_host) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // Neither is always the one that finds the other's data in the caches.
        let (bare, host) = if round.is_multiple_of(2) {
            let bare = bare(calls);
            (bare, host(calls))
        } else {
            let host = host(calls);
            (bare(calls), host)
        };
        if round > 0 {
            of_bare.push(each(bare));
            of_host.push(each(host));
        }
    }
    append(&json!({"name": name, "bare": of_bare, "host": of_host}));
}

/// What has no bare figure: the time of each call.
pub(crate) fn record_calls(name: &str, times: &[Duration]) {
    let times: Vec<f64> = times.iter().map(|took| took.as_secs_f64() * 1e9).collect();
    append(&json!({"name": name, "calls": times}));
}

fn append(pair: &serde_json::Value) {
    let Some(path) = std::env::var_os(FILE) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{pair}").unwrap();
}
