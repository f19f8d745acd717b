//! Names of later versions in enums. Two versions share a ledger while one replaces the other, and
//! a client may be older than its service. Where a name is only reported, an unknown one is read,
//! and written again unchanged. Enums that money depends on have no such value: there an unknown
//! name is an error.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Bytes of such a name. The longest of this version has 20.
const NAME_BYTES: usize = 48;
/// Names that are interned, which lasts until the process ends: more than later versions add, and
/// few enough if a service makes them up.
const NAMES: usize = 64;
/// Stands for every text that is no such name.
const OTHER: &str = "unknown";

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Text(Box<str>);

static KNOWN: Mutex<BTreeSet<&'static Text>> = Mutex::new(BTreeSet::new());

/// A name that this version does not know: `a` to `z`, digits, `-` and `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaterName(Option<&'static Text>);

impl LaterName {
    /// Texts that are no such name, and new ones when [`NAMES`] are interned, are all the same
    /// name.
    pub(crate) fn of(text: &str) -> Self {
        let is_plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(is_plain) {
            return Self(None);
        }
        let text = Text(text.into());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(&text) {
            return Self(Some(*name));
        }
        if known.len() >= NAMES {
            return Self(None);
        }
        let name: &'static Text = Box::leak(Box::new(text));
        known.insert(name);
        Self(Some(name))
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0.map_or(OTHER, |text| text.0.as_ref())
    }
}

impl fmt::Display for LaterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Implements `Serialize` and `Deserialize` for an enum with `as_str`, `named` and a variant
/// `Later`: it is written by its name, and every unknown name is read as `Later`. With a
/// description, implements `ToSchema` too, with the names in `ALL`.
macro_rules! named_or_later {
    ($type:ident, $description:literal) => {
        $crate::model::later_name::named_or_later!($type);

        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .description(Some($description))
                    .enum_values(Some(Self::ALL.map(Self::as_str)))
                    .into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
    ($type:ident) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                let later = || Self::Later($crate::model::later_name::LaterName::of(&name));
                Ok(Self::named(&name).unwrap_or_else(later))
            }
        }
    };
}
pub(crate) use named_or_later;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_was_and_every_other_text_is_one_name() {
        for name in ["a", "moved-away", "low_power2", &"x".repeat(NAME_BYTES)] {
            let read = LaterName::of(name);
            assert_eq!((read.as_str(), read), (name, LaterName::of(name)));
        }
        assert_ne!(LaterName::of("moved-away"), LaterName::of("moved"));
        let long = "x".repeat(NAME_BYTES + 1);
        for other in ["", "Two Names", "\u{1b}[2J", "a\n", "é", &long] {
            assert_eq!(LaterName::of(other).as_str(), OTHER, "{other:?}");
        }
    }
}
