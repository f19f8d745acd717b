//! What is measured in this process. The systems take turns in short rounds, so that what else the
//! machine does meets all of them.

use crate::files::Prices;
use crate::report::{Better, Row, Unit};
use crate::runtime::Runtime;
use anyhow::{Result, anyhow, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

type Runtimes<'a> = [&'a dyn Runtime; 3];

/// The first one is not counted.
const LATENCY_ROUNDS: usize = 100;
const CALLS_PER_ROUND: usize = 50;
const THREADS: usize = 2;
const THROUGHPUT_ROUNDS: usize = 5;
const THROUGHPUT_SLICE: Duration = Duration::from_secs(1);
const SPINS: usize = 20;
/// An even number: the usual policy is active afterwards.
const SWAPS: usize = 6;
/// Calls between one swap and the next.
const CALLS_PER_SWAP: usize = 200;
/// How many times faster the policy host is to be.
const GOAL: f64 = 5.0;

fn row(name: String, unit: Unit, better: Better, values: [f64; 3]) -> Row {
    Row { name, unit, better, goal: None, values }
}

/// One call after the other, on one thread.
pub(crate) fn latencies(runtimes: &Runtimes<'_>) -> Result<Vec<Row>> {
    let mut times = <[Vec<f64>; 3]>::default();
    for round in 0..=LATENCY_ROUNDS {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            for _ in 0..CALLS_PER_ROUND {
                let begun = Instant::now();
                let price = runtime.quote()?;
                let took = begun.elapsed();
                expect(*runtime, price, Prices::Usual)?;
                if round > 0 {
                    times.push(took.as_secs_f64());
                }
            }
        }
    }
    let rows = [(50, "p50"), (99, "p99")].map(|(percent, name)| Row {
        goal: Some(GOAL),
        ..row(
            format!("a call in a fresh instance, {name}"),
            Unit::Seconds,
            Better::Less,
            times.each_ref().map(|times| percentile(times, percent)),
        )
    });
    Ok(rows.into())
}

fn expect(runtime: &dyn Runtime, price: u64, prices: Prices) -> Result<()> {
    if price != prices.msat() {
        bail!("{}: {price} msat instead of {}", runtime.name(), prices.msat());
    }
    Ok(())
}

/// Of values that are not empty.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Calls a second, on two threads.
pub(crate) fn throughputs(runtimes: &Runtimes<'_>) -> Result<Vec<Row>> {
    let mut rates = <[Vec<f64>; 3]>::default();
    for _ in 0..THROUGHPUT_ROUNDS {
        for (runtime, rates) in runtimes.iter().zip(&mut rates) {
            rates.push(rate(*runtime)?);
        }
    }
    let values = rates.map(|rates| percentile(&rates, 50));
    let name = format!("calls a second on {THREADS} threads");
    Ok(vec![Row { goal: Some(GOAL), ..row(name, Unit::Number, Better::More, values) }])
}

fn rate(runtime: &dyn Runtime) -> Result<f64> {
    let begun = Instant::now();
    let calls = || -> Result<u32> {
        let mut calls = 0;
        while begun.elapsed() < THROUGHPUT_SLICE {
            runtime.quote()?;
            calls += 1;
        }
        Ok(calls)
    };
    let calls: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(calls)).collect();
        let calls = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))));
        calls.sum::<Result<u32>>()
    })?;
    Ok(f64::from(calls) / begun.elapsed().as_secs_f64())
}

/// How long a guest spins whose deadline is 100 ms.
pub(crate) fn stops(runtimes: &Runtimes<'_>) -> Result<Vec<Row>> {
    let mut times = <[Vec<f64>; 3]>::default();
    for _ in 0..SPINS {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let begun = Instant::now();
            runtime.spin()?;
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    let rows = [(50, "median"), (100, "longest")].map(|(percent, name)| {
        row(
            format!("a spinning guest is stopped, {name}"),
            Unit::Seconds,
            Better::Less,
            times.each_ref().map(|times| percentile(times, percent)),
        )
    });
    Ok(rows.into())
}

/// Exchanges the policy several times while two threads call it.
pub(crate) fn swaps(runtimes: &Runtimes<'_>) -> Result<Vec<Row>> {
    let (mut failed, mut longest) = ([0.0; 3], [0.0; 3]);
    let values = failed.iter_mut().zip(&mut longest);
    for (runtime, (failed, longest)) in runtimes.iter().zip(values) {
        let swaps = under_load(*runtime)?;
        *failed = f64::from(swaps.failed);
        *longest = swaps.longest.as_secs_f64();
    }
    Ok(vec![
        row(format!("calls lost by {SWAPS} swaps under load"), Unit::Number, Better::Less, failed),
        row("a swap under load, longest".to_owned(), Unit::Seconds, Better::Less, longest),
    ])
}

struct Swaps {
    /// Calls that failed, or were decided by a policy that was no longer active when they began.
    failed: u32,
    longest: Duration,
}

fn under_load(runtime: &dyn Runtime) -> Result<Swaps> {
    let ended = AtomicBool::new(false);
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (sender, ended) = (sender.clone(), &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    if sender.send(runtime.quote()).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let swaps = exchange(runtime, &receiver);
        ended.store(true, Ordering::Relaxed);
        let mut swaps = swaps?;
        swaps.failed += receiver.iter().map(|call| u32::from(is_lost(&call))).sum::<u32>();
        Ok(swaps)
    })
}

fn exchange(runtime: &dyn Runtime, calls: &Receiver<Result<u64>>) -> Result<Swaps> {
    let mut swaps = Swaps { failed: 0, longest: Duration::ZERO };
    for prices in [Prices::Double, Prices::Usual].into_iter().cycle().take(SWAPS) {
        for call in calls.iter().take(CALLS_PER_SWAP) {
            swaps.failed += u32::from(is_lost(&call));
        }
        let begun = Instant::now();
        runtime.publish(prices)?;
        swaps.longest = swaps.longest.max(begun.elapsed());
        let is_new = runtime.quote().is_ok_and(|price| price == prices.msat());
        swaps.failed += u32::from(!is_new);
    }
    Ok(swaps)
}

/// Whether neither policy has decided the call.
fn is_lost(call: &Result<u64>) -> bool {
    let known = [Prices::Usual, Prices::Double].map(Prices::msat);
    call.as_ref().map_or(true, |price| !known.contains(price))
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let found = [50, 99, 100].map(|percent| percentile(&values, percent));
        assert_eq!(found, [100.0, 198.0, 200.0]);
    }
}
