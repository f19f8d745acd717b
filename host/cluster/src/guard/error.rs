//! Why a template is refused.

use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// A template was refused.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("the {what} is not JSON: {source}")]
    NotJson { what: &'static str, source: serde_json::Error },
    /// `path` is that of the field, such as `template.spec.containers[0].image`.
    #[error("{path} {violation}")]
    Field { path: String, violation: Violation },
    #[error("{path} is a second Service with a nodePort; a pod has one")]
    SecondNodePort { path: String },
    #[error("both a hostPort and a Service use port {0}; use one of them")]
    PortTwice(u16),
    #[error("neither a hostPort nor a nodePort is {0}: nobody could log in")]
    Unreachable(u16),
    #[error("the template has a field of the wrong type: {0}")]
    WrongType(#[source] serde_json::Error),
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    NotAnObject,
    NotAList,
    UnknownField,
    /// It must be left out, or have this value.
    MustBe(Value),
    /// It must be left out, or be a number of this range.
    OutOfRange {
        least: i64,
        most: i64,
    },
    TooMany(usize),
    /// Anything else, as the end of a sentence that begins with the path.
    Other(Cow<'static, str>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("must be an object"),
            Self::NotAList => f.write_str("must be a list"),
            Self::UnknownField => f.write_str("is not allowed"),
            Self::MustBe(value) => write!(f, "must be {value}"),
            Self::OutOfRange { least, most } => {
                write!(f, "must be a number from {least} to {most}")
            }
            Self::TooMany(limit) => write!(f, "must not have more than {limit} entries"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<&'static str> for Violation {
    fn from(text: &'static str) -> Self {
        Self::Other(Cow::Borrowed(text))
    }
}
