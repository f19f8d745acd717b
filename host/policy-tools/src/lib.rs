//! `paygress-policy-tools`: what authors of policies use. New projects in five languages, what
//! turns them into components, and commands that check, call, test and measure a component.
//!
//! ```text
//! new_project ─▶ sources, wit/, build.sh ─▶ sh build.sh ─▶ policy.wasm
//!                                             │ bindings: WIT ─▶ C or Go
//!                                             └ component: core module ─▶ component without WASI
//!
//! policy.wasm ─▶ Harness (paygress-policy) ─▶ check   unusual orders, twice each
//!                        ▲                    eval    one order, in detail
//!            TestCase ───┘                    suite   an author's cases
//!                                             bench   time, instructions, memory
//! ```
//!
//! - `language.rs`, `project.rs`, `templates.rs`: new projects. Their build files are those of the
//!   projects in `examples/policies`.
//! - `bindings.rs`, `component.rs`, `wit.rs`: called by the build files, so that authors need no
//!   other WebAssembly tools. `wasi_stub.wat` replaces what the Go runtime imports.
//! - `function.rs`, `case.rs`, `samples.rs`: calls, written by authors or built in.
//! - `check.rs`, `eval.rs`, `suite.rs`, `expectation.rs`, `bench.rs`: the commands. They return
//!   reports; `paygress policy` prints them.
//!
//! - `engine.rs`: the engines, with a cache of compiled components in the user's cache directory.
//!
//! It reads and writes the author's files and that cache. The commands block: compiling takes
//! seconds.
//!
//! ```no_run
//! use paygress_core::backend::policy::Slot;
//! use paygress_policy::Compiler;
//! use paygress_policy_tools::{PolicyFile, check};
//!
//! let file = PolicyFile { slot: Slot::Pricing, component: "policy.wasm".into(), settings: None };
//! let report = check(&file, Box::new(|_, _| Ok(())), &Compiler::InProcess)?;
//! print!("{report}");
//! assert!(report.passed());
//! # Ok::<(), paygress_policy_tools::InputError>(())
//! ```

mod bench;
mod bindings;
mod case;
mod check;
mod component;
mod engine;
mod eval;
mod expectation;
mod files;
mod function;
mod input;
mod language;
mod project;
mod samples;
mod suite;
mod templates;
mod text;
mod wit;

pub use bench::{BenchError, BenchReport, Cost};
pub use bindings::{BindingsError, bindings};
pub use case::{CaseError, TestCase};
pub use check::{CheckReport, check};
pub use component::{ComponentError, World, component};
pub use eval::{Evaluation, eval};
pub use files::{WriteError, write_atomically};
pub use function::Function;
pub use input::{InputError, PolicyFile, read_object};
pub use language::{Language, UnknownLanguage};
pub use project::{ProjectError, new_project};
pub use suite::{SuiteError, SuiteReport, run_suite};
pub use wit::WitError;
