//! Reads one JSON object. A mistake does not stop it: all problems are reported at once.

use crate::problem::Problem;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Problems that are reported; the contract bounds the size of an answer.
const MAX_PROBLEMS: usize = 64;

/// Reads one JSON object of settings; each method takes one setting, or its default.
pub struct SettingsReader {
    /// The JSON Pointer of this object.
    path: String,
    object: Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl SettingsReader {
    #[must_use]
    pub fn parse(json: &str) -> Self {
        match serde_json::from_str(json) {
            Ok(value) => Self::new(String::new(), value),
            Err(error) => {
                let mut reader = Self::new(String::new(), Value::Object(Map::new()));
                let message = format!("is not JSON: {error}");
                reader.problems.push(Problem { path: String::new(), message });
                reader
            }
        }
    }

    fn new(path: String, value: Value) -> Self {
        let mut problems = Vec::new();
        let object = match value {
            Value::Object(object) => object,
            _ => {
                let message = "must be a JSON object".to_owned();
                problems.push(Problem { path: path.clone(), message });
                Map::new()
            }
        };
        Self { path, object, known: Vec::new(), problems }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.object.remove(name)
    }

    /// Reports a problem with a setting of this object.
    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        let path = self.pointer(name);
        self.problems.push(Problem { path, message: message.into() });
    }

    fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.path, escaped(name))
    }

    pub fn number(&mut self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(value) = self.take(name) else { return default };
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                self.problem(
                    name,
                    format!("must be a whole number from {} to {}", range.start(), range.end()),
                );
                default
            }
        }
    }

    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        match self.take(name) {
            None => default,
            Some(Value::Bool(value)) => value,
            Some(_) => {
                self.problem(name, "must be true or false");
                default
            }
        }
    }

    /// A string of 1 to `max_bytes` bytes.
    pub fn string(&mut self, name: &'static str, default: &str, max_bytes: usize) -> String {
        match self.take(name) {
            None => default.to_owned(),
            Some(Value::String(text)) if (1..=max_bytes).contains(&text.len()) => text,
            Some(_) => {
                self.problem(name, format!("must be a text of 1 to {max_bytes} bytes"));
                default.to_owned()
            }
        }
    }

    /// An array of strings; `None` when it is omitted.
    pub fn strings(&mut self, name: &'static str) -> Option<Vec<String>> {
        let Value::Array(items) = self.take(name)? else {
            self.problem(name, "must be a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                _ => {
                    let path = format!("{}/{index}", self.pointer(name));
                    self.problems.push(Problem { path, message: "must be a text".to_owned() });
                }
            }
        }
        Some(texts)
    }

    /// An object whose values are strings; empty when it is omitted.
    pub fn string_map(&mut self, name: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::Object(object) = value else {
            self.problem(name, "must be an object whose values are texts");
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (key, value) in object {
            match value {
                Value::String(text) => entries.push((key, text)),
                _ => self.problem(name, format!("the value of {key} must be a text")),
            }
        }
        entries
    }

    /// An array of objects, each read by `read`; `None` when it is omitted.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Option<Vec<T>> {
        let Value::Array(items) = self.take(name)? else {
            self.problem(name, "must be a list of objects");
            return None;
        };
        let mut objects = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let mut reader = Self::new(format!("{}/{index}", self.pointer(name)), item);
            objects.push(read(&mut reader));
            self.problems.extend(reader.into_problems());
        }
        Some(objects)
    }

    /// An object whose values are objects, each read by `read`; empty when it is omitted.
    pub fn object_map<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Vec<(String, T)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::Object(object) = value else {
            self.problem(name, "must be an object whose values are objects");
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (key, value) in object {
            let path = format!("{}/{}", self.pointer(name), escaped(&key));
            let mut reader = Self::new(path, value);
            entries.push((key, read(&mut reader)));
            self.problems.extend(reader.into_problems());
        }
        entries
    }

    /// The settings if there was no problem.
    ///
    /// # Errors
    /// All problems, those of unknown settings last.
    pub fn finish<T>(self, settings: T) -> Result<T, Vec<Problem>> {
        let problems = self.into_problems();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// All problems, those of unknown settings last.
    #[must_use]
    pub fn into_problems(mut self) -> Vec<Problem> {
        let unknown: Vec<String> = self.object.keys().cloned().collect();
        for name in unknown {
            let message = format!("is not a setting; known are: {}", self.known.join(", "));
            self.problem(&name, message);
        }
        self.problems.truncate(MAX_PROBLEMS);
        self.problems.into_iter().map(Problem::truncated).collect()
    }
}

/// A step of a JSON Pointer: RFC 6901 escapes these two characters.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
