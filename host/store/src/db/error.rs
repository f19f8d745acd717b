use paygress_core::backend::store::LedgerError;
use std::error::Error;
use std::sync::Arc;

/// Why a transaction failed. Nothing was written, unless the answer to its commit was lost.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A row is not of the form in which this version writes it.
    #[error(transparent)]
    Unreadable(Arc<dyn Error + Send + Sync>),
    /// The database refused a statement or was out of reach.
    #[error(transparent)]
    Failed(Arc<dyn Error + Send + Sync>),
}

impl DatabaseError {
    pub fn unreadable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreadable(Arc::from(source.into()))
    }

    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(source.into()))
    }
}

impl From<DatabaseError> for LedgerError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unreadable(source) => Self::Unreadable(source),
            DatabaseError::Failed(source) => Self::Database(source),
        }
    }
}
