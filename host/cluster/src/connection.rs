//! The connection to the API server, and requests with a time limit.

use crate::api_client;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};
use paygress_core::error_chain;
use paygress_http_client::{ConnectError as Unreachable, Proxies, ProxyError};
use std::path::Path;
use std::time::Duration;

/// The API server answers in milliseconds. One that takes longer than this counts as unavailable.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// There is no usable configuration of a connection.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot connect to Kubernetes: {}; set KUBECONFIG, or run in the cluster with a ServiceAccount",
    error_chain(.0)
)]
pub enum ConnectError {
    Kubeconfig(#[source] KubeconfigError),
    Infer(#[source] InferConfigError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    Client(#[source] kube::Error),
}

/// A request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("no answer from the API server within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the API server cannot be reached: {0}")]
    Unreachable(#[source] Unreachable),
    #[error("{}", error_chain(.0))]
    Api(#[source] kube::Error),
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        let unreachable = match &error {
            kube::Error::Service(source) => Unreachable::find(&**source),
            _ => None,
        };
        unreachable.map_or_else(|| Self::Api(error), Self::Unreachable)
    }
}

impl RequestError {
    fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.as_ref()),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }
}

/// A client of the API server that this kubeconfig names, or `$KUBECONFIG`, or the cluster that
/// this process runs in. Sends nothing yet.
///
/// A kubeconfig's cluster is reached through the `proxy-url` that it has, or else through the proxy
/// of the environment, as by `kubectl`. The cluster that this process runs in is reached directly:
/// its API server has an address inside it.
///
/// # Errors
/// [`ConnectError`].
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    client_with(kubeconfig, &Proxies::from_env()?).await
}

async fn client_with(kubeconfig: Option<&Path>, proxies: &Proxies) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(ConnectError::Kubeconfig)?;
            from_file(file, proxies).await.map_err(ConnectError::Kubeconfig)?
        }
        None => {
            let found = match Kubeconfig::read() {
                Ok(file) => from_file(file, proxies).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(config) => config,
                Err(_) => Config::infer().await.map_err(ConnectError::Infer)?,
            }
        }
    };
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    // The order service retries, and knows what may be retried.
    config.default_retry = false;
    match config.proxy_url {
        Some(_) => Client::try_from(config),
        None => api_client::direct(config),
    }
    .map_err(ConnectError::Client)
}

/// The configuration of the current context. Its proxy is chosen here: the library compares
/// `NO_PROXY` with the proxy instead of the API server.
async fn from_file(file: Kubeconfig, proxies: &Proxies) -> Result<Config, KubeconfigError> {
    let proxy_url = proxy_url(&file).map(|url| url.parse());
    let proxy_url = proxy_url.transpose().map_err(KubeconfigError::ParseProxyUrl)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.proxy_url = proxy_url.or_else(|| proxies.url_for(&config.cluster_url).cloned());
    Ok(config)
}

