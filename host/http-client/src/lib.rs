//! `paygress-http-client`: the one way in which the service speaks HTTP to mints and registries.
//!
//! Every server out there is untrusted: it may be down, slow, endless or hostile. So nothing here
//! is unbounded, and nothing happens implicitly:
//!
//! ```text
//! Request<Bytes>
//!      │
//!      ▼
//! HttpClient::send ──▶ connection pool ──▶ TLS with the system's roots (tls.rs)
//!      │                                   └▶ directly, to addresses that are checked (resolver.rs),
//!      │                                      or through a proxy (proxy.rs)
//!      │   connect time-out, head time-out, whole time-out (Timeouts)
//!      ▼
//! Response: status and headers; a redirect is a response like any other
//!      │
//!      ├──▶ Response::bytes(limit)        at most `limit` bytes, before the same deadline, and not
//!      │                                  in thousands of tiny pieces (body.rs)
//!      ├──▶ HttpClient::follow(…)         only on request: https, no private address, no
//!      │                                  credentials for another server (redirect.rs)
//!      └──▶ HttpClient::send_from(…)      the same for any other URL in it
//! ```
//!
//! Errors are [`HttpError`]; they keep their source, and name the host but never a header, a path
//! or a body, which may contain secrets. connect_error.rs names the reason when there is
//! no connection.
//!
//! [`read_body`] reads the bodies of requests as well, for the service's own HTTP server.
//!
//! The crate opens TCP connections, reads the system's certificate store and the variables about
//! certificates and proxies (`SSL_CERT_FILE`, `HTTPS_PROXY` and the like); it touches nothing else. It does not retry: only the caller knows whether a request may be repeated.
//!
//! ```
//! use hyper::body::Bytes;
//! use hyper::{Request, StatusCode};
//! use paygress_http_client::{HttpClient, HttpError, Timeouts};
//! use std::time::Duration;
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}/v1/info", listener.local_addr()?);
//! # let server = tokio::spawn(async move {
//! #     let (mut stream, _) = listener.accept().await?;
//! #     let _ = stream.read(&mut [0; 4096]).await?;
//! #     stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await
//! # });
//! let client = HttpClient::new(Timeouts {
//!     connect: Duration::from_secs(5),
//!     head: Duration::from_secs(10),
//!     whole: Duration::from_secs(60),
//! })?;
//! let request = Request::get(&url).header("accept", "application/json").body(Bytes::new())?;
//! let response = client.send(request).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! let body = response.bytes(64 << 10).await?;
//! assert_eq!(body, "{}");
//! # server.await??;
//!
//! // A URL without a host never leaves this process.
//! let request = Request::get("/v1/info").body(Bytes::new())?;
//! assert!(matches!(client.send(request).await, Err(HttpError::InvalidUrl)));
//! # Ok(())
//! # }
//! ```

mod address;
mod body;
mod client;
mod connect_error;
mod error;
mod proxy;
mod redirect;
mod resolver;
mod response;
mod tls;
mod url;

pub use address::{CLOSED_NETWORKS, NotPublic, OPEN_NETWORK, Reach, is_open};
pub use body::{BodyError, read_body};
pub use client::{HttpClient, Timeouts};
pub use connect_error::ConnectError;
pub use error::{HttpError, Phase, SetupError};
pub use proxy::{Proxies, ProxyError};
pub use redirect::{Origin, RedirectError, RedirectPolicy, check_destination};
pub use response::Response;
pub use tls::{TlsError, tls_config};
pub use url::{host, is_confidential, is_http_url, is_loopback, is_same_server};
