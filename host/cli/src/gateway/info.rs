//! What answers, offers and metrics show of the gateway.

use paygress_core::backend::gateway::{GatewayCounts, GatewayInfo, RejectionCount, SessionCount};
use paygress_core::model::gateway::{GatewayWays, IrohAddress, JumpHostAddress};
use paygress_core::readiness::UnreadyReason;
use paygress_gateway::{Counts, GatewayTicket, IrohEndpoint, PROTOCOL_PREFIX, Rejection, Way};
use std::sync::Arc;

const CLOSED: &str = "the endpoint of iroh is closed, and answers do not name it until it is open again: the log says why";
const NO_RELAY: &str = "the endpoint of iroh has none of its relays: only customers who reach it directly find it; check GATEWAY_IROH_RELAYS";

/// Where the endpoint's ticket comes from.
pub(super) enum Tickets {
    /// The endpoint: its addresses may change.
    Endpoint(IrohEndpoint),
    /// The configuration: another process has the endpoint.
    Configured(GatewayTicket),
}

/// A gateway, as customers know it.
#[derive(Default)]
pub(super) struct KnownGateway {
    pub(super) jump_host: Option<JumpHostAddress>,
    pub(super) tickets: Option<Tickets>,
    /// None: another process counts.
    pub(super) counts: Option<Arc<Counts>>,
}

impl Tickets {
    /// None while the endpoint is closed.
    fn address(&self) -> Option<IrohAddress> {
        let ticket = match self {
            Self::Endpoint(endpoint) => endpoint.ticket()?,
            Self::Configured(ticket) => ticket.clone(),
        };
        Some(IrohAddress {
            ticket: ticket.to_string(),
            endpoint_id: ticket.endpoint_id(),
            protocol_prefix: PROTOCOL_PREFIX.to_owned(),
        })
    }
}

impl KnownGateway {
    /// The endpoint of this process.
    fn endpoint(&self) -> Option<&IrohEndpoint> {
        match self.tickets.as_ref()? {
            Tickets::Endpoint(endpoint) => Some(endpoint),
            Tickets::Configured(_) => None,
        }
    }
}

impl GatewayInfo for KnownGateway {
    fn ways(&self) -> GatewayWays {
        GatewayWays {
            jump_host: self.jump_host.clone(),
            iroh: self.tickets.as_ref().and_then(Tickets::address),
        }
    }

    fn counts(&self) -> Option<GatewayCounts> {
        self.counts.as_deref().map(counted)
    }

    fn unready_reason(&self) -> Option<UnreadyReason> {
        let is_closed = self.endpoint()?.is_closed();
        (is_closed && self.jump_host.is_none()).then_some(UnreadyReason::EndpointClosed)
    }

    fn warning(&self) -> Option<&'static str> {
        let endpoint = self.endpoint()?;
        if endpoint.is_closed() {
            return Some(CLOSED);
        }
        endpoint.lacks_relay().then_some(NO_RELAY)
    }
}

/// As metrics have it.
fn counted(counts: &Counts) -> GatewayCounts {
    let session = |way: Way| SessionCount {
        way: way.as_str(),
        open: counts.open_sessions(way),
        opened: counts.sessions(way),
    };
    let rejection = |reason: Rejection| RejectionCount {
        reason: reason.as_str(),
        clients: counts.rejections(reason),
    };
    GatewayCounts {
        sessions: Way::ALL.map(session).to_vec(),
        rejections: Rejection::ALL.map(rejection).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::host_key::HostKey;
    use paygress_core::testing::HOST_KEY;
    use paygress_gateway::{EndpointKey, EndpointOptions};

    #[tokio::test]
    async fn an_endpoint_that_is_closed_is_no_way_and_unready_where_there_is_no_other() {
        let mut options = EndpointOptions::new(EndpointKey::generate());
        options.udp = vec!["127.0.0.1:0".parse().unwrap()];
        let endpoint = IrohEndpoint::bind(options).await.unwrap();
        let tickets = Some(Tickets::Endpoint(endpoint.clone()));
        let known = KnownGateway { tickets, ..KnownGateway::default() };
        assert!(known.ways().iroh.is_some() && known.warning().is_none());
        assert_eq!(known.unready_reason(), None);
        endpoint.close().await;
        assert_eq!((known.ways().iroh, known.warning()), (None, Some(CLOSED)));
        assert_eq!(known.unready_reason(), Some(UnreadyReason::EndpointClosed));
        let jump_host = Some(JumpHostAddress {
            host: "gateway.example.com".to_owned(),
            port: 22,
            host_key: HostKey::parse(HOST_KEY).unwrap(),
        });
        assert_eq!(
            KnownGateway { jump_host, ..known }.unready_reason(),
            None,
            "it has another way"
        );
    }
}
