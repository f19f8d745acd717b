//! Readiness checks of the backends that the service and a gateway in a process of its own both
//! need.

use crate::backend::cluster::ClusterHealth;
use crate::backend::store::Ledger;
use crate::limits::READY_TIMEOUT;
use tokio::time::timeout;

/// Why a process cannot serve now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadyReason {
    Ledger,
    Cluster,
    /// A gateway's only way is closed.
    EndpointClosed,
}

impl UnreadyReason {
    /// For the operator.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "the ledger does not answer",
            Self::Cluster => "the cluster does not answer, or does not permit listing pods",
            Self::EndpointClosed => {
                "the endpoint of iroh, the only way to the pods, is closed: the log says why"
            }
        }
    }
}

/// The reasons of the ledger and of the cluster, if they do not answer in time.
pub async fn unready_backends(
    ledger: &dyn Ledger,
    cluster: &dyn ClusterHealth,
) -> Vec<UnreadyReason> {
    let (ledger, cluster) = tokio::join!(
        timeout(READY_TIMEOUT, ledger.ports_in_use()),
        timeout(READY_TIMEOUT, cluster.check()),
    );
    let mut reasons = Vec::new();
    if !matches!(ledger, Ok(Ok(_))) {
        reasons.push(UnreadyReason::Ledger);
    }
    if !matches!(cluster, Ok(Ok(()))) {
        reasons.push(UnreadyReason::Cluster);
    }
    reasons
}
