//! `paygress-author`: for who writes a policy. A new project in one of five languages, and what
//! makes a component of it.
//!
//! ```text
//! new_project ─▶ sources, wit/, build.sh ─▶ sh build.sh ─▶ policy.wasm
//!                                             │ bindings: WIT ─▶ C or Go
//!                                             └ component: core module ─▶ component that imports no WASI
//! ```
//!
//! - `language.rs`: the five languages. `project.rs`: writes a new project of `templates.rs`, whose
//!   build files are those of
//!   the projects in `examples/policies`.
//! - `bindings.rs`, `component.rs`: what the build files call, so that authors need no other tools
//!   of WebAssembly.
//! - `alone.wat`: answers what the runtime of Go would ask an operating system.

mod bindings;
mod component;
mod language;
mod project;
mod templates;
mod tool;

pub use bindings::bindings;
pub use component::component;
pub use language::{Language, UnknownLanguage};
pub use project::{NewError, new_project};
pub use tool::{ToolError, write_whole};