/// The `proxy-url` of the current context's cluster.
fn proxy_url(file: &Kubeconfig) -> Option<String> {
    let current = file.current_context.as_ref()?;
    let context = file.contexts.iter().find(|context| context.name == *current)?;
    let name = &context.context.as_ref()?.cluster;
    let cluster = file.clusters.iter().find(|cluster| cluster.name == *name)?;
    cluster.cluster.as_ref()?.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The answer to a request, if it comes within [`REQUEST_TIMEOUT`].
///
/// # Errors
/// [`RequestError`].
pub async fn with_timeout<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, RequestError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RequestError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    const VERSION: &str = r#"{"major":"1","minor":"34","gitVersion":"v1.34.0","gitCommit":"",
        "gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;

    /// A proxy with an API server behind it, and the requests that the proxy gets.
    async fn proxy() -> (String, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{VERSION}",
                    VERSION.len()
                );
                for answer in ["HTTP/1.1 200 OK\r\n\r\n", &answer] {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap());
                    }
                    sender.send(String::from_utf8(request).unwrap()).unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        (address, requests)
    }

    fn kubeconfig(server: &str, proxy_url: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: b, contexts: [{{name: b, context: \
             {{cluster: b, user: u}}}}], users: [{{name: u, user: {{}}}}], clusters: [{{name: a, \
             cluster: {{server: \"http://a\", proxy-url: \"http://a\"}}}}, {{name: b, cluster: \
             {{server: \"{server}\"{proxy_url}}}}}]}}"
        );
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[tokio::test]
    async fn the_api_server_is_reached_through_the_proxy_of_the_kubeconfig_or_the_environment() {
        let (proxy, mut requests) = proxy().await;
        let environment = |no_proxy: &'static str| {
            let url = format!("http://user:pass@{proxy}");
            Proxies::from_variables(move |name| match name {
                "HTTP_PROXY" => Some(url.clone()),
                "NO_PROXY" => Some(no_proxy.to_owned()),
                _ => None,
            })
            .unwrap()
        };
        let server = "http://api.example:6443";
        let of_file = format!(", proxy-url: \"http://user:pass@{proxy}\"");
        for (proxy_url, proxies) in [
            (of_file.as_str(), Proxies::default()),
            // As kubectl: what the file says is not for NO_PROXY to change.
            (&of_file, environment("*")),
            ("", environment("127.0.0.1,other.example,")),
        ] {
            let file = kubeconfig(server, proxy_url);
            let client = client_with(Some(file.path()), &proxies).await.unwrap();
            assert_eq!(client.apiserver_version().await.unwrap().minor, "34");
            let connect = requests.recv().await.unwrap();
            assert!(connect.starts_with("CONNECT api.example:6443 "), "{connect}");
            assert!(connect.contains("Basic dXNlcjpwYXNz"), "{connect}");
            assert!(requests.recv().await.unwrap().starts_with("GET /version "));
        }
        let file = kubeconfig(server, "");
        let direct = client_with(Some(file.path()), &environment(".example")).await.unwrap();
        let error = with_timeout(direct.apiserver_version()).await.unwrap_err();
        assert!(requests.try_recv().is_err(), "NO_PROXY names the API server");
        assert_eq!(
            error_chain(&error),
            "the API server cannot be reached: its name has no address"
        );
    }

    #[tokio::test]
    async fn an_api_server_that_cannot_be_reached_is_reported_with_the_cause() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let without_tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = without_tls.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = without_tls.accept().await.unwrap();
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        for (server, proxy_url, expected) in [
            (format!("http://{closed}"), String::new(), "the connection was refused".to_owned()),
            (format!("https://{plain}"), String::new(), "it does not speak TLS there".to_owned()),
            (
                "https://api.example".to_owned(),
                format!(", proxy-url: \"http://{closed}\""),
                "the proxy of the connection cannot be reached: the connection was refused"
                    .to_owned(),
            ),
        ] {
            let file = kubeconfig(&server, &proxy_url);
            let client = client_with(Some(file.path()), &Proxies::default()).await.unwrap();
            let error = with_timeout(client.apiserver_version()).await.unwrap_err();
            let expected = format!("the API server cannot be reached: {expected}");
            let text = error_chain(&error);
            assert!(text.starts_with(&expected), "{server}: {text}");
        }
    }

    #[tokio::test]
    async fn a_proxy_url_may_be_socks_and_must_be_a_url() {
        let server = "https://api.example:6443";
        let file = kubeconfig(server, ", proxy-url: \"socks5://127.0.0.1:1\"");
        client_with(Some(file.path()), &Proxies::default()).await.unwrap();
        for bad in ["ftp://127.0.0.1:1", "http://a b"] {
            let file = kubeconfig(server, &format!(", proxy-url: \"{bad}\""));
            let error = client_with(Some(file.path()), &Proxies::default()).await.err().unwrap();
            assert!(error.to_string().contains("proxy"), "{bad}: {error}");
        }
    }
}
