//! Reads a policy's settings from JSON: every problem is noted with its JSON Pointer, and reading
//! goes on.
//!
//! ```
//! use paygress_plugin_settings::Reader;
//! let mut reader = Reader::parse(r#"{"minimum": 0, "typo": 1}"#);
//! let minimum = reader.number("minimum", 60, 1..=3600);
//! let problems = reader.problems();
//! assert_eq!(minimum, 60);
//! assert_eq!(problems[0], ("/minimum".into(), "must be a whole number from 1 to 3600".into()));
//! assert_eq!(problems[1], ("/typo".into(), "is not a setting; known are: minimum".into()));
//! ```

mod pod;

pub use pod::Pod;

use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Keeps a policy's settings from `configure` to its other calls, which find them in `SETTINGS`:
/// implements the interface
/// `settings` for this policy, with this schema and this reader. Where it stands, `settings` and
/// `Problem` are the bindings' own.
#[macro_export]
macro_rules! kept {
    ($policy:ty, $settings:ty, $schema:expr, $read:path) => {
        ::std::thread_local! {
            static SETTINGS: ::std::cell::RefCell<Option<$settings>> = const { ::std::cell::RefCell::new(None) };
        }

        impl settings::Guest for $policy {
            fn schema() -> String {
                $schema.to_owned()
            }

            fn configure(json: String) -> Result<(), Vec<Problem>> {
                let problem = |(path, message): $crate::Problem| Problem { path, message };
                let settings = $read(&json).map_err(|problems| problems.into_iter().map(problem).collect::<Vec<_>>())?;
                SETTINGS.set(Some(settings));
                Ok(())
            }
        }
    };
}

/// A mistake: its JSON Pointer, and what to write instead.
pub type Problem = (String, String);

/// One JSON object of settings.
pub struct Reader {
    path: String,
    object: Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Reads the whole settings.
    #[must_use]
    pub fn parse(json: &str) -> Self {
        match serde_json::from_str(json) {
            Ok(value) => Self::of(String::new(), value),
            Err(error) => {
                let mut reader = Self::of(String::new(), Value::Object(Map::new()));
                reader.problems.push((String::new(), format!("is not JSON: {error}")));
                reader
            }
        }
    }

    fn of(path: String, value: Value) -> Self {
        let mut problems = Vec::new();
        let object = match value {
            Value::Object(object) => object,
            _ => {
                problems.push((path.clone(), "must be a JSON object".to_owned()));
                Map::new()
            }
        };
        Self { path, object, known: Vec::new(), problems }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.object.remove(name)
    }

    /// Notes a problem with a setting of this object.
    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        // RFC 6901: these two characters are escaped in a pointer.
        let name = name.replace('~', "~0").replace('/', "~1");
        self.problems.push((format!("{}/{name}", self.path), message.into()));
    }

    /// A whole number within a range.
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

    /// True or false.
    pub fn flag(&mut self, name: &'static str, default: bool) -> bool {
        match self.take(name) {
            None => default,
            Some(Value::Bool(flag)) => flag,
            Some(_) => {
                self.problem(name, "must be true or false");
                default
            }
        }
    }

    /// A text of 1 to `bytes` bytes.
    pub fn text(&mut self, name: &'static str, default: &str, bytes: usize) -> String {
        match self.take(name) {
            None => default.to_owned(),
            Some(Value::String(text)) if (1..=bytes).contains(&text.len()) => text,
            Some(_) => {
                self.problem(name, format!("must be a text of 1 to {bytes} bytes"));
                default.to_owned()
            }
        }
    }

    /// A list of texts; `None` when it is left out.
    pub fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let Value::Array(items) = self.take(name)? else {
            self.problem(name, "must be a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                _ => self
                    .problems
                    .push((format!("{}/{name}/{index}", self.path), "must be a text".to_owned())),
            }
        }
        Some(texts)
    }

    /// An object whose values are texts.
    pub fn table(&mut self, name: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::Object(object) = value else {
            self.problem(name, "must be an object whose values are texts");
            return Vec::new();
        };
        let mut table = Vec::new();
        for (key, value) in object {
            match value {
                Value::String(text) => table.push((key, text)),
                _ => self.problem(name, format!("the value of {key} must be a text")),
            }
        }
        table
    }

    /// A list of objects, each read by `read`; `None` when it is left out.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Reader) -> T,
    ) -> Option<Vec<T>> {
        let Value::Array(items) = self.take(name)? else {
            self.problem(name, "must be a list of objects");
            return None;
        };
        let mut objects = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let mut reader = Self::of(format!("{}/{name}/{index}", self.path), item);
            objects.push(read(&mut reader));
            self.problems.extend(reader.problems());
        }
        Some(objects)
    }

    /// All problems, those of unknown settings last. Empty: the settings are good.
    #[must_use]
    pub fn problems(mut self) -> Vec<Problem> {
        let unknown: Vec<String> = self.object.keys().cloned().collect();
        for name in unknown {
            let message = format!("is not a setting; known are: {}", self.known.join(", "));
            self.problem(&name, message);
        }
        self.problems.truncate(PROBLEMS);
        for (path, message) in &mut self.problems {
            *path = cut(path);
            *message = cut(message);
        }
        self.problems
    }
}

/// Problems that are told: who has more will not read on.
const PROBLEMS: usize = 64;
/// The longest message that the contract allows, in bytes.
const MESSAGE: usize = 500;

/// A message as the contract allows it: at most 500 bytes.
#[must_use]
pub fn cut(message: &str) -> String {
    if message.len() <= MESSAGE {
        return message.to_owned();
    }
    let end = message
        .char_indices()
        .map(|(index, _)| index)
        .take_while(|index| *index <= MESSAGE.saturating_sub('…'.len_utf8()))
        .last();
    format!("{}…", message.get(..end.unwrap_or(0)).unwrap_or_default())
}
