/// The longest message of the contract, in bytes.
const MAX_MESSAGE_BYTES: usize = 500;

/// A mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A JSON Pointer (RFC 6901); empty for the whole settings.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Problem {
    pub(crate) fn truncated(self) -> Self {
        Self { path: truncate_message(&self.path), message: truncate_message(&self.message) }
    }
}

/// Shortens a message to the 500 bytes that the contract allows.
#[must_use]
pub fn truncate_message(message: &str) -> String {
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = message
        .char_indices()
        .map(|(index, _)| index)
        .take_while(|index| *index <= MAX_MESSAGE_BYTES.saturating_sub('…'.len_utf8()))
        .last();
    format!("{}…", message.get(..end.unwrap_or(0)).unwrap_or_default())
}
