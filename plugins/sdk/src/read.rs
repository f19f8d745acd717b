//! Deserializes settings, and notes where: the fields of the structs, and the value at which it
//! fails.

use crate::problem::escaped;
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Trace {
    /// The fields of each struct, by its JSON Pointer.
    pub(crate) fields: RefCell<BTreeMap<String, &'static [&'static str]>>,
    /// The innermost value that could not be read; none if that is the whole.
    pub(crate) failed: RefCell<Option<String>>,
}

/// A value of the settings, and its JSON Pointer.
pub(crate) struct Node<'t> {
    pub(crate) value: Value,
    pub(crate) path: String,
    pub(crate) trace: &'t Trace,
}

impl<'t> Node<'t> {
    /// Also what a type rejects that has read the value.
    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let (trace, path) = (self.trace, self.path.clone());
        let result = seed.deserialize(self);
        if result.is_err() {
            trace.failed.borrow_mut().get_or_insert(path);
        }
        result
    }

    fn children<I>(&self, values: I) -> Children<'t, I> {
        Children { values, value: None, path: self.path.clone(), trace: self.trace }
    }
}

/// What is inside a value: a list, or an object.
struct Children<'t, I> {
    values: I,
    /// That of the key that was read.
    value: Option<Node<'t>>,
    path: String,
    trace: &'t Trace,
}

impl<'t, I> Children<'t, I> {
    fn node(&self, step: &str, value: Value) -> Node<'t> {
        Node { value, path: format!("{}/{}", self.path, escaped(step)), trace: self.trace }
    }
}

impl<'de, I: Iterator<Item = (String, Value)>> MapAccess<'de> for Children<'_, I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.values.next() else { return Ok(None) };
        self.value = Some(self.node(&key, value));
        let key: StringDeserializer<Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(node) => node.read(seed),
            None => self.node("", Value::Null).read(seed),
        }
    }
}

impl<'de, I: Iterator<Item = (usize, Value)>> SeqAccess<'de> for Children<'_, I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, value)) = self.values.next() else { return Ok(None) };
        self.node(&index.to_string(), value).read(seed).map(Some)
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        match std::mem::take(&mut self.value) {
            Value::Object(object) => visitor.visit_map(self.children(object.into_iter())),
            Value::Array(items) => visitor.visit_seq(self.children(items.into_iter().enumerate())),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.trace.fields.borrow_mut().insert(self.path.clone(), fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        enumeration: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(enumeration, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}
