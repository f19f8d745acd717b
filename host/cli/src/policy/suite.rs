//! `paygress policy test`: cases that a policy must meet, in a file.
#![allow(clippy::print_stdout)]

use super::check::told;
use super::slot;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use paygress_core::backend::policy::Slot;
use paygress_core::model::refusal::ErrorType;
use paygress_policy::{CallResult, Guard, Harness, PolicyEngine, Rejected, TestCase};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `paygress policy test`.
#[derive(Args)]
pub struct Arguments {
    /// The suite, YAML or JSON.
    suite: PathBuf,
    /// Another component than the suite names.
    #[arg(long)]
    component: Option<PathBuf>,
    /// Write the results to this file too, as JUnit XML.
    #[arg(long)]
    junit: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    slot: String,
    /// From the suite's directory.
    component: PathBuf,
    #[serde(default)]
    settings: Map<String, Value>,
    cases: Vec<Expected>,
}

/// A case: with these settings, given this order, the component must say that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    name: String,
    /// Instead of the suite's.
    settings: Option<Map<String, Value>>,
    /// What is otherwise than in an order with nothing special.
    #[serde(default)]
    given: Map<String, Value>,
    /// It says yes, and this is part of it.
    expect: Option<Value>,
    /// It says no, with this code.
    refuses: Option<ErrorType>,
    /// It does not take its settings, and names these places.
    problems: Option<Vec<String>>,
}

/// Components by their settings: most cases have the same.
struct Trials<'a> {
    machine: Arc<PolicyEngine>,
    slot: Slot,
    component: &'a [u8],
    loaded: BTreeMap<String, Arc<Result<Harness, Rejected>>>,
}

impl Trials<'_> {
    fn with(&mut self, settings: &Map<String, Value>) -> Arc<Result<Harness, Rejected>> {
        let settings = Value::Object(settings.clone()).to_string();
        let (machine, slot, component) = (&self.machine, self.slot, self.component);
        let load = |settings: &String| Arc::new(Harness::load(machine, slot, component, settings));
        Arc::clone(self.loaded.entry(settings).or_insert_with_key(load))
    }
}

/// Runs a suite.
///
/// # Errors
/// When it cannot be run.
pub(super) fn test(arguments: &Arguments, guard: Guard) -> Result<ExitCode> {
    let path = &arguments.suite;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let suite: Suite =
        serde_saphyr::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let file = arguments
        .component
        .clone()
        .unwrap_or_else(|| path.parent().unwrap_or(Path::new("")).join(&suite.component));
    let component = paygress_policy::read(&file).map_err(|why| anyhow!("{why}"))?;
    let slot = slot(&suite.slot)?;
    let mut trials = Trials {
        machine: PolicyEngine::with_fuel()?.guarded(guard),
        slot,
        component: &component,
        loaded: BTreeMap::new(),
    };
    let mut results =
        TestSuite::new(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let mut failed = 0_usize;
    for case in &suite.cases {
        let begun = Instant::now();
        let trial = trials.with(case.settings.as_ref().unwrap_or(&suite.settings));
        let verdict = verdict(slot, case, &trial);
        let status = match &verdict {
            Ok(()) => TestCaseStatus::success(),
            Err(why) => {
                failed = failed.saturating_add(1);
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why.clone());
                status
            }
        };
        match verdict {
            Ok(()) => println!("✓ {}", case.name),
            Err(why) => println!("✗ {}\n    {}", case.name, why.replace('\n', "\n    ")),
        }
        let mut result = TestCase::new(case.name.clone(), status);
        result.set_time(begun.elapsed());
        results.add_test_case(result);
    }
    println!("{} cases, {failed} failed", suite.cases.len());
    if let Some(path) = &arguments.junit {
        let mut report = Report::new("paygress policy test");
        report.add_test_suite(results);
        let text = report.to_string().context("the results are no XML")?;
        std::fs::write(path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    // A suite without cases shows nothing.
    Ok(if failed == 0 && !suite.cases.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(
    slot: Slot,
    expected: &Expected,
    trial: &Result<Harness, Rejected>,
) -> Result<(), String> {
    let wishes =
        [expected.expect.is_some(), expected.refuses.is_some(), expected.problems.is_some()];
    if wishes.iter().filter(|wish| **wish).count() != 1 {
        return Err("a case has one of expect, refuses and problems".to_owned());
    }
    if let Some(places) = &expected.problems {
        return problems(places, trial);
    }
    let trial = trial.as_ref().map_err(ToString::to_string)?;
    let said = trial.ask(&TestCase::read(slot, &Value::Object(expected.given.clone()))?).said;
    match (&said, &expected.expect, expected.refuses) {
        (CallResult::Yes(value), Some(part), _) => holds(value, part, ""),
        (CallResult::No(refusal), _, Some(code)) if refusal.code == code => Ok(()),
        (_, Some(part), _) => {
            Err(format!("it should have said yes, with {part}; it {}", told(&said)))
        }
        (_, _, Some(code)) => {
            Err(format!("it should have refused with {}; it said {}", code.as_str(), told(&said)))
        }
        (_, None, None) => Ok(()),
    }
}

fn problems(places: &[String], trial: &Result<Harness, Rejected>) -> Result<(), String> {
    match trial {
        Err(Rejected::Settings(found)) => {
            let missing: Vec<&str> = places
                .iter()
                .filter(|place| !found.iter().any(|(path, _)| path == *place))
                .map(String::as_str)
                .collect();
            let found: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
            match missing.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "it found nothing wrong at {}; it did at {}",
                    missing.join(", "),
                    found.join(", ")
                )),
            }
        }
        Err(other) => Err(other.to_string()),
        Ok(_) => Err("it takes these settings".to_owned()),
    }
}

/// Whether everything that is expected is there; objects may hold more.
fn holds(value: &Value, expected: &Value, path: &str) -> Result<(), String> {
    match (value, expected) {
        (Value::Object(value), Value::Object(expected)) => {
            expected.iter().try_for_each(|(name, expected)| {
                let path = format!("{path}/{name}");
                holds(
                    value.get(name).ok_or_else(|| format!("{path} is not there"))?,
                    expected,
                    &path,
                )
            })
        }
        (Value::Array(value), Value::Array(expected)) if value.len() == expected.len() => {
            value.iter().zip(expected).enumerate().try_for_each(|(n, (value, expected))| {
                holds(value, expected, &format!("{path}/{n}"))
            })
        }
        (value, expected) if value == expected => Ok(()),
        (value, expected) => Err(format!("{path} is {value}, and should be {expected}")),
    }
}
