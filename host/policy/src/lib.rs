//! `paygress-policy`: the policy host. Loads, checks, calls and exchanges the four WebAssembly
//! components of `wit/`.
//!
//! ```text
//! bytes ─▶ compile ─▶ check imports and exports ─▶ configure ─▶ sample order ─▶ Set ─▶ kept on disk ─▶ in force
//!          (cached)   (skew is reported here)     (all problems)
//!
//! order ─▶ Host::current() ─▶ Arc<Set> ─▶ call: fresh store ─▶ configure ─▶ admit | quote | grant | refund | render
//!                                │        deadline, memory cap, output cap ─▶ typed fault
//!                                └─ decided ─▶ Host::observe ─▶ the shadow's thread ─▶ Comparison
//! ```
//!
//! - `engine.rs`: the engine, its limits in one table, the clock that enforces deadlines, the
//!   compiled cache.
//! - `slot.rs`: one component in its slot: what it must import and export, and how it is called.
//! - `function.rs`: what a set is asked. `v1_0.rs`, `v1_1.rs`: the contract's versions and the
//!   words of `paygress-core`,
//!   converted into each other; values outside the contract's ranges stop here.
//! - `set.rs`: four components that decide together. `host.rs`: the set in force. `stats.rs`: what
//!   is counted of it.
//! - `publisher.rs`: who exchanges them, `store.rs`: what was in force, on disk, `directory.rs`:
//!   the files of an operator.
//! - `replay.rs`: what a candidate would have said of a recorded order; `shadow.rs`: what it says
//!   of the orders of this moment.
//! - `interfaces.rs`: what a component says of itself, before anything of it runs.
//! - `harness.rs`: one component by itself, for who writes it.
//!
//! This is the only room that knows wasmtime.

mod bindings;
mod directory;
mod engine;
mod files;
mod function;
mod harness;
mod host;
mod interfaces;
mod publisher;
mod replay;
mod set;
mod shadow;
mod slot;
mod stats;
mod store;
mod v1_0;
mod v1_1;

pub use directory::{PolicyDir, read, signature, signature_path};
pub use engine::{
    COMPONENT_BYTES, DEADLINE, EngineError, Guard, MEMORY_BYTES, OUTPUT_BYTES, PolicyEngine, TICK,
    memory_at_once,
};
pub use harness::{CallRecord, CallResult, Function, Harness, TestCase};
pub use host::{Host, SwapError};
pub use interfaces::Interfaces;
pub use publisher::{Publisher, StartError, in_force};
pub use replay::{Aspect, Candidate, Comparison, DIFFERENCES_TOLD, Difference};
pub use set::{ComponentSet, LoadError, Source, Sources};
pub use shadow::ShadowReport;
pub use slot::Rejected;
pub use store::{ComponentRef, ComponentRefs, Revision, StoreError, Trigger, fillings, history};
