//! Holds settings against their schema. What is wrong is reported and taken out, so that the rest
//! can be read.

use crate::problem::{Problems, escaped};
use serde_json::{Map, Value};

/// The longest text of a setting for which the schema names no length.
const MAX_TEXT_BYTES: u64 = 512;

/// Reports what is wrong with the settings, and takes it out of them.
pub(crate) fn validate(schema: &Value, settings: &mut Value, problems: &mut Problems) {
    if let Some(message) = fault(schema, settings, "", problems) {
        problems.add_at("", message);
        *settings = Value::Object(Map::new());
    }
}

/// What is wrong with a value itself. What is wrong inside it is reported here.
fn fault(schema: &Value, value: &mut Value, path: &str, problems: &mut Problems) -> Option<String> {
    if let Some(Value::Array(choices)) = schema.get("enum") {
        return choice_fault(schema, choices, value);
    }
    match schema.get("type").and_then(Value::as_str)? {
        "integer" => integer_fault(schema, value),
        "boolean" => (!value.is_boolean()).then(|| "must be true or false".to_owned()),
        "string" => text_fault(schema, value),
        "array" => list_fault(schema, value, path, problems),
        "object" => object_fault(schema, value, path, problems),
        _ => None,
    }
}

fn choice_fault(schema: &Value, choices: &[Value], value: &Value) -> Option<String> {
    if choices.contains(value) {
        return None;
    }
    let names: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
    let fault = text_fault(schema, value);
    Some(fault.unwrap_or_else(|| format!("must be {}", names.join(" or "))))
}

fn integer_fault(schema: &Value, value: &Value) -> Option<String> {
    let limit = |keyword: &str| schema.get(keyword).and_then(integer);
    let minimum = limit("minimum").unwrap_or_else(|| i64::MIN.into());
    let maximum = limit("maximum").unwrap_or_else(|| match minimum < 0 {
        true => i64::MAX.into(),
        false => u64::MAX.into(),
    });
    match integer(value) {
        Some(number) if (minimum..=maximum).contains(&number) => None,
        _ => Some(format!("must be a whole number from {minimum} to {maximum}")),
    }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

fn text_fault(schema: &Value, value: &Value) -> Option<String> {
    let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let minimum = limit("minLength").unwrap_or(1);
    let maximum = limit("maxLength").unwrap_or(MAX_TEXT_BYTES);
    let length = value.as_str().and_then(|text| u64::try_from(text.len()).ok());
    match length {
        Some(length) if (minimum..=maximum).contains(&length) => None,
        _ => Some(format!("must be a text of {minimum} to {maximum} bytes")),
    }
}

/// A text of a list or a map, which may be empty unless the schema names its length.
fn inner_text_fault(schema: &Value, value: &Value) -> Option<String> {
    match schema.get("minLength").or_else(|| schema.get("maxLength")) {
        Some(_) => text_fault(schema, value),
        None => (!value.is_string()).then(|| "must be a text".to_owned()),
    }
}

fn is_text(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "string") && schema.get("enum").is_none()
}

fn is_object(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "object")
}

fn list_fault(
    schema: &Value,
    value: &mut Value,
    path: &str,
    problems: &mut Problems,
) -> Option<String> {
    let any = Value::Bool(true);
    let item_schema = schema.get("items").unwrap_or(&any);
    let Value::Array(items) = value else {
        let of = match item_schema {
            texts if is_text(texts) => " of texts",
            objects if is_object(objects) => " of objects",
            _ => "",
        };
        return Some(format!("must be a list{of}"));
    };
    let mut good = Vec::new();
    for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
        if is_right_inside(item_schema, &mut item, &format!("{path}/{index}"), problems) {
            good.push(item);
        } else {
            problems.add_removed(path, index);
        }
    }
    *items = good;
    let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let (minimum, maximum) = (limit("minItems"), limit("maxItems"));
    let length = u64::try_from(items.len()).unwrap_or(u64::MAX);
    if length < minimum.unwrap_or(0) || length > maximum.unwrap_or(u64::MAX) {
        let message = match (minimum, maximum) {
            (Some(minimum), None) => format!("must have at least {minimum} entries"),
            (None, Some(maximum)) => format!("must have at most {maximum} entries"),
            _ => format!(
                "must have {} to {} entries",
                minimum.unwrap_or(0),
                maximum.unwrap_or(u64::MAX)
            ),
        };
        problems.add_length(path, message);
    }
    None
}

/// Whether a value of a list or a map stays, as it is or as an empty object.
fn is_right_inside(schema: &Value, value: &mut Value, path: &str, problems: &mut Problems) -> bool {
    let found = match is_text(schema) {
        true => inner_text_fault(schema, value),
        false => None,
    };
    if let Some(message) = found {
        problems.add_at(path, message);
        return false;
    }
    if is_object(schema) && !value.is_object() {
        problems.add_at(path, "must be a JSON object");
        *value = Value::Object(Map::new());
    }
    let found = match is_text(schema) {
        true => None,
        false => fault(schema, value, path, problems),
    };
    let is_right = found.is_none();
    if let Some(message) = found {
        problems.add_at(path, message);
    }
    is_right
}

fn object_fault(
    schema: &Value,
    value: &mut Value,
    path: &str,
    problems: &mut Problems,
) -> Option<String> {
    let values = schema.get("additionalProperties").filter(|values| values.is_object());
    let Value::Object(object) = value else {
        return Some(match values {
            Some(texts) if is_text(texts) => "must be an object whose values are texts".to_owned(),
            Some(objects) if is_object(objects) => {
                "must be an object whose values are objects".to_owned()
            }
            _ => "must be a JSON object".to_owned(),
        });
    };
    match values {
        Some(values) => map_fault(values, object, path, problems),
        None => struct_fault(schema, object, path, problems),
    }
    None
}

fn map_fault(schema: &Value, object: &mut Map<String, Value>, path: &str, problems: &mut Problems) {
    object.retain(|key, value| {
        if is_text(schema) {
            let found = inner_text_fault(schema, value);
            if let Some(message) = &found {
                problems.add_at(path, format!("the value of {key} {message}"));
            }
            return found.is_none();
        }
        is_right_inside(schema, value, &format!("{path}/{}", escaped(key)), problems)
    });
}

fn struct_fault(
    schema: &Value,
    object: &mut Map<String, Value>,
    path: &str,
    problems: &mut Problems,
) {
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let mut wrong = Vec::new();
    object.retain(|key, value| {
        let place = format!("{path}/{}", escaped(key));
        let Some(property) = properties.get(key) else {
            if is_closed {
                problems.add_unknown(place);
            }
            return !is_closed;
        };
        let found = fault(property, value, &place, problems);
        let is_right = found.is_none();
        if let Some(message) = found {
            problems.add_at(&place, message);
            wrong.push(key.clone());
        }
        is_right
    });
    let required = schema.get("required").and_then(Value::as_array);
    for key in required.into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(key) {
            if !wrong.iter().any(|wrong| wrong == key) {
                problems.add_at(&format!("{path}/{}", escaped(key)), "is missing");
            }
            object.insert(key.to_owned(), stand_in(properties.get(key)));
        }
    }
}

/// In place of a value that is missing or wrong, so that the others can be read.
fn stand_in(schema: Option<&Value>) -> Value {
    match schema.and_then(|schema| schema.get("type")).and_then(Value::as_str) {
        Some("integer") => {
            schema.and_then(|schema| schema.get("minimum")).cloned().unwrap_or_else(|| 0.into())
        }
        Some("boolean") => Value::Bool(false),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => Value::Object(Map::new()),
        _ => Value::String(String::new()),
    }
}
