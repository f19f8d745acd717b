//! Prometheus metrics. Labels are slots, digests, states, mints and routes: nothing that clients
//! choose.

use crate::extract::ApiRequest;
use crate::gateway_metrics::encode_gateway;
use crate::metric_families::{counters, gauges, openmetrics, ratio, registry, signed_gauges};
use crate::problem::{Problem, ProblemBody};
use crate::readiness::unready_reasons;
use crate::request_metrics::Labels;
use crate::state::App;
use axum::extract::State;
use axum::response::Response;
use paygress_core::backend::gateway::GatewayCounts;
use paygress_core::backend::policy::{Configured, LATENCY_BUCKETS_US, SlotStats};
use paygress_core::backend::wallet::MintReport;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_core::orders::{LOGIN_BUCKETS, LoginTimes, Overview};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How far back the income of the metric goes: a day.
const DAY: u64 = 86_400;

/// A histogram that was counted elsewhere.
#[derive(Debug)]
struct ConstHistogram {
    sum: Duration,
    count: u64,
    /// By upper bound in seconds; not added up.
    buckets: Vec<(f64, u64)>,
}

impl ConstHistogram {
    /// With one number a bound, and one for the rest.
    fn new(sum: Duration, bounds: impl Iterator<Item = Duration>, counts: &[u64]) -> Self {
        let bounds = bounds.map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
        Self {
            sum,
            count: counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count)),
            buckets: bounds.zip(counts.iter().copied()).collect(),
        }
    }

    fn of_calls(stats: &SlotStats) -> Self {
        let bounds = LATENCY_BUCKETS_US.iter().map(|bound| Duration::from_micros(*bound));
        let histogram = Self::new(Duration::from_micros(stats.total_us), bounds, &stats.latency);
        Self { count: stats.calls, ..histogram }
    }

    fn of_logins(times: &LoginTimes) -> Self {
        Self::new(times.total, LOGIN_BUCKETS.iter().copied(), &times.buckets)
    }
}

impl EncodeMetric for ConstHistogram {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let sum = self.sum.as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, self.count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[derive(Debug)]
struct Snapshot {
    is_ready: bool,
    overview: Overview,
    gateway: Option<GatewayCounts>,
}

impl Snapshot {
    fn counters(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: fn(&SlotStats) -> u64,
    ) -> Result<(), fmt::Error> {
        let policies = self.overview.policies.iter();
        counters(encoder, name, help, policies.map(|stats| (policy(stats), of(stats))))
    }
}

fn policy(stats: &SlotStats) -> Labels {
    vec![("slot", stats.slot.to_string()), ("digest", stats.digest.to_string())]
}

impl Snapshot {
    fn encode_health(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Whether orders are served, as /readyz says";
        gauges(encoder, "ready", help, &[(Labels::new(), self.is_ready.into())])?;
        let room = u64::from(self.overview.has_disk_room);
        let help = "Whether the disks of ledger and wallet have room for new orders";
        gauges(encoder, "disk_has_room", help, &[(Labels::new(), room)])?;
        let help = "How long it took from an order to the pod that takes logins";
        let mut family =
            encoder.encode_descriptor("login_seconds", help, None, MetricType::Histogram)?;
        let logins = ConstHistogram::of_logins(&self.overview.login_times);
        let labels = Labels::new();
        logins.encode(family.encode_family(&labels)?)
    }

    fn encode_leases(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let overview = &self.overview;
        let count = u64::try_from(overview.leases.len()).unwrap_or(u64::MAX);
        let income =
            overview.revenue.iter().fold(0_i64, |sum, hour| sum.saturating_add(hour.earned.0));
        let singles = [
            ("leases", "Leases that are not over", count),
            (
                "ports_in_use",
                "Ports, or places of pods without, that are taken",
                overview.ports_in_use.into(),
            ),
            ("ports", "Pods that can be leased at the same time", overview.capacity.into()),
        ];
        for (name, help, value) in singles {
            gauges(encoder, name, help, &[(Labels::new(), value)])?;
        }
        let help = "What was taken in the last day, less what went back and what that cost";
        signed_gauges(encoder, "income_day_sats", help, [(Labels::new(), income)])?;
        let orders: Vec<_> = overview
            .count_by_state
            .iter()
            .map(|count| (vec![("state", count.state.as_str().to_owned())], count.orders))
            .collect();
        gauges(encoder, "orders", "Orders in each state", &orders)
    }

