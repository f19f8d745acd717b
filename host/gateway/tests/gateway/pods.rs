//! Pods that have the real SSH server.

use crate::support::SECRET;
use paygress_gateway::PublicKey;
use paygress_sshd::{Account, Password, new_host_key, serve};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The real SSH server of a pod: user `alice`, password [`SECRET`]. It ends with this.
pub(crate) struct SshPod {
    pub(crate) address: SocketAddr,
    /// As in `known_hosts` after the host's name.
    pub(crate) host_key: String,
    pub(crate) home: TempDir,
    _stop: watch::Sender<bool>,
}

impl SshPod {
    pub(crate) async fn start(keys: Vec<PublicKey>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let home = tempfile::tempdir().unwrap();
        let account = Account { keys, ..Account::new("alice", Password::new(SECRET), home.path()) };
        let key = new_host_key().unwrap();
        let host_key = key.public_key().to_openssh().unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, account, key, stopped));
        Self { address, host_key, home, _stop: stop }
    }
}
