//! `paygress policy test`: runs a suite, a YAML or JSON file of test cases for a component.

use crate::case::{CaseError, TestCase};
use crate::engine;
use crate::expectation::{Mismatch, check_problems, contains};
use crate::input::{InputError, read_text};
use paygress_core::backend::policy::Slot;
use paygress_core::model::refusal::ErrorType;
use paygress_policy::{
    CallResult, Compiler, EngineError, Harness, PolicyEngine, ReadError, RejectReason,
    TemplateGuard, WrongSlot, read_component,
};
use quick_junit::{NonSuccessKind, Report, TestCaseStatus};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a suite could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("{}: {source}", .path.display())]
    Malformed { path: PathBuf, source: Box<serde_saphyr::Error> },
    #[error("{}: there is no slot {slot}; the slots are images, pricing, duration and pod-template", .path.display())]
    UnknownSlot { path: PathBuf, slot: String },
    #[error("the policy {0}; build it, or name another one by --component")]
    Component(#[from] ReadError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A suite as it is written: the format of authors' files stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    slot: String,
    /// Relative to the suite's directory.
    component: PathBuf,
    #[serde(default)]
    settings: Map<String, Value>,
    cases: Vec<SuiteCase>,
}

/// With these settings and this order, the component must do what is expected: one of `expect`,
/// `refuses` and `problems`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteCase {
    name: String,
    /// In place of the suite's settings.
    settings: Option<Map<String, Value>>,
    /// How the order differs from the sample.
    #[serde(default)]
    given: Map<String, Value>,
    /// The component returns a value, and this is part of it.
    expect: Option<Value>,
    /// The component refuses, with this code.
    #[serde(default, deserialize_with = "known_code")]
    refuses: Option<ErrorType>,
    /// The component rejects its settings, with problems at these places.
    problems: Option<Vec<String>>,
}

/// A code of this version: another one is a slip of the author's.
fn known_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ErrorType>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    let known = |name: String| {
        ErrorType::named(&name)
            .ok_or_else(|| D::Error::custom(format!("there is no error type {name}")))
    };
    name.map(known).transpose()
}