    fn encode_nodes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let nodes = self.overview.utilisation;
        let (cpu, memory) = (nodes.map(|nodes| nodes.cpu), nodes.map(|nodes| nodes.memory));
        let help = "The share of the nodes' CPU that pods request, orders under way included";
        ratio(encoder, "nodes_cpu_utilisation_ratio", help, cpu)?;
        let help = "The share of the nodes' memory that pods request, orders under way included";
        ratio(encoder, "nodes_memory_utilisation_ratio", help, memory)
    }

    fn encode_mints(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let of_mints = |value: fn(&MintReport) -> u64| -> Vec<(Labels, u64)> {
            let mints = self.overview.mints.iter();
            mints.map(|mint| (vec![("mint", mint.mint.to_string())], value(mint))).collect()
        };
        let up = of_mints(|mint| u64::from(mint.fault.is_none()));
        gauges(encoder, "mint_up", "Whether the mint's last request went through", &up)?;
        let held = of_mints(|mint| mint.held.0);
        gauges(encoder, "mint_held_sats", "What is held at the mint", &held)
    }

    fn encode_policies(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let policies = &self.overview.policies;
        self.counters(encoder, "policy_calls", "Calls of a policy", |stats| stats.calls)?;
        self.encode_refusals(encoder)?;
        let memory: Vec<_> =
            policies.iter().map(|stats| (policy(stats), stats.memory_bytes)).collect();
        let help = "The most memory that a call of a policy had";
        gauges(encoder, "policy_memory_bytes", help, &memory)?;
        let snapshots: Vec<_> = policies
            .iter()
            .map(|stats| (policy(stats), u64::from(stats.configured == Configured::Snapshot)))
            .collect();
        let help = "Whether a policy's calls start from a snapshot of it with its settings";
        gauges(encoder, "policy_snapshot", help, &snapshots)?;
        self.counters(encoder, "policy_faults", "Faults of a policy", |stats| stats.faults)?;
        let mut family = encoder.encode_descriptor(
            "policy_call_seconds",
            "How long a policy's calls took",
            None,
            MetricType::Histogram,
        )?;
        for stats in policies {
            let calls = ConstHistogram::of_calls(stats);
            calls.encode(family.encode_family(&policy(stats))?)?;
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "policy_refusals",
            "Refusals of a policy, by code",
            None,
            MetricType::Counter,
        )?;
        for stats in &self.overview.policies {
            for (code, count) in &stats.refusals {
                let mut labels = policy(stats);
                labels.push(("code", code.as_str().to_owned()));
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_health(&mut encoder)?;
        self.encode_leases(&mut encoder)?;
        self.encode_nodes(&mut encoder)?;
        self.encode_mints(&mut encoder)?;
        self.encode_policies(&mut encoder)?;
        match &self.gateway {
            Some(gateway) => encode_gateway(&mut encoder, gateway),
            None => Ok(()),
        }
    }
}

/// Metrics
///
/// In the text format of OpenMetrics. Needs the operator's token.
#[utoipa::path(get, path = "/metrics", tag = "operator",
    responses((status = 200, description = "Metrics", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    request.operator(&app)?;
    let overview = app.orders.overview(UnixTime::now().minus(Seconds(DAY))).await?;
    let is_ready = unready_reasons(&app).await.is_empty();
    let mut registry = registry();
    app.metrics.register(&mut registry);
    let gateway = app.orders.gateway_counts();
    registry.register_collector(Box::new(Snapshot { is_ready, overview, gateway }));
    openmetrics(&registry)
}
