//! Reads settings. A mistake does not stop it: all problems are reported at once.

use crate::contract::types::paygress::policy::types::Problem;
use crate::problem::Problems;
use crate::read::{Node, Trace};
use crate::schema::schema;
use crate::validate::validate;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::thread::LocalKey;

/// Values that are taken out because they cannot be read, one after the other.
const MAX_ATTEMPTS: usize = 64;

/// The settings of a policy. [`export!`](crate::export!) implements it.
pub trait Configured: DeserializeOwned + JsonSchema + 'static {
    /// Where `configure` puts them, for the other calls of an instance.
    #[doc(hidden)]
    fn cell() -> &'static LocalKey<RefCell<Option<Self>>>;

    /// Reports what the schema does not say.
    #[doc(hidden)]
    fn check(&self, problems: &mut Problems);
}

/// Reads settings as the component does: what the schema says of types, ranges, lengths, choices and
/// names is checked, then whether they deserialize, then what the policy checks itself. A `pattern`
/// is for the policy to check.
///
/// # Errors
/// All problems, in the order of the fields.
pub fn parse<S: Configured>(json: &str) -> Result<S, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut value = match serde_json::from_str(json) {
        Ok(value) => value,
        Err(error) => {
            problems.add_at("", format!("is not JSON: {error}"));
            Value::Object(Map::new())
        }
    };
    validate(&schema::<S>(), &mut value, &mut problems);
    let settings = deserialize::<S>(value, &mut problems);
    if let Some(settings) = &settings {
        Configured::check(settings, &mut problems);
    }
    let problems = problems.into_list();
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    }
}

/// The settings, without the values that could not be read: these are reported.
fn deserialize<S: DeserializeOwned>(mut value: Value, problems: &mut Problems) -> Option<S> {
    for _ in 0..MAX_ATTEMPTS {
        let trace = Trace::default();
        let node = Node { value: value.clone(), path: String::new(), trace: &trace };
        let result = S::deserialize(node);
        problems.set_fields(trace.fields.into_inner());
        let error = match result {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let path = trace.failed.into_inner().unwrap_or_default();
        let given = problems.given(&path);
        problems.add_at(&given, error.to_string());
        match remove(&mut value, &path)? {
            Removed::Field => {}
            Removed::Entry => {
                let (list, index) = given.rsplit_once('/')?;
                problems.add_removed(list, index.parse().ok()?);
            }
        }
    }
    None
}

enum Removed {
    /// Of an object.
    Field,
    /// Of a list: those after it move.
    Entry,
}

/// None: there is no such value to remove.
fn remove(value: &mut Value, path: &str) -> Option<Removed> {
    let (parent, step) = path.rsplit_once('/')?;
    match value.pointer_mut(parent)? {
        Value::Object(object) => {
            object.remove(&step.replace("~1", "/").replace("~0", "~"))?;
            Some(Removed::Field)
        }
        Value::Array(items) => {
            let index = step.parse().ok().filter(|index| *index < items.len())?;
            items.remove(index);
            Some(Removed::Entry)
        }
        _ => None,
    }
}
