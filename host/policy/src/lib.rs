//! `paygress-policy`: the policy host. Loads, checks, calls and replaces the four WebAssembly
//! components that implement the contract of `wit/`.
//!
//! ```text
//! bytes ─▶ compile ─▶ check imports and exports ─▶ configure ─▶ snapshot ─▶ sample order ─▶ ComponentSet
//!          (cached)   (contract mismatch)         (all problems) (cached)                     │
//!                                                             on disk: Revision ◀─ Publisher ┤
//!                                                                                            ▼
//! order ─▶ Host::current() ─▶ Arc<ComponentSet> ─▶ call: fresh store, configure, admit | quote | …
//!                                 │                deadline, memory and output limits ─▶ typed fault
//!                                 │                (from a snapshot it is configured already)
//!                                 └─ decided ─▶ Host::observe ─▶ the shadow's thread ─▶ Comparison
//! ```
//!
//! | modules | |
//! |---|---|
//! | `limits`, `engine_config`, `engine`, `cache` | the engine, its limits in one table, the clock
//! that enforces deadlines, the cache of compiled components |
//! | `compiler`, `compiler_child` | compiling in a process of its own, with limits |
//! | `contract`, `world`, `bindings`, `v1_0`, `v1_1`, `v1_2`, `v1_3` | the contract's versions, and
//! their types converted into those of `paygress-core`; output outside the contract's ranges stops
//! here |
//! | `component`, `fault`, `function`, `snapshot`, `stats` | one component: loading it, calling it,
//! what its errors mean, its state after `configure`, statistics |
//! | `set`, `host` | four components that decide together, and the active set |
//! | `directory`, `revision`, `history`, `startup`, `publisher` | which components are active, and
//! what was |
//! | `recorded`, `replay`, `comparison`, `shadow` | what a candidate decides on past and on live
//! orders |
//! | `interfaces`, `harness` | one component by itself, for authors |
//! | `recompute` | the decision of a customer's receipt, once more |
//!
//! Only this crate uses wasmtime. It may read and write the policy directories, and start the
//! process that compiles, and nothing else.
//! What compiles or calls components blocks; its documentation says so. Async callers move it to a
//! blocking thread.
//!
//! The main types are [`Host`], which decides orders, and [`Publisher`], which changes what is
//! active: each has an example.

mod bindings;
mod cache;
mod comparison;
mod compiler;
mod compiler_child;
mod component;
mod contract;
mod directory;
mod engine;
mod engine_config;
mod fault;
mod files;
mod function;
mod harness;
mod history;
mod host;
mod interfaces;
mod limits;
mod publisher;
mod recompute;
mod recorded;
mod replay;
mod revision;
mod set;
mod shadow;
mod snapshot;
mod startup;
mod stats;
mod v1_0;
mod v1_1;
mod v1_2;
mod v1_3;
mod world;

pub use cache::CompileError;
pub use comparison::{Aspect, Comparison, Difference, MAX_DIFFERENCES};
pub use compiler::{COMPILER_COMMAND, CompileLimits, Compiler, CompilerProcess};
pub use compiler_child::compile_stdin;
pub use component::{RejectReason, SettingsProblem, settings_digest};
pub use directory::{
    PolicyDir, ReadError, SourceError, read_component, read_signature, signature_path,
};
pub use engine::{BoxError, EngineError, PolicyEngine, TemplateGuard};
pub use engine_config::{Metering, open_page_map};
pub use files::DirectoryError;
pub use harness::{Call, CallRecord, CallResult, Harness, Output, WrongSlot};
pub use history::{StoreError, history};
pub use host::{Host, SwapError};
pub use interfaces::{Interfaces, SlotInterface};
pub use limits::{COMPONENT_BYTES, DEADLINE, MEMORY_BYTES, OUTPUT_BYTES, TICK, max_total_memory};
pub use publisher::{Publisher, Superseded};
pub use recompute::{FieldDifference, RecomputeError, Recomputer, check_amounts};
pub use replay::Candidate;
pub use revision::{ComponentRef, ComponentRefs, Revision, Trigger, component_refs};
pub use set::{ComponentSet, LoadError, Source, Sources, sample_placement};
pub use shadow::ShadowReport;
pub use startup::{StartError, StartProblem, load_active};