/// Why a case failed. Shown to the author.
#[derive(Debug, thiserror::Error)]
enum CaseFailure {
    #[error("a case has one of expect, refuses and problems")]
    NotOneExpectation,
    #[error(transparent)]
    Case(#[from] CaseError),
    #[error(transparent)]
    Rejected(#[from] RejectReason),
    #[error(transparent)]
    WrongSlot(#[from] WrongSlot),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

/// The results of a suite. Displayed for the author.
pub struct SuiteReport {
    name: String,
    cases: Vec<CaseReport>,
}

struct CaseReport {
    name: String,
    took: Duration,
    result: Result<(), CaseFailure>,
}

/// Components by their settings: most cases share the same.
struct Harnesses<'a> {
    engine: Arc<PolicyEngine>,
    slot: Slot,
    component: &'a [u8],
    loaded: BTreeMap<String, Arc<Result<Harness, RejectReason>>>,
}

impl Harnesses<'_> {
    fn get(&mut self, settings: &Map<String, Value>) -> Arc<Result<Harness, RejectReason>> {
        let settings = json!(settings).to_string();
        let (engine, slot, component) = (&self.engine, self.slot, self.component);
        let load = |settings: &String| Arc::new(Harness::load(engine, slot, component, settings));
        Arc::clone(self.loaded.entry(settings).or_insert_with_key(load))
    }
}

/// Runs a suite; `component` takes the place of the one that the suite names. Blocks.
///
/// # Errors
/// [`SuiteError`].
pub fn run_suite(
    path: &Path,
    component: Option<&Path>,
    guard: TemplateGuard,
    compiler: &Compiler,
) -> Result<SuiteReport, SuiteError> {
    let suite: Suite = serde_saphyr::from_str(&read_text(path)?).map_err(|error| {
        SuiteError::Malformed { path: path.to_owned(), source: Box::new(error) }
    })?;
    let slot = Slot::named(&suite.slot).ok_or_else(|| SuiteError::UnknownSlot {
        path: path.to_owned(),
        slot: suite.slot.clone(),
    })?;
    let component = match component {
        Some(component) => read_component(component)?,
        None => read_component(&path.parent().unwrap_or(Path::new("")).join(&suite.component))?,
    };
    let mut harnesses = Harnesses {
        engine: engine::counting(compiler)?.with_template_guard(guard),
        slot,
        component: &component,
        loaded: BTreeMap::new(),
    };
    let run = |case: &SuiteCase| {
        let begun = Instant::now();
        let harness = harnesses.get(case.settings.as_ref().unwrap_or(&suite.settings));
        let result = case.run(slot, &harness);
        CaseReport { name: case.name.clone(), took: begun.elapsed(), result }
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(SuiteReport { name, cases: suite.cases.iter().map(run).collect() })
}

impl SuiteCase {
    fn run(&self, slot: Slot, harness: &Result<Harness, RejectReason>) -> Result<(), CaseFailure> {
        let Self { given, expect, refuses, problems, .. } = self;
        match (expect, refuses, problems) {
            (None, None, Some(places)) => Ok(check_problems(places, harness)?),
            (Some(part), None, None) => match self.call(slot, given, harness)? {
                CallResult::Returned(output) => Ok(contains(&json!(output), part, "")?),
                result => Err(Mismatch::not_returned(part, &result).into()),
            },
            (None, Some(code), None) => match self.call(slot, given, harness)? {
                CallResult::Refused(refusal) if refusal.code == *code => Ok(()),
                result => Err(Mismatch::not_refused(*code, &result).into()),
            },
            _ => Err(CaseFailure::NotOneExpectation),
        }
    }

    fn call(
        &self,
        slot: Slot,
        given: &Map<String, Value>,
        harness: &Result<Harness, RejectReason>,
    ) -> Result<CallResult, CaseFailure> {
        let harness = harness.as_ref().map_err(Clone::clone)?;
        let case = TestCase::from_changes(slot, &json!(given))?;
        Ok(case.run(harness)?.result)
    }
}

impl SuiteReport {
    fn failures(&self) -> usize {
        self.cases.iter().filter(|case| case.result.is_err()).count()
    }

    /// Whether all cases passed. A suite without cases shows nothing, and does not pass.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures() == 0 && !self.cases.is_empty()
    }

    /// The results as JUnit XML.
    ///
    /// # Errors
    /// A name or message cannot be written as XML.
    pub fn junit(&self) -> Result<String, quick_junit::SerializeError> {
        let mut suite = quick_junit::TestSuite::new(self.name.clone());
        for CaseReport { name, took, result } in &self.cases {
            let status = match result {
                Ok(()) => TestCaseStatus::success(),
                Err(failure) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(failure.to_string());
                    status
                }
            };
            let mut case = quick_junit::TestCase::new(name.clone(), status);
            case.set_time(*took);
            suite.add_test_case(case);
        }
        let mut report = Report::new("paygress policy test");
        report.add_test_suite(suite);
        report.to_string()
    }
}

impl fmt::Display for SuiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CaseReport { name, result, .. } in &self.cases {
            match result {
                Ok(()) => writeln!(f, "✓ {name}")?,
                Err(failure) => {
                    let failure = failure.to_string().replace('\n', "\n    ");
                    writeln!(f, "✗ {name}\n    {failure}")?;
                }
            }
        }
        writeln!(f, "{} cases, {} failed", self.cases.len(), self.failures())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_there_is_not_is_no_expectation() {
        let read = serde_json::from_value::<SuiteCase>;
        let known = read(json!({"name": "a", "refuses": "invalid_spec"})).unwrap();
        assert_eq!(known.refuses, Some(ErrorType::InvalidSpec));
        assert_eq!(read(json!({"name": "a"})).unwrap().refuses, None);
        let refused = read(json!({"name": "a", "refuses": "invalid_specs"})).err().unwrap();
        assert!(refused.to_string().contains("no error type invalid_specs"), "{refused}");
    }
}
