//! Mistakes in the settings, collected to be reported at once.

use crate::contract::types::paygress::policy::types::Problem;
use std::collections::BTreeMap;

/// The longest message of the contract, in bytes.
const MAX_MESSAGE_BYTES: usize = 500;

/// Problems that are reported; the contract bounds the size of an answer.
const MAX_PROBLEMS: usize = 64;

/// The problems of some settings. They are reported in the order of the fields, those of unknown
/// settings last.
#[derive(Default)]
pub struct Problems {
    found: Vec<Found>,
    /// The fields of each struct, by its JSON Pointer.
    fields: BTreeMap<String, &'static [&'static str]>,
    /// Lists of a wrong length, and what to say unless the policy says it.
    lengths: Vec<(String, String)>,
    /// The entries that were taken out of lists: the list's JSON Pointer, and the index.
    removed: Vec<(String, usize)>,
}

struct Found {
    path: String,
    message: Message,
    place: Place,
}

enum Message {
    Text(String),
    /// There is no such setting; which there are is known at the end.
    Unknown,
}

/// Where it stands among the problems of its object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// With its setting, before what is inside it.
    Setting,
    /// With its setting, after what is inside it.
    Inside,
    /// After all fields of its object.
    Last,
}

impl Problems {
    /// Reports a problem with a setting, `&["tiers", "0", "id"]` for one inside others, in the order of
    /// the fields. The message says what to write instead.
    pub fn add(&mut self, setting: &[&str], message: impl Into<String>) {
        self.check(setting, message.into(), Place::Inside);
    }

    /// Reports how a setting disagrees with others: after the other fields of its object.
    pub fn add_last(&mut self, setting: &[&str], message: impl Into<String>) {
        self.check(setting, message.into(), Place::Last);
    }

    pub(crate) fn add_at(&mut self, path: &str, message: impl Into<String>) {
        self.push(path.to_owned(), Message::Text(message.into()), Place::Setting);
    }

    pub(crate) fn add_unknown(&mut self, path: String) {
        self.push(path, Message::Unknown, Place::Setting);
    }

    pub(crate) fn add_length(&mut self, path: &str, message: String) {
        self.lengths.push((path.to_owned(), message));
    }

    /// The fields of each struct of what is left of the settings.
    pub(crate) fn set_fields(&mut self, fields: BTreeMap<String, &'static [&'static str]>) {
        self.fields = fields.into_iter().map(|(path, names)| (self.given(&path), names)).collect();
    }

    /// Notes that an entry of a list is taken out; both are as they were given.
    pub(crate) fn add_removed(&mut self, list: &str, index: usize) {
        self.removed.push((list.to_owned(), index));
        self.removed.sort();
    }

    /// Where something was in the settings as they were given, of which entries of lists are taken
    /// out since.
    pub(crate) fn given(&self, path: &str) -> String {
        let mut given = String::new();
        for step in path.split('/').skip(1) {
            let is_moved = self.removed.iter().any(|(list, _)| *list == given);
            let step = match step.parse() {
                Ok(index) if is_moved => self.given_index(&given, index).to_string(),
                _ => step.to_owned(),
            };
            given.push('/');
            given.push_str(&step);
        }
        given
    }

    /// From the first entry that was taken out of the list on, each moves it.
    fn given_index(&self, list: &str, index: usize) -> usize {
        let removed = self.removed.iter().filter(|(of, _)| of == list);
        removed.fold(index, |index, (_, removed)| match *removed <= index {
            true => index.saturating_add(1),
            false => index,
        })
    }

    /// Of a setting that is wrong in itself, a policy checks what stands in its place.
    fn check(&mut self, setting: &[&str], message: String, place: Place) {
        let path = self.given(&pointer(setting));
        let is_wrong = |found: &Found| found.place == Place::Setting && found.path == path;
        if !self.found.iter().any(is_wrong) {
            self.push(path, Message::Text(message), place);
        }
    }

    fn push(&mut self, path: String, message: Message, place: Place) {
        self.found.push(Found { path, message, place });
    }

    /// The problems in their order.
    pub(crate) fn into_list(mut self) -> Vec<Problem> {
        for (path, message) in std::mem::take(&mut self.lengths) {
            if self.found.iter().all(|found| found.path != path) {
                self.push(path, Message::Text(message), Place::Inside);
            }
        }
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_cached_key(|found| self.position(found));
        found.truncate(MAX_PROBLEMS);
        found.into_iter().map(|found| self.problem(found)).collect()
    }

    /// Its place in the settings: a number for each step of its pointer.
    fn position(&self, found: &Found) -> Vec<(usize, String)> {
        let mut object = String::new();
        let mut position = Vec::new();
        for step in found.path.split('/').skip(1) {
            let index = match self.fields.get(&object) {
                // Unknown ones are last.
                Some(fields) => {
                    fields.iter().position(|field| *field == step).unwrap_or(usize::MAX)
                }
                // Of a list, or of a map, which has no order of its own.
                None => step.parse().unwrap_or(0),
            };
            position.push((index, step.to_owned()));
            object.push('/');
            object.push_str(step);
        }
        match found.place {
            Place::Setting => {}
            Place::Inside => position.push((usize::MAX, char::MAX.to_string())),
            Place::Last => {
                position.pop();
                position.push((usize::MAX.saturating_sub(1), String::new()));
            }
        }
        position
    }

    fn problem(&self, found: Found) -> Problem {
        let message = match found.message {
            Message::Text(text) => text,
            Message::Unknown => {
                let object = found.path.rsplit_once('/').map_or("", |(object, _)| object);
                let known = self.fields.get(object).copied().unwrap_or_default();
                format!("is not a setting; known are: {}", known.join(", "))
            }
        };
        Problem { path: truncate_message(&found.path), message: truncate_message(&message) }
    }
}

/// The JSON Pointer of a setting.
fn pointer(steps: &[&str]) -> String {
    steps.iter().map(|step| format!("/{}", escaped(step))).collect()
}

/// A step of a JSON Pointer: RFC 6901 escapes these two characters.
pub(crate) fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
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
