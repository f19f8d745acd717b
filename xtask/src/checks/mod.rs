//! The project's checks on its own source, as tests and as the first steps of `cargo xtask test`.

mod files;
mod rust_source;
pub(crate) mod vocabulary;
