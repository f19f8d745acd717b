//! `paygress-sandbox`: what the demo and the tests run instead of the outside world, on 127.0.0.1
//! and, but for isolated pods, in one process. Nothing that is deployed depends on it.
//!
//! ```text
//! customer ──▶ Relay ──▶ the service ──▶ FaultProxy ──▶ TestMint
//!     │                       └──▶ LocalCluster: an SSH server a pod ◀── ssh
//!     └── TestWallet ◀── fake Lightning
//! ```
//! - [`Relay`]: a Nostr relay, in the open or with authentication (NIP-42).
//! - [`TestMint`], [`TestWallet`]: cdk's mint with fake Lightning, and a customer's wallet that it
//!   fills; [`token`] changes tokens as attackers and other wallets do.
//! - [`FaultProxy`]: a server before a mint that loses, delays and garbles what passes.
//! - [`LocalCluster`]: `Cluster` without Kubernetes. [`Isolation`] keeps its pods apart from the
//!   machine, by namespaces where it can; in each the program `paygress-pod` runs (`pod/`).
//! - [`Services`]: a relay, a mint and a directory, and the settings of a service that uses them.
//! - [`free_port()`]: a port for what a test starts later.
//!
//! ```no_run
//! # async fn example() -> Result<(), paygress_sandbox::Error> {
//! let services = paygress_sandbox::Services::start().await?;
//! let wallet = paygress_sandbox::TestWallet::new(services.mint.url()).await?;
//! wallet.fill(1_000).await?;
//! let token = wallet.token(60).await?;
//! # Ok(())
//! # }
//! ```

mod error;
mod fault_proxy;
mod free_port;
mod isolation;
mod local_cluster;
mod mint;
mod pod_directory;
mod pod_process;
mod relay;
mod services;
pub mod token;
mod wallet;

pub use error::{Error, Result};
pub use fault_proxy::{CodedAnswer, FaultProxy, MintAnswer, NetworkFault};
pub use free_port::free_port;
pub use isolation::{Isolation, IsolationError, Means};
pub use local_cluster::LocalCluster;
pub use mint::TestMint;
pub use pod_directory::HOST_KEY;
pub use pod_process::READY;
pub use relay::Relay;
pub use services::Services;
pub use wallet::{TestWallet, TokenLock};
