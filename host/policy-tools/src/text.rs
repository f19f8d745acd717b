//! Results as text.

use paygress_policy::{CallResult, Output};
use serde_json::json;

/// Characters of a returned value in a summary.
const SUMMARY_CHARACTERS: usize = 200;

/// A result in one line.
pub(crate) fn summary(result: &CallResult) -> String {
    match result {
        CallResult::Returned(output) => shorten(output),
        CallResult::Refused(refusal) => {
            format!("refused, {}: {}", refusal.code.as_str(), refusal.message)
        }
        CallResult::Failed(kind) => format!("failed: {kind}"),
    }
}

fn shorten(output: &Output) -> String {
    let text = json!(output).to_string();
    match text.char_indices().nth(SUMMARY_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
