//! `paygress-http`: the HTTP transport: the same order service as behind Nostr, for browsers,
//! `curl` and Cashu wallets.
//!
//! ```text
//! socket ─▶ server.rs ─▶ middleware.rs ─▶ extract.rs ─▶ orders.rs ─▶ orders.submit
//!   connections,  rate per address,  caller (identity.rs),     │     ▲
//!   timeouts      headers, metrics   body, Cashu token         ▼     │ pods.rs, events.rs, terminal.rs
//!                                                   problem.rs: RFC 9457
//! ```
//!
//! - `server.rs`: the socket: how many connections, how slow they may be; `places.rs`,
//!   `placed_stream.rs`, `pace.rs`: which connection makes room for another; `overflow.rs`: those
//!   without a place. `rate_limit.rs`: how many requests an address has; `unread_body.rs`: what an
//!   answer leaves of its request. `stopping.rs`: how all of it ends.
//! - `client_address.rs`: where a request comes from; `middleware.rs`: what every request passes:
//!   rate limits, security headers, CORS, counting.
//! - `extract.rs`: a request with its body, its caller and its token; `identity.rs`: bearer tokens
//!   and NIP-98.
//! - `orders.rs`, `paid_order.rs`: buying; `order_handle.rs`: what every answer to an order has;
//!   `payment.rs`: payment requests (NUT-18, NUT-24); `pay.rs`: where wallets post to; `auth.rs`:
//!   `/auth`.
//! - `pods.rs`: status and stopping; `events.rs`: progress; `terminal.rs`: a shell in the browser.
//! - `operator.rs`, `metrics.rs`, `readiness.rs`: the operator's view; `operator_leases.rs`,
//!   `operator_sales.rs`: what the operator searches for and does.
//! - `gateway_server.rs`: health and metrics of a gateway in a process of its own; `health.rs`,
//!   `metric_families.rs`, `gateway_metrics.rs`: what it shares with the service.
//! - `sites.rs`: what is the service's and what a pod's, by the host of a request; `apps/`: the HTTP
//!   ports of pods.
//! - `openapi.rs`: OpenAPI; `assets.rs`: the page, whose files are in `../web`, and `qr.rs`: its QR
//!   codes; `router.rs`: all of it together.
//!
//! It uses `paygress-core`, a socket, and `paygress-http-client`'s way to read a body, nothing else: no
//! rule about orders is here, the order service has them all. It is the only crate that knows axum.
//!
//! ```no_run
//! use paygress_http::{Backends, HttpServer, Settings, bearer_key};
//! use paygress_core::model::secret::Secret;
//!
//! # async fn example(backends: Backends, service_key: Secret) -> Result<(), paygress_http::Error> {
//! let settings = Settings {
//!     bind: ([127, 0, 0, 1], 8080).into(),
//!     public_url: Some("https://pods.example.com".to_owned()),
//!     name: "Pods".to_owned(),
//!     bearer_key: bearer_key(&service_key),
//!     operator_token: None,
//!     trusted_proxies: Vec::new(),
//!     cors_origins: Vec::new(),
//!     requests_per_minute: 120,
//! };
//! let server = HttpServer::bind(settings, backends).await?;
//! println!("listening on {}", server.address());
//! server.run_until(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! The description of the API needs no server:
//!
//! ```
//! assert!(paygress_http::openapi().contains("/spawn-pod"));
//! ```

mod apps;
mod assets;
mod auth;
mod client_address;
mod events;
mod extract;
mod gateway_metrics;
mod gateway_server;
mod health;
mod http_server;
mod identity;
mod limits;
mod metric_families;
mod metrics;
mod middleware;
mod openapi;
mod operator;
mod operator_leases;
mod operator_sales;
mod order_handle;
mod orders;
mod overflow;
mod pace;
mod paid_order;
mod pay;
mod payment;
mod placed_stream;
mod places;
mod pods;
mod problem;
mod qr;
mod rate_limit;
mod readiness;
mod request_metrics;
mod responder;
mod router;
mod server;
mod sites;
mod sorted_json;
mod state;
mod stopping;
mod terminal;
mod unread_body;

pub use gateway_server::{GatewayServer, GatewayServerSettings};
pub use http_server::{Error, HttpServer};
pub use identity::bearer_key;
pub use ipnet::IpNet;
pub use limits::FILE_DESCRIPTORS;
pub use openapi::openapi;
pub use responder::{PolledResponder, TRANSPORT};
pub use state::{AppBackends, Backends, Settings};
