//! The files that the commands read.

use crate::case::{CaseError, TestCase};
use crate::engine;
use paygress_core::backend::policy::Slot;
use paygress_policy::{
    Compiler, EngineError, Harness, PolicyEngine, ReadError, RejectReason, WrongSlot,
    read_component,
};
use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A component's file for a slot, and its settings.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    pub slot: Slot,
    pub component: PathBuf,
    /// A file with a JSON object; the default is `{}`.
    pub settings: Option<PathBuf>,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the policy {0}")]
    Component(#[from] ReadError),
    #[error("{} is not JSON: {source}", .path.display())]
    NotJson { path: PathBuf, source: serde_json::Error },
    #[error("{} is not a JSON object", .0.display())]
    NotAnObject(PathBuf),
    #[error("{}: {source}", .path.display())]
    Case { path: PathBuf, source: CaseError },
    #[error("{} is rejected for the slot {slot}: {source}", .path.display())]
    Rejected { path: PathBuf, slot: Slot, source: RejectReason },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    WrongSlot(#[from] WrongSlot),
}

impl PolicyFile {
    pub(crate) fn read(&self) -> Result<Vec<u8>, InputError> {
        Ok(read_component(&self.component)?)
    }

    /// Its settings as JSON.
    ///
    /// # Errors
    /// The file is not a JSON object.
    pub fn settings(&self) -> Result<String, InputError> {
        Ok(match &self.settings {
            Some(path) => Value::Object(read_object(path)?).to_string(),
            None => "{}".to_owned(),
        })
    }

    /// Compiles, checks and configures the component.
    pub(crate) fn load(&self, engine: &Arc<PolicyEngine>) -> Result<Harness, InputError> {
        Harness::load(engine, self.slot, &self.read()?, &self.settings()?).map_err(|source| {
            InputError::Rejected { path: self.component.clone(), slot: self.slot, source }
        })
    }

    /// The JSON Schema of the component's settings. Blocks.
    ///
    /// # Errors
    /// The component is rejected.
    pub fn schema(&self, compiler: &Compiler) -> Result<String, InputError> {
        Ok(self.load(&engine::counting(compiler)?)?.schema().to_owned())
    }
}

/// Reads a file with a JSON object.
///
/// # Errors
/// [`InputError`].
pub fn read_object(path: &Path) -> Result<Map<String, Value>, InputError> {
    let text = read_text(path)?;
    let value = serde_json::from_str(&text)
        .map_err(|source| InputError::NotJson { path: path.to_owned(), source })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(InputError::NotAnObject(path.to_owned())),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String, InputError> {
    std::fs::read_to_string(path)
        .map_err(|source| InputError::Read { path: path.to_owned(), source })
}

/// Reads an author's order.
pub(crate) fn read_case(slot: Slot, path: &Path) -> Result<TestCase, InputError> {
    TestCase::from_changes(slot, &Value::Object(read_object(path)?))
        .map_err(|source| InputError::Case { path: path.to_owned(), source })
}
