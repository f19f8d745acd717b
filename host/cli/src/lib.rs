//! The one binary: reads the config and wires the rooms, nothing else.
//!
//! - `config.rs`: the file and the environment; every problem at once.
//! - `app.rs`: the rooms, put together; `serve.rs` runs it on Kubernetes, `demo` on parts of its
//!   own.
//! - `resources.rs`: `Policy` resources, put in force. `terminal.rs`: SSH for terminals in the
//!   browser. `telemetry.rs`: traces.
//! - `commands.rs`, `audit.rs`: the operator's look at ledger and wallet.
//! - `policy/`: for who operates policies, and for who writes them.
//! - `order.rs`: a customer's client.
//! - `demo.rs`, `sandbox.rs` (feature `demo`): the same rooms with a relay, a mint and pods of
//!   their own.

pub mod app;
pub mod audit;
pub mod commands;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod order;
pub mod policy;
pub mod resources;
#[cfg(feature = "demo")]
pub mod sandbox;
pub mod serve;
pub mod telemetry;
mod terminal;
