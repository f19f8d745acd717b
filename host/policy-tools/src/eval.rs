//! `paygress policy eval`: what does a component return for an order, and what did it cost?

use crate::case::TestCase;
use crate::engine;
use crate::input::{InputError, PolicyFile, read_case};
use paygress_policy::{CallRecord, CallResult, Compiler, TemplateGuard};
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// The input of a call, its result and its cost. Displayed for the author.
#[derive(Debug)]
pub struct Evaluation {
    case: TestCase,
    settings: String,
    record: CallRecord,
}

/// Calls a component with an author's order. Blocks.
///
/// # Errors
/// A file cannot be read, or the component is rejected.
pub fn eval(
    file: &PolicyFile,
    order: &Path,
    guard: TemplateGuard,
    compiler: &Compiler,
) -> Result<Evaluation, InputError> {
    let case = read_case(file.slot, order)?;
    let harness = file.load(&engine::counting(compiler)?.with_template_guard(guard))?;
    let record = case.run(&harness)?;
    Ok(Evaluation { case, settings: file.settings()?, record })
}

impl Evaluation {
    /// Whether the component failed. A refusal is not a failure.
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self.record.result, CallResult::Failed(_))
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "input    {}", pretty(&self.case.with_all_names())?)?;
        writeln!(f, "settings {}", self.settings)?;
        match &self.record.result {
            CallResult::Returned(output) => writeln!(f, "returned {}", pretty(output)?)?,
            CallResult::Refused(refusal) => {
                writeln!(f, "refused  {}: {}", refusal.code.as_str(), refusal.message)?;
            }
            CallResult::Failed(kind) => writeln!(
                f,
                "failed   {kind}\n         the customer would get policy_unavailable and keep the token"
            )?,
        }
        let CallRecord { took, fuel, memory_bytes, .. } = &self.record;
        writeln!(
            f,
            "cost     {} us, {fuel} instructions, {} KiB",
            took.as_micros(),
            memory_bytes >> 10
        )
    }
}

fn pretty(value: &impl Serialize) -> Result<String, fmt::Error> {
    serde_json::to_string_pretty(value).map_err(|_| fmt::Error)
}
