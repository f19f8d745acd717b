//! `paygress-gateway`: the way to pods' SSH ports without a port of a node.
//!
//! ```text
//!  ssh -J POD@GATEWAY USER@POD ──▶ jump host ─┐                ┌─ LeaseAccess: which lease, its login,
//!                        TCP, SSH in SSH      ├─▶ PodStreams ──┤  when it has ended
//!  ProxyCommand (ours, dumbpipe) ─▶ endpoint ─┘   the pod's    └─ limits, by address, endpoint, lease
//!                        QUIC, direct or relayed  sshd
//! ```
//!
//! It carries bytes between a customer's SSH client and the SSH server of their pod, and sees
//! nothing of what they are: both ends speak SSH with each other, and the customer checks the pod's
//! host key as ever. It knows no cluster and no store: whoever runs it implements [`LeaseAccess`]
//! and [`PodStreams`].
//!
//! - [`JumpHost`] is an SSH server that logs clients in as their pod and connects them with that
//!   pod's SSH port, and nothing else.
//! - [`IrohEndpoint`] is found by a [`GatewayTicket`], by the operator's relays where it has no open
//!   port. A client names the pod, and only live leases are served. It has no login of its own:
//!   anybody who knows a pod's name may connect to its SSH server, as to a port of a node. What
//!   bounds them are limits.
//! - [`connect`] and [`proxy_command`] are the customer's side of it.
//!
//! A session ends with its lease, and no other does.

mod access;
mod alpn;
mod client;
mod close;
mod endpoint;
mod gateway;
mod greeting;
mod host_key;
mod incoming;
mod jump;
mod limits;
mod metrics;
mod origin;
mod piece;
mod proof;
mod pump;
mod rates;
mod sessions;
mod shared;
mod startups;
mod ticket;
mod windows;

pub use access::{LeaseAccess, LeaseLogin, LookupError};
pub use alpn::PREFIX as PROTOCOL_PREFIX;
pub use client::{
    ClientError, ProxyEnd, Tunnel, connect, proxy_command, verify_endpoint, verify_relay,
};
pub use endpoint::{
    EndpointError, EndpointKey, EndpointKeyError, EndpointOptions, IrohEndpoint, Relay, RelayError,
};
pub use gateway::Gateway;
pub use host_key::{GatewayHostKey, HostKeyError};
pub use jump::JumpHost;
pub use limits::FILE_DESCRIPTORS;
pub use metrics::{Counts, Rejection, Way};
pub use paygress_core::backend::pod_streams::{ByteStream, OpenError, PodPort, PodStreams};
pub use russh::keys::PublicKey;
pub use ticket::{GatewayTicket, TicketError};
