//! The gateway as a process of its own.

use super::{Daemon, wait_for};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::NamedTempFile;

/// `paygress gateway`, which serves. It is killed with this.
pub struct GatewayDaemon {
    daemon: Daemon,
    log: PathBuf,
    _kubeconfig: NamedTempFile,
}

impl GatewayDaemon {
    pub(super) fn start(command: &mut Command, kubeconfig: NamedTempFile, log: PathBuf) -> Self {
        let daemon = Daemon::start_service(command, &log);
        let mut gateway = Self { daemon, log, _kubeconfig: kubeconfig };
        wait_for("the gateway to serve", Duration::from_secs(60), || {
            let ended = gateway.daemon.0.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway has ended: {}", gateway.log());
            gateway.log().contains("the gateway serves")
        });
        gateway
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kibibytes, by this name in `/proc/PID/status`.
    pub fn memory(&self, name: &str) -> u64 {
        self.daemon.memory(name)
    }

    /// By SIGKILL.
    pub fn kill(self) {
        drop(self);
    }
}
