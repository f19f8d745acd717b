//! Reading and completing the fields of a JSON object, with the path for errors.

use super::error::{GuardError, Violation};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

type Result<T> = std::result::Result<T, GuardError>;

/// How much of an untrusted name goes into an error.
const NAME_CHARS: usize = 63;

/// A JSON object within the template, and its path.
pub(super) struct Object<'a> {
    path: String,
    value: &'a mut Value,
}

impl<'a> Object<'a> {
    pub(super) fn root(path: &str, value: &'a mut Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    pub(super) fn error(&self, violation: impl Into<Violation>) -> GuardError {
        GuardError::Field { path: self.path.clone(), violation: violation.into() }
    }

    pub(super) fn field_error(&self, field: &str, violation: impl Into<Violation>) -> GuardError {
        let path = format!("{}.{field:.NAME_CHARS$}", self.path);
        GuardError::Field { path, violation: violation.into() }
    }

    /// Refuses what is not an object, and any field that is not one of `known`. Fields that are
    /// null count as left out.
    pub(super) fn only(&mut self, known: &[&str]) -> Result<()> {
        if let Some(object) = self.value.as_object_mut() {
            object.retain(|_, value| !value.is_null());
        }
        match self.unknown_field(|field| known.contains(&field))? {
            Some(field) => Err(self.field_error(&field, Violation::UnknownField)),
            None => Ok(()),
        }
    }

    /// The first field whose name is not known.
    pub(super) fn unknown_field(&self, is_known: impl Fn(&str) -> bool) -> Result<Option<String>> {
        match self.value.as_object() {
            Some(object) => Ok(object.keys().find(|key| !is_known(key)).cloned()),
            None => Err(self.error(Violation::NotAnObject)),
        }
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field)
    }

    /// The object in a field, if the field is there.
    pub(super) fn map(&self, field: &str) -> Result<Option<&Map<String, Value>>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_object() {
                Some(map) => Ok(Some(map)),
                None => Err(self.field_error(field, Violation::NotAnObject)),
            },
        }
    }

    pub(super) fn set(&mut self, field: &str, value: Value) {
        if let Some(object) = self.value.as_object_mut() {
            object.insert(field.to_owned(), value);
        }
    }

    pub(super) fn remove(&mut self, field: &str) {
        if let Some(object) = self.value.as_object_mut() {
            object.remove(field);
        }
    }

    /// Sets the field to this value; refuses any other.
    pub(super) fn require(&mut self, field: &str, value: Value) -> Result<()> {
        match self.get(field) {
            Some(found) if *found != value => {
                Err(self.field_error(field, Violation::MustBe(value)))
            }
            _ => {
                self.set(field, value);
                Ok(())
            }
        }
    }

    /// Refuses what is not a number of this range; the field may be left out.
    pub(super) fn number(&self, field: &str, range: RangeInclusive<i64>) -> Result<()> {
        match self.get(field) {
            Some(found) if !found.as_i64().is_some_and(|number| range.contains(&number)) => {
                let (least, most) = range.into_inner();
                Err(self.field_error(field, Violation::OutOfRange { least, most }))
            }
            _ => Ok(()),
        }
    }

    /// The object in a field, created if the field is left out. [`Object::only`] refuses it when
    /// the field holds something else.
    pub(super) fn object(&mut self, field: &str) -> Object<'_> {
        let path = format!("{}.{field}", self.path);
        if !self.value.is_object() {
            return Object { path, value: self.value };
        }
        // Indexing an object creates the field, as null.
        #[allow(clippy::indexing_slicing)]
        let value = &mut self.value[field];
        if value.is_null() {
            *value = json!({});
        }
        Object { path, value }
    }

    /// The items of a list; the field may be left out.
    pub(super) fn list(&mut self, field: &str) -> Result<Vec<Object<'_>>> {
        let path = format!("{}.{field}", self.path);
        match self.value.get_mut(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items
                .iter_mut()
                .enumerate()
                .map(|(index, value)| Object { path: format!("{path}[{index}]"), value })
                .collect()),
            Some(_) => Err(GuardError::Field { path, violation: Violation::NotAList }),
        }
    }

    /// The items of a list that may have so many.
    pub(super) fn list_of_at_most(&mut self, field: &str, limit: usize) -> Result<Vec<Object<'_>>> {
        if let Some(Value::Array(items)) = self.get(field)
            && items.len() > limit
        {
            return Err(self.field_error(field, Violation::TooMany(limit)));
        }
        self.list(field)
    }
}
