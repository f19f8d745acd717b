//! What is wrong with a name or an id.

/// A text that is not what its place asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {rule} are expected")]
pub struct InvalidName {
    pub(super) what: &'static str,
    pub(super) rule: &'static str,
}
