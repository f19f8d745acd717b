//! What statements take and rows hold: texts and 64-bit numbers, nothing else.

use crate::db::error::DatabaseError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Number(i64),
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    /// Saturates at the largest number that the databases hold.
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row, read from its first column to its last.
#[derive(Debug)]
pub struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The next column, a text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&mut self) -> Result<String, DatabaseError> {
        self.optional_text()?.ok_or_else(|| DatabaseError::unreadable("a text is missing"))
    }

    /// The next column, a text or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_text(&mut self) -> Result<Option<String>, DatabaseError> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(DatabaseError::unreadable("a column is not a text")),
        }
    }

    /// The next column, a number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&mut self) -> Result<i64, DatabaseError> {
        match self.0.next() {
            Some(Value::Number(number)) => Ok(number),
            _ => Err(DatabaseError::unreadable("a column is not a number")),
        }
    }

    /// The next column, a number that is not negative.
    ///
    /// # Errors
    /// When it is something else.
    pub fn amount(&mut self) -> Result<u64, DatabaseError> {
        self.optional_amount()?.ok_or_else(|| DatabaseError::unreadable("a number is missing"))
    }

    /// The next column, a number that is not negative, or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_amount(&mut self) -> Result<Option<u64>, DatabaseError> {
        match self.0.next() {
            Some(Value::Number(number)) => match u64::try_from(number) {
                Ok(amount) => Ok(Some(amount)),
                Err(_) => Err(DatabaseError::unreadable("a number is negative")),
            },
            Some(Value::Null) => Ok(None),
            _ => Err(DatabaseError::unreadable("a column is not a number")),
        }
    }
}
