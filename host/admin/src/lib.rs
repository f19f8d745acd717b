//! `paygress-admin`: the operator's API. A Unix socket, accessible to one user, through which
//! `paygress policy` replaces policies in a running service, `paygress lease` ends leases and
//! `paygress sales` decides what is sold.
//!
//! ```text
//! AdminClient ─▶ Request, a line of JSON; then the components' bytes ─▶ AdminServer
//!                                            │ upload: read, verify, fetch from registries
//!                                            ▼
//!                                     Publisher: compile, check, store, activate
//!                                     OrderService: end a lease, pause sales
//!                                            │
//! AdminClient ◀─ Reply, a line of JSON ◀─────┘
//! ```
//!
//! - `protocol.rs`: requests and replies.
//! - `server.rs`, `upload.rs`, `dispatch.rs`: the server: connections, what a request brings, what
//!   it does.
//! - `client.rs`: the client.
//!
//! It decides nothing: it passes components to the [`Publisher`](paygress_policy::Publisher) and the
//! rest to the [`OrderService`](paygress_core::orders::OrderService), and touches no other file than
//! its socket.
//!
//! ```no_run
//! # async fn example(
//! #     publisher: std::sync::Arc<paygress_policy::Publisher>,
//! #     orders: std::sync::Arc<paygress_core::orders::OrderService>,
//! #     fetcher: std::sync::Arc<paygress_oci::ComponentFetcher>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use paygress_admin::{AdminClient, AdminServer, Reply, Request};
//!
//! let socket = "admin.sock".into();
//! let server = AdminServer::bind(socket, publisher, orders, fetcher).await?;
//! tokio::spawn(server.run());
//!
//! let client = AdminClient::new("admin.sock");
//! if let Reply::History(revisions) = client.send(&Request::History, &[]).await? {
//!     println!("{} revisions", revisions.len());
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod dispatch;
mod protocol;
mod server;
mod upload;

pub use client::{AdminClient, ClientError};
pub use protocol::{ComponentUpload, Reply, Request};
pub use server::{AdminServer, BindError, BindProblem};
