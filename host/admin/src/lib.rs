//! `paygress-admin`: the operator's door. A Unix socket for one user, over which `paygress policy`
//! exchanges policies in a running service.
//!
//! ```text
//! paygress policy swap pricing new.wasm ─▶ Request, a line of JSON; then the components' bytes
//!                                          ─▶ Publisher (compile, check, keep, put in force)
//!                     told what happened ◀─ Reply, a line of JSON
//! ```
//!
//! - `protocol.rs`: what is said.
//! - `server.rs`: who listens. `client.rs`: who asks.
//!
//! Nothing here decides: it hands sources to the [`Publisher`](paygress_policy::Publisher).

mod client;
mod protocol;
mod server;

pub use client::{AskError, ask};
pub use protocol::{ComponentUpload, Reply, Request};
pub use server::{Admin, SocketError};
