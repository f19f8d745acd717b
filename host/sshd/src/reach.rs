//! Which addresses a pod can connect to.
//!
//! The service lets a probe pod try what no pod should reach: a variable of its init container names
//! the addresses, and [`install()`](crate::install()) is followed by a line of the termination message
//! that reports which of them the pod has reached. Pods of customers have no such variable; their
//! customers may try by `paygress-sshd reach ADDRESS…`.

use serde::Deserialize;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// The variable with a [`ReachTask`]. An older program does not know it, and installs as ever.
pub const REACH_VARIABLE: &str = "PAYGRESS_REACH";
/// What the line of a report begins with: no host key does.
const LINE: &str = "paygress-reach ";
/// Where Kubernetes has its API server, in every container, whatever the pod's `enableServiceLinks`.
const API_SERVER: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

/// A connection within a cluster takes milliseconds. What drops packets answers nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
/// As many as a report in a termination message of 4 KiB has room for, beside host keys.
pub const MAX_ADDRESSES: usize = 16;
/// A pod that starts is waited for.
const MAX_SECONDS: u64 = 30;

/// What an init container is to try.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReachTask {
    /// For how long what is reached is tried again: what enforces NetworkPolicies learns of a new
    /// pod some time after that has started.
    pub seconds: u64,
    /// Beside the API server of the cluster, which the container knows by itself.
    pub addresses: Vec<SocketAddr>,
}

/// What an init container has tried.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReachReport {
    pub tried: usize,
    pub reached: Vec<SocketAddr>,
}

impl ReachTask {
    /// As the value of [`REACH_VARIABLE`].
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { seconds, addresses } = self;
        json!({"seconds": seconds, "addresses": addresses}).to_string()
    }

    /// The task of this process, if it has one.
    ///
    /// # Errors
    /// The variable is not what [`ReachTask::to_json`] makes.
    pub fn from_environment() -> Result<Option<Self>, serde_json::Error> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(text) = variable(REACH_VARIABLE) else { return Ok(None) };
        let mut task: Self = serde_json::from_str(&text)?;
        task.addresses.truncate(MAX_ADDRESSES);
        let [host, port] = API_SERVER.map(variable);
        task.addresses.extend(api_server(host.as_deref(), port.as_deref()));
        Ok(Some(task))
    }

    pub async fn run(&self) -> ReachReport {
        let within = Duration::from_secs(self.seconds.min(MAX_SECONDS));
        let reached = reached(&self.addresses, within).await;
        ReachReport { tried: self.addresses.len(), reached }
    }
}

impl ReachReport {
    /// A line of a termination message.
    #[must_use]
    pub fn to_line(&self) -> String {
        let Self { tried, reached } = self;
        format!("{LINE}{}\n", json!({"tried": tried, "reached": reached}))
    }

    /// That of a termination message; none if it has none.
    #[must_use]
    pub fn find(message: &str) -> Option<Self> {
        let line = message.lines().find_map(|line| line.strip_prefix(LINE))?;
        serde_json::from_str(line).ok()
    }
}

fn api_server(host: Option<&str>, port: Option<&str>) -> Option<SocketAddr> {
    let host: IpAddr = host?.parse().ok()?;
    Some(SocketAddr::new(host, port?.parse().ok()?))
}

/// Those of these addresses that take a connection of this process, over and over for so long.
pub async fn reached(addresses: &[SocketAddr], within: Duration) -> Vec<SocketAddr> {
    let begun = Instant::now();
    loop {
        let tries = addresses.iter().map(|address| async move {
            let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(*address)).await;
            matches!(connected, Ok(Ok(_))).then_some(*address)
        });
        let found: Vec<SocketAddr> =
            futures::future::join_all(tries).await.into_iter().flatten().collect();
        if found.is_empty() || begun.elapsed() >= within {
            return found;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// An address where somebody listens as long as the listener lives.
    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn what_takes_a_connection_is_reached_and_nothing_else() {
        let ((_open, open_address), (closed, closed_address)) =
            (listener().await, listener().await);
        drop(closed);
        let task = ReachTask { seconds: 0, addresses: vec![closed_address, open_address] };
        let report = task.run().await;
        assert_eq!(report, ReachReport { tried: 2, reached: vec![open_address] });
        let task = ReachTask { seconds: 30, addresses: vec![closed_address] };
        assert!(task.run().await.reached.is_empty(), "what is closed is not tried again");
    }

    /// As where a NetworkPolicy is enforced some time after the pod has started.
    #[tokio::test]
    async fn what_is_closed_in_time_is_not_reached() {
        let (open, address) = listener().await;
        let task = ReachTask { seconds: 30, addresses: vec![address] };
        let running = tokio::spawn(async move { task.run().await });
        // The first attempt has come through.
        open.accept().await.unwrap();
        drop(open);
        assert_eq!(running.await.unwrap(), ReachReport { tried: 1, reached: Vec::new() });
    }

    #[test]
    fn a_report_is_a_line_beside_host_keys() {
        let reached =
            vec!["10.96.0.1:443".parse().unwrap(), "[2001:db8::1]:10250".parse().unwrap()];
        let report = ReachReport { tried: 3, reached };
        let line = report.to_line();
        let message = format!("ssh-ed25519 AAAA\n{line}");
        assert_eq!(ReachReport::find(&message), Some(report));
        assert!(ReachReport::find("ssh-ed25519 AAAA\n").is_none(), "of an older program");
        assert!(ReachReport::find("paygress-reach {}").is_none());
        // With the addresses that are the longest to write.
        let longest = "[2001:1111:1111:1111:1111:1111:1111:1111]:65535".parse().unwrap();
        let full = ReachReport { tried: 17, reached: vec![longest; 17] };
        assert!(full.to_line().len() < 1_024);
    }

    #[test]
    fn the_api_server_is_where_kubernetes_has_it() {
        for (host, port, expected) in [
            (Some("10.96.0.1"), Some("443"), Some("10.96.0.1:443")),
            (Some("fd00::1"), Some("6443"), Some("[fd00::1]:6443")),
            (Some("kubernetes.default"), Some("443"), None),
            (Some("10.96.0.1"), Some("https"), None),
            (Some("10.96.0.1"), None, None),
            (None, None, None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(api_server(host, port), expected, "{host:?} {port:?}");
        }
    }
}
