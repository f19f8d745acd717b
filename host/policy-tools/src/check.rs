//! `paygress policy check`: does the service accept a component, and does it handle unusual orders?

use crate::engine;
use crate::input::{InputError, PolicyFile};
use crate::samples::{Sample, samples};
use crate::text::summary;
use paygress_core::backend::policy::Slot;
use paygress_core::model::ids::HexDigest;
use paygress_policy::{
    CallRecord, CallResult, Compiler, DEADLINE, Harness, MEMORY_BYTES, RejectReason, TemplateGuard,
};
use std::fmt;
use std::time::{Duration, Instant};

/// The result of a check. Displayed for the author.
#[derive(Debug)]
pub enum CheckReport {
    Rejected(RejectReason),
    Loaded(LoadedReport),
}

#[derive(Debug)]
pub struct LoadedReport {
    slot: Slot,
    contract: &'static str,
    digest: HexDigest,
    component_bytes: usize,
    schema_bytes: usize,
    load_time: Duration,
    samples: Vec<SampleReport>,
    slowest: Duration,
    memory_bytes: u64,
}

/// How the component handled one order.
#[derive(Debug)]
struct SampleReport {
    name: &'static str,
    result: Result<String, SampleFailure>,
}

#[derive(Debug, thiserror::Error)]
enum SampleFailure {
    #[error("{0}")]
    Fault(paygress_core::backend::policy::FaultKind),
    #[error("two calls returned {first} and {second}: a decision must be the same each time")]
    Nondeterministic { first: String, second: String },
}

impl CheckReport {
    /// Whether the component passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        match self {
            Self::Rejected(_) => false,
            Self::Loaded(report) => report.samples.iter().all(|sample| sample.result.is_ok()),
        }
    }
}

/// Loads a component and calls it with unusual orders, twice each. Blocks.
///
/// # Errors
/// A file cannot be read, or the engine does not start.
pub fn check(
    file: &PolicyFile,
    guard: TemplateGuard,
    compiler: &Compiler,
) -> Result<CheckReport, InputError> {
    let engine = engine::counting(compiler)?.with_template_guard(guard);
    let (component, settings) = (file.read()?, file.settings()?);
    let begun = Instant::now();
    let harness = match Harness::load(&engine, file.slot, &component, &settings) {
        Ok(harness) => harness,
        Err(reason) => return Ok(CheckReport::Rejected(reason)),
    };
    let mut report = LoadedReport {
        slot: harness.slot(),
        contract: harness.contract(),
        digest: harness.digest().clone(),
        component_bytes: component.len(),
        schema_bytes: harness.schema().len(),
        load_time: begun.elapsed(),
        samples: Vec::new(),
        slowest: Duration::ZERO,
        memory_bytes: 0,
    };
    for Sample { name, case } in samples(file.slot) {
        let (first, second) = (case.run(&harness)?, case.run(&harness)?);
        report.slowest = report.slowest.max(first.took.max(second.took));
        report.memory_bytes = report.memory_bytes.max(first.memory_bytes);
        report.samples.push(SampleReport { name, result: compare(&first, &second) });
    }
    Ok(CheckReport::Loaded(report))
}

fn compare(first: &CallRecord, second: &CallRecord) -> Result<String, SampleFailure> {
    match &first.result {
        CallResult::Failed(kind) => Err(SampleFailure::Fault(kind.clone())),
        result if *result != second.result => Err(SampleFailure::Nondeterministic {
            first: summary(result),
            second: summary(&second.result),
        }),
        result => Ok(summary(result)),
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(RejectReason::Settings(problems)) => {
                write!(f, "✗ it rejected its settings:")?;
                problems.iter().try_for_each(|problem| write!(f, "\n    {problem}"))?;
                writeln!(f)
            }
            Self::Rejected(reason) => writeln!(f, "✗ {reason}"),
            Self::Loaded(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for LoadedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, contract, digest, component_bytes, .. } = self;
        writeln!(
            f,
            "✓ contract {contract}, slot {slot}, {component_bytes} bytes, sha256:{digest}"
        )?;
        writeln!(f, "✓ compiled and configured in {} ms", self.load_time.as_millis())?;
        writeln!(f, "✓ settings schema is JSON, {} bytes", self.schema_bytes)?;
        for SampleReport { name, result } in &self.samples {
            match result {
                Ok(text) => writeln!(f, "✓ {name}: {text}")?,
                Err(failure) => writeln!(f, "✗ {name}: {failure}")?,
            }
        }
        writeln!(
            f,
            "  at most {} us of {} ms, {} KiB of {} MiB",
            self.slowest.as_micros(),
            DEADLINE.as_millis(),
            self.memory_bytes >> 10,
            MEMORY_BYTES >> 20
        )
    }
}
