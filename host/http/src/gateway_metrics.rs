//! The metrics of a gateway, which is a part of the service or a process of its own.

use crate::metric_families::{counters, gauges};
use crate::request_metrics::Labels;
use paygress_core::backend::gateway::{GatewayCounts, SessionCount};
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;

pub(crate) fn encode_gateway(
    encoder: &mut DescriptorEncoder<'_>,
    gateway: &GatewayCounts,
) -> Result<(), fmt::Error> {
    let way = |session: &SessionCount| -> Labels { vec![("way", session.way.to_owned())] };
    let open: Vec<_> = gateway.sessions.iter().map(|it| (way(it), it.open)).collect();
    gauges(encoder, "gateway_open_sessions", "Sessions by the gateway", &open)?;
    let opened = gateway.sessions.iter().map(|it| (way(it), it.opened));
    counters(encoder, "gateway_sessions", "Sessions that the gateway has begun", opened)?;
    let rejected = gateway.rejections.iter().map(|it| {
        let labels: Labels = vec![("reason", it.reason.to_owned())];
        (labels, it.clients)
    });
    let help = "Clients that got no session by the gateway, by reason";
    counters(encoder, "gateway_rejections", help, rejected)
}
