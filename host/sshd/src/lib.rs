//! `paygress-sshd`: a small SSH server for one user, with password or public key, shell, exec and
//! PTY.
//!
//! A pod runs it (`main.rs`, packed by `k8s/images`), and so does the local runtime that replaces
//! the cluster in the demo. OpenSSH's sshd is its specification. It needs no root, no
//! capabilities, no `/etc/shadow` and no configuration file: the login comes as files, read once.
//! It opens one listening socket and starts the user's shell; it knows nothing of orders, money or
//! Kubernetes, and depends on no other crate of this workspace.
//!
//! ```text
//! listener ─▶ MaxStartups 10:30:100 ─▶ authentication ─▶ channel ─▶ shell on a PTY or on pipes
//!   serve         (server)              (connection)   (connection)        (process)
//! ```
//!
//! In a pod of any image, [`install()`] has put it beside the image, with busybox and the host keys, or
//! its own image is mounted there; [`Image`] finds the shell, the home and the search path there.
//! With a [`HostKeySecret`] it proves its host keys over SSH itself (`host_key_proof`).
//!
//! A probe pod tries what no pod should reach ([`ReachTask`]).
//!
//! With [`serve_lease()`] terminals show when the pod ends. A file says it, which is read again when
//! it changes (`lease_file`, `terminals`).
//!
//! When the `stop` flag is set, every connection is shut down and every process group of the user
//! gets SIGHUP, then SIGKILL.
//!
//! No part of a login reaches a shell: user name, password and key are only compared. The subsystem
//! `sftp` is served, connections and agents are forwarded, X11 is refused. [`key_kinds`] lists the
//! user keys that log in.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use paygress_sshd::client::{Client, HostKeyCheck};
//! use paygress_sshd::{Account, Password, new_host_key, serve};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let account = Account::new("alice", Password::new("correct horse"), std::env::temp_dir());
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let host_key = new_host_key()?;
//! let known = HostKeyCheck::OneOf(vec![host_key.public_key().clone()]);
//! let server = tokio::spawn(serve(listener, account, host_key, stopped));
//!
//! let client = Client::login(address, "alice", "correct horse", known).await?;
//! let done = client.run("echo hello; exit 7").await?;
//! assert_eq!((done.stdout.as_str(), done.exit_status), ("hello\n", 7));
//!
//! stop.send_replace(true);
//! server.await?;
//! # Ok(())
//! # }
//! ```

mod account;
mod channels;
pub mod client;
mod client_handler;
mod connection;
mod counted_read;
mod date;
mod early_drop;
mod exchanges;
mod forward;
mod groups;
mod host_key_proof;
mod host_keys;
mod ignored_signals;
mod image;
mod input;
mod install;
mod key_options;
mod keys;
mod lease_end;
mod lease_file;
mod login_reader;
mod patterns;
mod process;
mod progress;
mod reach;
mod server;
mod session;
mod session_channel;
mod sftp;
mod socket;
mod startups;
mod terminal;
mod terminals;

pub use account::{Account, Password};
pub use connection::password_prompt;
pub use counted_read::poll_read_count;
pub use early_drop::EarlyDrop;
pub use exchanges::{KEY_EXCHANGES, server_limits};
pub use host_key_proof::{HOST_KEY_SECRET, HostKeySecret};
pub use host_keys::HostKeys;
pub use image::Image;
pub use install::{InstallError, NO_USER_NAMESPACE, install, require_user_namespace};
pub use keys::{Error, SIGNATURE_KINDS, key_kinds, new_host_key, parse_key, parse_keys};
pub use lease_end::{END_FILE, LeaseEnd, LeaseEndError};
pub use progress::{Progress, Stage};
pub use reach::{MAX_ADDRESSES, REACH_VARIABLE, ReachReport, ReachTask, reached};
pub use russh::keys::PrivateKey;
pub use server::{is_set, listen_on_both_families, serve, serve_lease, stopped_by_sigterm};
pub use socket::ShutdownOnDrop;
