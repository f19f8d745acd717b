//! The gateway, wired: a way to pods beside the ports of nodes.
//!
//! ```text
//! config ─▶ keys ─┬▶ sockets ─▶ Gateway ◀─ leases (the store), PodStreams (the cluster)
//!                 └▶ info ─▶ answers, offers, metrics
//! ```

mod info;
mod keys;
mod leases;
mod open;
mod standalone;

pub(crate) use open::Offered;
pub use open::{OpenGateway, of_other_process};
pub use standalone::StandaloneGateway;
