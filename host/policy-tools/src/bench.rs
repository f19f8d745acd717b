//! `paygress policy bench`: what does a call cost, compared with an earlier measurement?

use crate::case::TestCase;
use crate::engine;
use crate::input::{InputError, PolicyFile, read_case, read_text};
use paygress_core::backend::policy::{Configured, FaultKind};
use paygress_policy::{CallRecord, CallResult, Compiler};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("the call failed: {0}")]
    Failed(#[source] FaultKind),
    #[error("{} was not written by `paygress policy bench --save`: {source}", .path.display())]
    Baseline { path: PathBuf, source: serde_json::Error },
}

/// The cost of a call. The JSON form is that of saved measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    pub calls: u32,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// Instructions.
    pub fuel: u64,
    pub memory_bytes: u64,
    /// Whether the times include `configure`. Instructions always do.
    #[serde(default)]
    pub configured: Configured,
}

impl Cost {
    /// Measures calls with an author's order, or with the sample. Blocks.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn measure(
        file: &PolicyFile,
        order: Option<&Path>,
        calls: u32,
        compiler: &Compiler,
    ) -> Result<Self, BenchError> {
        let case = match order {
            Some(path) => read_case(file.slot, path)?,
            None => TestCase::sample(file.slot),
        };
        // Instructions and memory from the engine that counts them; times from the one that serves.
        let counting = file.load(&engine::counting(compiler).map_err(InputError::from)?)?;
        let CallRecord { result, memory_bytes, fuel, .. } =
            case.run(&counting).map_err(InputError::from)?;
        if let CallResult::Failed(kind) = result {
            return Err(BenchError::Failed(kind));
        }
        let harness = file.load(&engine::serving(compiler).map_err(InputError::from)?)?;
        let mut times = Vec::new();
        for _ in 0..calls {
            let CallRecord { took, .. } = case.run(&harness).map_err(InputError::from)?;
            times.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        times.sort_unstable();
        let percentile = |percent: usize| {
            let index = times.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
            times.get(index).copied().unwrap_or_default()
        };
        Ok(Self {
            calls,
            p50_us: percentile(50),
            p90_us: percentile(90),
            p99_us: percentile(99),
            max_us: percentile(100),
            fuel,
            memory_bytes,
            configured: harness.configured(),
        })
    }

    /// Reads a saved measurement.
    ///
    /// # Errors
    /// The file is not one.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        serde_json::from_str(&read_text(path)?)
            .map_err(|source| BenchError::Baseline { path: path.to_owned(), source })
    }

    /// Compares with an earlier measurement. Instructions and memory may be `tolerance_percent`
    /// higher: they are the same on every machine. Times are shown, and not judged.
    #[must_use]
    pub fn compare(&self, baseline: Option<&Self>, tolerance_percent: u64) -> BenchReport {
        let row = |name, value: fn(&Self) -> u64, limit| Row {
            name,
            now: value(self),
            before: baseline.map(value),
            limit,
        };
        let limit = Limit::Percent(tolerance_percent.saturating_add(100));
        BenchReport {
            rows: [
                row("p50, us", |cost| cost.p50_us, Limit::None),
                row("p90, us", |cost| cost.p90_us, Limit::None),
                row("p99, us", |cost| cost.p99_us, Limit::None),
                row("max, us", |cost| cost.max_us, Limit::None),
                row("instructions", |cost| cost.fuel, limit),
                row("memory, bytes", |cost| cost.memory_bytes, limit),
            ],
            configured: self.configured,
        }
    }
}

/// A measurement beside an earlier one. Displayed for the author.
#[derive(Debug)]
pub struct BenchReport {
    rows: [Row; 6],
    configured: Configured,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    None,
    /// Of the earlier value.
    Percent(u64),
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    now: u64,
    before: Option<u64>,
    limit: Limit,
}

impl Row {
    fn is_worse(&self) -> bool {
        match (self.before, self.limit) {
            (Some(before), Limit::Percent(percent)) => {
                let allowed = u128::from(before).saturating_mul(u128::from(percent)) / 100;
                u128::from(self.now) > allowed
            }
            _ => false,
        }
    }
}

impl BenchReport {
    /// Whether instructions or memory increased beyond the tolerance.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.rows.iter().any(Row::is_worse)
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let before = row.before.map(|before| format!("{before:>14}")).unwrap_or_default();
            let mark = if row.is_worse() { "  ✗ worse" } else { "" };
            writeln!(f, "{:<14}{:>14}{before}{mark}", row.name, row.now)?;
        }
        writeln!(
            f,
            "{}",
            match self.configured {
                Configured::Snapshot => "a call starts from a snapshot of the configured component",
                Configured::EachCall =>
                    "a call begins with configure: there is no snapshot of this component",
            }
        )
    }
}
