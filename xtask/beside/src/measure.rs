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
/// Calls that begin between one swap and the next.
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
    let (mut lost, mut longest) = ([0.0; 3], [0.0; 3]);
    let values = lost.iter_mut().zip(&mut longest);
    for (runtime, (lost, longest)) in runtimes.iter().zip(values) {
        let (calls, swaps) = under_load(*runtime)?;
        let count = calls.iter().filter(|call| is_lost(call, &swaps)).count();
        *lost = f64::from(u32::try_from(count)?);
        let times = swaps.iter().map(|swap| swap.ended.duration_since(swap.begun));
        *longest = times.max().unwrap_or_default().as_secs_f64();
    }
    Ok(vec![
        row(format!("calls lost by {SWAPS} swaps under load"), Unit::Number, Better::Less, lost),
        row("a swap under load, longest".to_owned(), Unit::Seconds, Better::Less, longest),
    ])
}

/// A call of one of the threads.
struct Call {
    begun: Instant,
    ended: Instant,
    /// None: it failed.
    price: Option<u64>,
}

impl Call {
    fn of(runtime: &dyn Runtime) -> Self {
        let begun = Instant::now();
        let price = runtime.quote().ok();
        Self { begun, ended: Instant::now(), price }
    }
}

/// An exchange of the policy.
struct Swap {
    begun: Instant,
    ended: Instant,
    prices: Prices,
}

fn under_load(runtime: &dyn Runtime) -> Result<(Vec<Call>, Vec<Swap>)> {
    let ended = AtomicBool::new(false);
    let (sender, receiver) = channel();
    let (mut calls, mut swaps) = (Vec::new(), Vec::new());
    let exchanged = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (sender, ended) = (sender.clone(), &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) && sender.send(Call::of(runtime)).is_ok() {}
            });
        }
        drop(sender);
        let exchanged = exchange(runtime, &receiver, &mut calls, &mut swaps);
        ended.store(true, Ordering::Relaxed);
        exchanged
    });
    exchanged?;
    calls.extend(receiver);
    Ok((calls, swaps))
}

fn exchange(
    runtime: &dyn Runtime,
    receiver: &Receiver<Call>,
    calls: &mut Vec<Call>,
    swaps: &mut Vec<Swap>,
) -> Result<()> {
    receive(receiver, calls, Instant::now());
    for prices in [Prices::Double, Prices::Usual].into_iter().cycle().take(SWAPS) {
        let begun = Instant::now();
        runtime.publish(prices)?;
        let ended = Instant::now();
        swaps.push(Swap { begun, ended, prices });
        receive(receiver, calls, ended);
    }
    Ok(())
}

/// Receives calls until enough have begun since then.
fn receive(receiver: &Receiver<Call>, calls: &mut Vec<Call>, since: Instant) {
    let mut count = 0;
    while count < CALLS_PER_SWAP
        && let Ok(call) = receiver.recv()
    {
        count += usize::from(call.begun >= since);
        calls.push(call);
    }
}

/// Whether a call has failed, or has another price than that of the policy that was active when it
/// began, or of one that became active while it ran.
fn is_lost(call: &Call, swaps: &[Swap]) -> bool {
    let before = swaps.iter().rfind(|swap| swap.ended <= call.begun);
    let active = before.map_or(Prices::Usual, |swap| swap.prices);
    let meanwhile = swaps.iter().filter(|swap| swap.ended > call.begun && swap.begun < call.ended);
    let mut right = meanwhile.map(|swap| swap.prices).chain([active]);
    !right.any(|prices| Some(prices.msat()) == call.price)
}

#[cfg(test)]
mod tests {
    use super::{Call, Prices, Swap, is_lost, percentile};
    use std::time::{Duration, Instant};

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let found = [50, 99, 100].map(|percent| percentile(&values, percent));
        assert_eq!(found, [100.0, 198.0, 200.0]);
    }

    #[test]
    fn a_call_that_begins_after_a_swap_has_the_new_price() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let swaps = [(10, 20, Prices::Double), (30, 40, Prices::Usual)]
            .map(|(begun, ended, prices)| Swap { begun: at(begun), ended: at(ended), prices });
        let (old, new) = (Some(Prices::Usual.msat()), Some(Prices::Double.msat()));
        for (begun, ended, price, lost) in [
            (0, 5, old, false),
            (0, 5, new, true),
            (0, 15, old, false),
            (0, 15, new, false),
            (12, 18, old, false),
            (20, 25, new, false),
            (20, 25, old, true),
            (20, 35, old, false),
            (41, 45, new, true),
            (41, 45, old, false),
            (41, 45, Some(1), true),
            (41, 45, None, true),
        ] {
            let call = Call { begun: at(begun), ended: at(ended), price };
            assert_eq!(is_lost(&call, &swaps), lost, "{begun}..{ended}: {price:?}");
        }
    }
}
