//! `paygress-policy`: the policy host. Loads, checks, calls and exchanges the four WebAssembly components of `wit/`.
//!
//! ```text
//! bytes ─▶ compile ─▶ check imports and exports ─▶ configure ─▶ sample orders ─▶ Set ─▶ published at once
//!          (cached)   (skew is reported here)     (all problems)                 │
//!                                                                                ▼
//! order ─▶ Host::current() ─▶ Arc<Set> ─▶ call: fresh store ─▶ configure ─▶ admit | quote | grant | render
//!                                         deadline, memory cap, output cap ─▶ typed fault
//! ```
//!
//! - `machine.rs`: the engine, its limits in one table, the clock that enforces deadlines, the compiled cache.
//! - `slot.rs`: one component in its slot: what it must import and export, and how it is called.
//! - `v1_0.rs`: the contract's version 1.0 and the words of `paygress-core`, converted into each other; values outside the
//!   contract's ranges stop here.
//! - `host.rs`: the set of four, and the pointer that publishes it.
//!
//! This is the only room that knows wasmtime.

mod bindings;
mod host;
mod machine;
mod slot;
mod tally;
mod v1_0;

pub use host::{Host, LoadError, Set, Source};
pub use machine::{DEADLINE, MEMORY_BYTES, Machine, MachineError, OUTPUT_BYTES, TICK};
pub use slot::Rejected;
