//! What a part of the sandbox fails with.

/// An error of a part, with what it was doing.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct Error {
    action: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { action, source: source.into() }
    }
}

/// For `map_err`: says what was done.
pub(crate) fn during<E>(action: &'static str) -> impl Fn(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| Error::new(action, error)
}
