//! For who writes a policy: does it keep to the contract, what does it say of an order, what does
//! it cost?
#![allow(clippy::print_stdout)]

use super::{object, slot};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use paygress_core::backend::policy::Slot;
use paygress_policy::{
    CallRecord, CallResult, DEADLINE, Guard, Harness, MEMORY_BYTES, PolicyEngine, Rejected,
    TestCase,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A component by itself.
#[derive(Args)]
pub struct Component {
    /// The slot: images, pricing, duration or pod-template.
    #[arg(value_parser = slot)]
    slot: Slot,
    /// The component's file.
    file: PathBuf,
    /// Its settings, a file with a JSON object; left out: {}.
    #[arg(long)]
    settings: Option<PathBuf>,
}

impl Component {
    fn bytes(&self) -> Result<Vec<u8>> {
        paygress_policy::read(&self.file).map_err(|why| anyhow!("{why}"))
    }

    fn settings(&self) -> Result<String> {
        Ok(match &self.settings {
            Some(path) => Value::Object(object(path)?).to_string(),
            None => "{}".to_owned(),
        })
    }

    /// Compiled, checked and configured.
    fn load(&self, machine: &Arc<PolicyEngine>) -> Result<Harness> {
        let trial = Harness::load(machine, self.slot, &self.bytes()?, &self.settings()?);
        trial.map_err(|rejected| {
            anyhow!("{} is not taken into the slot {}: {rejected}", self.file.display(), self.slot)
        })
    }
}

/// Whether it would be taken, and how it stands up to strange orders.
///
/// # Errors
/// When the check cannot be made.
pub(super) fn check(component: &Component, guard: Guard) -> Result<ExitCode> {
    let machine = PolicyEngine::with_fuel()?.guarded(guard);
    let bytes = component.bytes()?;
    let begun = Instant::now();
    let trial = match Harness::load(&machine, component.slot, &bytes, &component.settings()?) {
        Ok(trial) => trial,
        Err(rejected) => {
            println!("✗ {}", refused(&rejected));
            return Ok(ExitCode::FAILURE);
        }
    };
    println!(
        "✓ contract {}, slot {}, {} bytes, sha256:{}",
        trial.contract(),
        trial.slot(),
        bytes.len(),
        trial.digest()
    );
    println!("✓ compiled and configured in {} ms", begun.elapsed().as_millis());
    println!("✓ its schema of settings is JSON, {} bytes", trial.schema().len());
    let mut good = true;
    let (mut slowest, mut memory) = (Duration::ZERO, 0);
    for (name, case) in TestCase::samples(component.slot) {
        let (first, second) = (trial.ask(&case), trial.ask(&case));
        let verdict = if let CallResult::Failed(kind) = &first.said {
            Err(kind.to_string())
        } else if first.said != second.said {
            Err(format!(
                "asked twice, it said {} and {}: a decision must be the same each time",
                told(&first.said),
                told(&second.said)
            ))
        } else {
            Ok(told(&first.said))
        };
        good &= verdict.is_ok();
        let (mark, words) = match verdict {
            Ok(words) => ("✓", words),
            Err(words) => ("✗", words),
        };
        println!("{mark} {name}: {words}");
        slowest = slowest.max(first.took.max(second.took));
        memory = memory.max(first.memory_bytes);
    }
    println!(
        "  at most {} us of {} ms, {} KiB of {} MiB",
        slowest.as_micros(),
        DEADLINE.as_millis(),
        memory >> 10,
        MEMORY_BYTES >> 20
    );
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The schema of its settings.
///
/// # Errors
/// When it is not taken.
pub(super) fn schema(component: &Component) -> Result<()> {
    println!("{}", component.load(&PolicyEngine::with_fuel()?)?.schema());
    Ok(())
}

fn refused(rejected: &Rejected) -> String {
    match rejected {
        Rejected::Settings(problems) => {
            let line = |(path, message): &(String, String)| {
                format!("\n    {} {message}", if path.is_empty() { "the whole" } else { path })
            };
            format!(
                "it does not take its settings:{}",
                problems.iter().map(line).collect::<String>()
            )
        }
        other => other.to_string(),
    }
}

/// An answer in a line.
pub(super) fn told(said: &CallResult) -> String {
    match said {
        CallResult::Yes(value) => {
            let text = value.to_string();
            match text.char_indices().nth(200) {
                Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
                None => text,
            }
        }
        CallResult::No(refusal) => {
            format!("refused, {}: {}", refusal.code.as_str(), refusal.message)
        }
        CallResult::Failed(kind) => format!("failed: {kind}"),
    }
}

/// Arguments of `paygress policy eval`.
#[derive(Args)]
pub struct EvalArguments {
    #[command(flatten)]
    component: Component,
    /// A file with a JSON object: what is otherwise than in an order with nothing special. `{}`
    /// shows that one.
    order: PathBuf,
}

/// What it says of this order, and what it was shown.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn eval(arguments: &EvalArguments, guard: Guard) -> Result<ExitCode> {
    let EvalArguments { component, order } = arguments;
    let case = TestCase::read(component.slot, &Value::Object(object(order)?))
        .map_err(|why| anyhow!("{}: {why}", order.display()))?;
    let trial = component.load(&PolicyEngine::with_fuel()?.guarded(guard))?;
    let CallRecord { said, took, memory_bytes, fuel } = trial.ask(&case);
    println!("asked    {}", serde_json::to_string_pretty(&case)?);
    println!("settings {}", component.settings()?);
    match &said {
        CallResult::Yes(value) => {
            println!("says     yes: {}", serde_json::to_string_pretty(value)?)
        }
        CallResult::No(refusal) => {
            println!("says     no, {}: {}", refusal.code.as_str(), refusal.message)
        }
        CallResult::Failed(kind) => println!(
            "fails    {kind}\n         a customer would be told policy_unavailable, and keep the token"
        ),
    }
    println!("cost     {} us, {fuel} instructions, {} KiB", took.as_micros(), memory_bytes >> 10);
    Ok(if matches!(said, CallResult::Failed(_)) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Arguments of `paygress policy bench`.
#[derive(Args)]
pub struct BenchArguments {
    #[command(flatten)]
    component: Component,
    /// An order, as for `eval`; left out: one with nothing special.
    #[arg(long)]
    order: Option<PathBuf>,
    /// How often it is asked.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Keep the result in this file.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Compare with a result that was kept; more than --tolerance worse is a failure.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// In percent, for instructions and memory, which are the same on every machine. Times are
    /// told, and not judged.
    #[arg(long, default_value_t = 5)]
    tolerance: u64,
}

/// What a call costs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    calls: u32,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
    fuel: u64,
    memory_bytes: u64,
}

/// Measures, and compares.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn bench(arguments: &BenchArguments) -> Result<ExitCode> {
    let slot = arguments.component.slot;
    let case = match &arguments.order {
        Some(path) => TestCase::read(slot, &Value::Object(object(path)?))
            .map_err(|why| anyhow!("{}: {why}", path.display()))?,
        None => TestCase::sample(slot),
    };
    let cost = measure(&arguments.component, &case, arguments.calls)?;
    let before = match &arguments.baseline {
        Some(path) => Some(baseline(path)?),
        None => None,
    };
    let mut good = true;
    for (name, now, then, judged) in [
        ("p50, us", cost.p50_us, before.as_ref().map(|before| before.p50_us), false),
        ("p90, us", cost.p90_us, before.as_ref().map(|before| before.p90_us), false),
        ("p99, us", cost.p99_us, before.as_ref().map(|before| before.p99_us), false),
        ("max, us", cost.max_us, before.as_ref().map(|before| before.max_us), false),
        ("instructions", cost.fuel, before.as_ref().map(|before| before.fuel), true),
        (
            "memory, bytes",
            cost.memory_bytes,
            before.as_ref().map(|before| before.memory_bytes),
            true,
        ),
    ] {
        let allowed = |then: u64| {
            u128::from(then).saturating_mul(u128::from(arguments.tolerance.saturating_add(100)))
                / 100
        };
        let worse = judged && then.is_some_and(|then| u128::from(now) > allowed(then));
        good &= !worse;
        let then = then.map(|then| format!("{then:>14}")).unwrap_or_default();
        println!("{name:<14}{now:>14}{then}{}", if worse { "  ✗ worse" } else { "" });
    }
    if let Some(path) = &arguments.save {
        std::fs::write(path, serde_json::to_string_pretty(&cost)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn baseline(path: &Path) -> Result<Cost> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} was not kept by `paygress policy bench --save`", path.display())
    })
}

/// Times from the machine that serves; instructions from the one that counts them.
fn measure(component: &Component, case: &TestCase, calls: u32) -> Result<Cost> {
    let CallRecord { said, memory_bytes, fuel, .. } =
        component.load(&PolicyEngine::with_fuel()?)?.ask(case);
    if let CallResult::Failed(kind) = said {
        bail!("it failed: {kind}");
    }
    let trial = component.load(&PolicyEngine::start(None)?)?;
    let mut times: Vec<u64> = (0..calls)
        .map(|_| u64::try_from(trial.ask(case).took.as_micros()).unwrap_or(u64::MAX))
        .collect();
    times.sort_unstable();
    let at = |percent: usize| {
        let index = times.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
        times.get(index).copied().unwrap_or_default()
    };
    Ok(Cost {
        calls,
        p50_us: at(50),
        p90_us: at(90),
        p99_us: at(99),
        max_us: at(100),
        fuel,
        memory_bytes,
    })
}
