//! The binary `paygress`: arguments, configuration and wiring. No rule about orders is here.
//!
//! ```text
//! main ─▶ config ─▶ serve (Kubernetes) ─┐
//!                   demo (sandbox) ─────┴▶ app: backends, order service, transports
//!      └▶ commands, order, policy: clients of a running service, or of its stores
//! ```
//!
//! - `config/`: the file and the environment; all problems at once.
//! - `app.rs`: everything wired together; `serve.rs` runs it on Kubernetes.
//! - `gateway/`: another way to pods, with the store's leases and the cluster's pods.
//! - `output.rs`: what commands print. `log.rs`: the log. `telemetry.rs`: traces. `terminal.rs`: SSH for terminals in
//!   the browser.
//! - `compiler.rs`: the process that compiles policies. `heap.rs`: the memory of the gateway's process.
//!   `open_files.rs`: the limit of file descriptors.
//! - `doctor/`: what the service needs, checked before and beside it.
//! - `commands/`, `audit.rs`: ledger and wallet, leases and sales, for the operator.
//! - `policy/`: arguments of `paygress policy`.
//! - `order.rs`, `order/`: a customer's client. `receipt.rs`: verifies what a service has signed.
//!   `ssh_command.rs`: the `ssh` commands for a pod. `private_file.rs`: directories that only the
//!   customer may read.
//! - `demo.rs`, `sandbox.rs` (feature `demo`): the service with a relay, a mint and pods of its
//!   own.

pub mod app;
pub mod audit;
pub mod commands;
pub mod compiler;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod gateway;
pub mod heap;
pub mod log;
mod open_files;
pub mod order;
pub mod output;
pub mod policy;
mod private_file;
pub mod receipt;
#[cfg(feature = "demo")]
pub mod sandbox;
pub mod serve;
mod ssh_command;
pub mod telemetry;
mod terminal;
