//! What all types have that are a text with a rule.

use crate::sanitize::is_plain;

/// Makes a type of one text that is checked where it comes in. How it is stored is its own matter.
macro_rules! checked_text {
    ($name:ident, $what:literal, $rule:literal, $is_valid:expr) => {
        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`InvalidName`] with the rule that it breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let is_valid: fn(&str) -> bool = $is_valid;
                match is_valid(&text) {
                    true => Ok(Self(text)),
                    false => Err(InvalidName { what: $what, rule: $rule }),
                }
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}
pub(super) use checked_text;

/// Shows such a type as its text.
macro_rules! display_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(super) use display_text;

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether it has a byte, no more than this, and no control characters.
pub(super) fn is_plain_within(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.chars().all(is_plain)
}
