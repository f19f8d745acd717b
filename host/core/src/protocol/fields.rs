//! How what customers send is read: an error names the field and says what belongs there. It quotes
//! nothing of the input, which may hold a token.

use super::shape::{check_depth, invalid};
use crate::limits;
use crate::model::refusal::Refusal;
use serde::de::{DeserializeOwned, Deserializer, Error, Unexpected, Visitor};
use std::fmt::{self, Display};

/// The text without the byte order mark that some programs put before it.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a JSON object; the example is for those who send something else.
///
/// # Errors
/// `invalid_request` that names the field, or shows the example.
pub fn from_json<T: DeserializeOwned>(text: &str, example: &str) -> Result<T, Refusal> {
    let text = without_bom(text);
    check_depth(text)?;
    let not_json = |error: &serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!(
            "this is not JSON (line {line}, column {column}); send an object such as {example}"
        ))
    };
    let mut parser = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut parser) {
        Ok(value) => parser.end().map(|()| value).map_err(|error| not_json(&error)),
        Err(error) if error.inner().is_data() => Err(invalid(
            describe_field(&error).unwrap_or_else(|| format!("send an object such as {example}")),
        )),
        Err(error) => Err(not_json(error.inner())),
    }
}

/// What is wrong with which field; `None` if it is no field's fault.
#[must_use]
pub fn describe_field<E: Display>(error: &serde_path_to_error::Error<E>) -> Option<String> {
    let text = error.inner().to_string();
    let path = error.path();
    let is_root = path.iter().next().is_none();
    let named = |prefix: &str| {
        let field = text.strip_prefix(prefix)?.split('`').next()?;
        Some(if is_root { field.to_owned() } else { format!("{path}.{field}") })
    };
    if let Some(field) = named("missing field `") {
        return Some(format!("{field} is missing"));
    }
    if let Some(field) = named("duplicate field `") {
        return Some(format!("{field} is there twice; send it once"));
    }
    if is_root {
        return None;
    }
    // What is before the last "expected" quotes the input; what comes after it is ours.
    let expected =
        text.rsplit_once(", expected ").and_then(|(_, rest)| rest.split(" at line ").next());
    Some(match expected {
        Some("u16" | "u32" | "u64") => format!("{path} must be a whole number"),
        Some("a sequence") => format!("{path} must be a list"),
        Some(expected) if !expected.starts_with("struct ") => format!("{path} must be {expected}"),
        Some(_) => format!("{path} must be an object"),
        None => format!("{path} cannot be read"),
    })
}

/// Reads `duration_minutes`: a whole number however it is written (`60`, `60.0`, `"60"`).
///
/// # Errors
/// The field's rule.
pub fn duration_minutes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_option(WholeNumber { most: limits::WANTED_MINUTES })
}

/// Reads `http_port`, written in the same ways.
///
/// # Errors
/// The field's rule.
pub fn http_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_option(WholeNumber { most: u64::from(u16::MAX) })
}

/// From 1 on.
struct WholeNumber {
    most: u64,
}

impl WholeNumber {
    fn check<E: Error>(&self, number: Option<u64>, sent: Unexpected<'_>) -> Result<Option<u64>, E> {
        match number.filter(|number| (1..=self.most).contains(number)) {
            None => Err(E::invalid_value(sent, self)),
            number => Ok(number),
        }
    }
}

/// A number that is whole, as whole: it prints without a point.
fn whole(number: f64) -> Option<u64> {
    number.to_string().parse().ok()
}

impl<'de> Visitor<'de> for WholeNumber {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 1 to {}, or be left out", self.most)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        self.check(Some(number), Unexpected::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        self.check(u64::try_from(number).ok(), Unexpected::Signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        self.check(whole(number), Unexpected::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match text.trim() {
            // As every other field that is left empty.
            "" => Ok(None),
            number => self.check(number.parse().ok().and_then(whole), Unexpected::Str(text)),
        }
    }
}
