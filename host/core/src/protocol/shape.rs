//! What is checked of JSON before it is parsed.

use crate::limits;
use crate::model::refusal::{ErrorType, Refusal};

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorType::InvalidRequest, message)
}

/// Refuses what is longer than any request.
pub(super) fn check_length(text: &str) -> Result<(), Refusal> {
    if text.len() > limits::REQUEST_BYTES {
        return Err(invalid(format!("the request is longer than {} bytes", limits::REQUEST_BYTES)));
    }
    Ok(())
}

/// Refuses nesting that could exhaust a parser's stack.
pub(super) fn check_depth(text: &str) -> Result<(), Refusal> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth = depth.saturating_add(1),
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limits::REQUEST_DEPTH {
            return Err(invalid(format!(
                "the request is nested deeper than {}",
                limits::REQUEST_DEPTH
            )));
        }
    }
    Ok(())
}
