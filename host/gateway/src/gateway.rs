//! Both ways to a pod, served together.

use crate::access::LeaseAccess;
use crate::endpoint::IrohEndpoint;
use crate::incoming;
use crate::jump::JumpHost;
use crate::metrics::Counts;
use crate::shared::Shared;
use paygress_core::backend::pod_streams::PodStreams;
use paygress_sshd::is_set;
use std::sync::Arc;
use tokio::sync::watch;

/// The ways to pods' SSH ports that need no port of a node.
///
/// ```
/// use async_trait::async_trait;
/// use paygress_core::model::ids::PodName;
/// use paygress_core::model::secret::Secret;
/// use paygress_gateway::{
///     ByteStream, Gateway, GatewayHostKey, JumpHost, LeaseAccess, LeaseLogin, LookupError,
///     OpenError, PodPort, PodStreams, Way,
/// };
/// use std::sync::Arc;
/// use tokio::net::{TcpListener, TcpStream};
///
/// /// One pod, whose lease does not end.
/// struct OnePod;
///
/// #[async_trait]
/// impl LeaseAccess for OnePod {
///     async fn login(&self, pod: &PodName) -> Result<Option<LeaseLogin>, LookupError> {
///         let is_ours = pod.as_str() == "ssh-pod-abcdefg234";
///         let secret = Secret::new("correct horse");
///         Ok(is_ours.then(|| LeaseLogin::new(20427, Vec::new(), Some(secret))))
///     }
///
///     async fn ended(&self, _: &PodName) {
///         std::future::pending().await
///     }
/// }
///
/// #[async_trait]
/// impl PodStreams for OnePod {
///     async fn open(&self, _: &PodName, _: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
///         let stream = TcpStream::connect("127.0.0.1:2222").await.map_err(OpenError::new)?;
///         Ok(Box::new(stream))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let gateway = Gateway::new(Arc::new(OnePod), Arc::new(OnePod))
///     .with_jump_host(JumpHost::new(listener, GatewayHostKey::generate()?));
/// let counts = gateway.counts();
/// let (stop, stopped) = tokio::sync::watch::channel(false);
/// let served = tokio::spawn(gateway.serve(stopped));
///
/// // ssh -J ssh-pod-abcdefg234@gateway.example.com alice@ssh-pod-abcdefg234
/// assert_eq!(counts.open_sessions(Way::JumpHost), 0);
///
/// stop.send_replace(true);
/// served.await?;
/// # Ok(())
/// # }
/// ```
pub struct Gateway {
    shared: Arc<Shared>,
    jump_host: Option<JumpHost>,
    endpoint: Option<IrohEndpoint>,
}

impl Gateway {
    /// A gateway that serves nothing yet.
    #[must_use]
    pub fn new(access: Arc<dyn LeaseAccess>, streams: Arc<dyn PodStreams>) -> Self {
        let shared = Arc::new(Shared::new(access, streams));
        Self { shared, jump_host: None, endpoint: None }
    }

    #[must_use]
    pub fn with_jump_host(self, jump_host: JumpHost) -> Self {
        Self { jump_host: Some(jump_host), ..self }
    }

    #[must_use]
    pub fn with_endpoint(self, endpoint: IrohEndpoint) -> Self {
        Self { endpoint: Some(endpoint), ..self }
    }

    /// What it counts, for metrics.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.counts)
    }

    /// Serves until `stop` is `true` or its sender is dropped. Then no connection is accepted any
    /// more, clients learn why theirs end, and within some seconds nothing is left.
    pub async fn serve(self, stop: watch::Receiver<bool>) {
        let Self { shared, jump_host, endpoint } = self;
        let jump = async {
            if let Some(jump_host) = jump_host {
                jump_host.serve(Arc::clone(&shared), stop.clone()).await;
            }
        };
        let iroh = async {
            if let Some(endpoint) = endpoint {
                incoming::serve(endpoint, Arc::clone(&shared), stop.clone()).await;
            }
        };
        let mut stopped = stop.clone();
        tokio::join!(jump, iroh, is_set(&mut stopped));
    }
}
