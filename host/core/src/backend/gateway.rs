//! What the order service knows of the gateway, if there is one: the ways to pods that answers
//! name, and the counts that metrics show.

use crate::model::gateway::GatewayWays;
use crate::readiness::UnreadyReason;
use async_trait::async_trait;

/// How customers reach their pods beside the ports of nodes.
pub trait GatewayInfo: Send + Sync {
    /// The ways that there are now; their addresses may change.
    fn ways(&self) -> GatewayWays;

    /// What is counted, for metrics; none where another process does.
    fn counts(&self) -> Option<GatewayCounts> {
        None
    }

    /// Why it cannot connect customers with their pods now; none where another process serves it.
    fn unready_reason(&self) -> Option<UnreadyReason> {
        None
    }

    /// What else the operator should know of it; none where another process serves it.
    fn warning(&self) -> Option<&'static str> {
        None
    }
}

/// A gateway in a process of its own, as its operator watches it.
#[async_trait]
pub trait GatewayHealth: Send + Sync {
    /// Why it cannot connect customers with their pods now; empty if it can.
    async fn unready_reasons(&self) -> Vec<UnreadyReason>;

    /// What else the operator should know.
    fn warnings(&self) -> Vec<&'static str>;

    fn counts(&self) -> GatewayCounts;
}

/// What a gateway has counted since its start. The names in it are fixed: clients choose none of
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayCounts {
    pub sessions: Vec<SessionCount>,
    pub rejections: Vec<RejectionCount>,
}

/// The sessions of one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCount {
    pub way: &'static str,
    /// Those that are open now.
    pub open: u64,
    pub opened: u64,
}

/// Clients that got no session, for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionCount {
    pub reason: &'static str,
    pub clients: u64,
}
