//! The connection to the API server, and requests with a time limit.

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};
use paygress_core::error_chain;
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
    Client(#[source] kube::Error),
}

/// A request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("no answer from the API server within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    /// With its sources: alone it says "client error (Connect)".
    #[error("{}", error_chain(.0))]
    Api(#[from] kube::Error),
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
/// # Errors
/// [`ConnectError`].
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(ConnectError::Kubeconfig)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(ConnectError::Kubeconfig)?
        }
        None => Config::infer().await.map_err(ConnectError::Infer)?,
    };
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    // The order service retries, and knows what may be retried.
    config.default_retry = false;
    Client::try_from(config).map_err(ConnectError::Client)
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
