//! Compares a component's results with those that a suite expects.

use crate::text::summary;
use paygress_core::model::refusal::ErrorType;
use paygress_policy::{CallResult, Harness, RejectReason};
use serde_json::Value;

/// How a result differs from the expected one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("it should have returned {expected}; its result: {result}")]
    NotReturned { expected: String, result: String },
    #[error("it should have refused with {code}; its result: {result}", code = .code.as_str())]
    NotRefused { code: ErrorType, result: String },
    #[error("{path} is missing")]
    Missing { path: String },
    #[error("{path} is {value}, and should be {expected}")]
    Value { path: String, value: Value, expected: Value },
    #[error("it found no problem at {}; it did at {}", .missing.join(", "), .found.join(", "))]
    OtherProblems { missing: Vec<String>, found: Vec<String> },
    #[error("it accepted these settings")]
    SettingsAccepted,
    #[error("{0}")]
    RejectedOtherwise(#[source] RejectReason),
}

impl Mismatch {
    pub(crate) fn not_returned(expected: &Value, result: &CallResult) -> Self {
        Self::NotReturned { expected: expected.to_string(), result: summary(result) }
    }

    pub(crate) fn not_refused(code: ErrorType, result: &CallResult) -> Self {
        Self::NotRefused { code, result: summary(result) }
    }
}

/// Checks that the component found problems with its settings at these places.
pub(crate) fn check_problems(
    places: &[String],
    harness: &Result<Harness, RejectReason>,
) -> Result<(), Mismatch> {
    let problems = match harness {
        Err(RejectReason::Settings(problems)) => problems,
        Err(other) => return Err(Mismatch::RejectedOtherwise(other.clone())),
        Ok(_) => return Err(Mismatch::SettingsAccepted),
    };
    let found: Vec<String> =
        problems.iter().map(|problem| problem.path.clone().unwrap_or_default()).collect();
    let missing: Vec<String> =
        places.iter().filter(|place| !found.contains(place)).cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(Mismatch::OtherProblems { missing, found }) }
}

/// Checks that a value contains everything that is expected; objects may have more fields.
pub(crate) fn contains(value: &Value, expected: &Value, path: &str) -> Result<(), Mismatch> {
    match (value, expected) {
        (Value::Object(value), Value::Object(expected)) => {
            expected.iter().try_for_each(|(name, expected)| {
                let path = format!("{path}/{name}");
                match value.get(name) {
                    Some(value) => contains(value, expected, &path),
                    None => Err(Mismatch::Missing { path }),
                }
            })
        }
        (Value::Array(value), Value::Array(expected)) if value.len() == expected.len() => {
            value.iter().zip(expected).enumerate().try_for_each(|(index, (value, expected))| {
                contains(value, expected, &format!("{path}/{index}"))
            })
        }
        (value, expected) if value == expected => Ok(()),
        (value, expected) => Err(Mismatch::Value {
            path: path.to_owned(),
            value: value.clone(),
            expected: expected.clone(),
        }),
    }
}
