//! Credential helpers: programs that print the credentials of a registry, as docker runs them.
//!
//! A helper may hang or print without end. It has a deadline and a limit, at which it is killed with
//! all that it has started, and each registry has one at a time.

use crate::error::HelperError;
use docker_credential::DockerCredential;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use std::collections::HashMap;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

/// Helpers of clouds fetch a token first.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_OUTPUT_BYTES: u64 = 64 << 10;
/// What every helper prints when it has nothing for a server.
const NOT_FOUND: &str = "credentials not found";

/// One lock of each server whose helper is in flight.
type InFlight = HashMap<String, Weak<tokio::sync::Mutex<()>>>;

/// Runs helpers. Clones share what is in flight.
#[derive(Clone, Debug)]
pub(crate) struct HelperRunner {
    timeout: Duration,
    in_flight: Arc<Mutex<InFlight>>,
}

impl Default for HelperRunner {
    fn default() -> Self {
        Self { timeout: TIMEOUT, in_flight: Arc::default() }
    }
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperResponse {
    username: String,
    secret: String,
}

/// A helper that is killed when this is dropped, with all that it has started.
struct HelperProcess(Child);

impl Drop for HelperProcess {
    fn drop(&mut self) {
        // It has a number until its status was read, and so does its group.
        let number = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = number.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl HelperRunner {
    #[cfg(test)]
    pub(crate) fn with_timeout(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }

    /// The credentials that a helper has for a server, if it has any. `helper` is the name without
    /// `docker-credential-`.
    pub(crate) async fn run(
        &self,
        helper: &str,
        server: &str,
    ) -> Result<Option<DockerCredential>, HelperError> {
        let _in_flight = self.acquire(server).await;
        let (status, output) = tokio::time::timeout(self.timeout, output(helper, server))
            .await
            .map_err(|_| HelperError::TimedOut { limit: self.timeout })??;
        if !status.success() {
            let is_without = String::from_utf8_lossy(&output).contains(NOT_FOUND);
            return if is_without { Ok(None) } else { Err(HelperError::Failed) };
        }
        let HelperResponse { username, secret } =
            serde_json::from_slice(&output).map_err(|_| HelperError::Malformed)?;
        Ok(Some(match username.as_str() {
            "<token>" => DockerCredential::IdentityToken(secret),
            _ => DockerCredential::UsernamePassword(username, secret),
        }))
    }

    /// Waits until no helper runs for this server.
    async fn acquire(&self, server: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            in_flight.retain(|_, lock| lock.strong_count() > 0);
            let known = in_flight.get(server).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                in_flight.insert(server.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

/// What a helper prints until it ends. What it prints as errors is not read: it may repeat secrets.
async fn output(
    helper: &str,
    server: &str,
) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), HelperError> {
    let child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| HelperError::NotRun)?;
    let mut process = HelperProcess(child);
    if let Some(mut stdin) = process.0.stdin.take() {
        // A helper that needs no input may have ended already; its status says whether it failed.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut output = Zeroizing::new(Vec::<u8>::new());
    if let Some(stdout) = process.0.stdout.take() {
        let mut bounded = stdout.take(MAX_OUTPUT_BYTES.saturating_add(1));
        let length = bounded.read_to_end(&mut output).await.map_err(|_| HelperError::Failed)?;
        if u64::try_from(length).is_ok_and(|length| length > MAX_OUTPUT_BYTES) {
            return Err(HelperError::TooLarge { limit: MAX_OUTPUT_BYTES });
        }
    }
    let status = process.0.wait().await.map_err(|_| HelperError::Failed)?;
    Ok((status, output))
}
