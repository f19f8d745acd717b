//! Reads settings. Every problem is recorded with its JSON Pointer and reading continues, so that all are reported at once.
#![allow(dead_code)]

use crate::bindings::paygress::policy::types::Problem;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The JSON object of the settings.
pub struct Reader {
    object: Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Reads the whole settings.
    pub fn parse(json: &str) -> Self {
        let (object, problem) = match serde_json::from_str(json) {
            Ok(Value::Object(object)) => (object, None),
            Ok(_) => (Map::new(), Some("must be a JSON object".to_owned())),
            Err(error) => (Map::new(), Some(format!("is not JSON: {error}"))),
        };
        let problems = problem.into_iter().map(|message| Problem { path: String::new(), message }).collect();
        Self { object, known: Vec::new(), problems }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.object.remove(name)
    }

    fn note(&mut self, path: String, message: impl Into<String>) {
        self.problems.push(Problem { path, message: message.into() });
    }

    /// Notes a problem with a setting.
    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.note(pointer(name), message);
    }

    /// A whole number within a range.
    pub fn number(&mut self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(value) = self.take(name) else { return default };
        value.as_u64().filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.problem(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
            default
        })
    }

    /// A text. `wrong` says what is wrong with one.
    pub fn text(&mut self, name: &'static str, default: &str, wrong: fn(&str) -> Option<&'static str>) -> String {
        match self.take(name) {
            None => default.to_owned(),
            Some(value) => self.checked(pointer(name), value, wrong).unwrap_or_else(|| default.to_owned()),
        }
    }

    /// A list of texts, empty when it is left out. `wrong` says what is wrong with one.
    pub fn texts(&mut self, name: &'static str, most: usize, wrong: fn(&str) -> Option<&'static str>) -> Vec<String> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.len() <= most => {
                let items = items.into_iter().enumerate();
                items.filter_map(|(index, item)| self.checked(format!("{}/{index}", pointer(name)), item, wrong)).collect()
            }
            Some(value) => {
                let message = if value.is_array() { format!("must hold at most {most} entries") } else { "must be a list of texts".to_owned() };
                self.problem(name, message);
                Vec::new()
            }
        }
    }

    fn checked(&mut self, path: String, value: Value, wrong: fn(&str) -> Option<&'static str>) -> Option<String> {
        let Value::String(text) = value else {
            self.note(path, "must be a text");
            return None;
        };
        let Some(message) = wrong(&text) else { return Some(text) };
        self.note(path, message);
        None
    }

    /// All problems, those of unknown settings last. None: `settings` are good.
    pub fn end<T>(mut self, settings: T) -> Result<T, Vec<Problem>> {
        let message = format!("is not a setting; known are: {}", self.known.join(", "));
        let unknown: Vec<String> = self.object.keys().map(|name| pointer(name)).collect();
        for path in unknown {
            self.note(path, message.clone());
        }
        // More than anybody reads at once, and an answer has a largest size.
        self.problems.truncate(64);
        if self.problems.is_empty() { Ok(settings) } else { Err(self.problems) }
    }
}

/// RFC 6901: two characters are escaped in a pointer.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
