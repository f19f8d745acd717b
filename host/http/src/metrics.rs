//! Prometheus metrics. Labels are slots, digests, states, mints and routes: nothing that strangers
//! choose.

use crate::App;
use crate::extract::ApiRequest;
use crate::problem::{Problem, ProblemBody};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use paygress_core::backend::policy::{LATENCY_BUCKETS_US, SlotStats};
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_core::orders::Overview;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Seconds; a pod takes some.
const DURATIONS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 150.0];
/// How far back the income of the metric goes: a day.
const DAY: u64 = 86_400;

type Labels = Vec<(&'static str, String)>;

/// What is counted at the door itself.
pub(crate) struct Metrics {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
        }
    }

    /// Counts a request; `route` is a pattern, not what was asked for.
    pub(crate) fn note(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels = vec![
            ("route", route.to_owned()),
            ("method", method.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
        self.durations
            .get_or_create(&vec![("route", route.to_owned())])
            .observe(took.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Requests by route, method and status",
            self.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "How long they took",
            self.durations.clone(),
        );
    }
}

/// The histogram of a policy's calls, as it was counted.
#[derive(Debug)]
struct Latency(SlotStats);

impl EncodeMetric for Latency {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        let bounds = LATENCY_BUCKETS_US.iter().map(|bound| seconds(*bound)).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.0.latency.iter().copied()).collect();
        encoder.encode_histogram::<NoLabelSet>(
            seconds(self.0.total_us),
            self.0.calls,
            &buckets,
            None,
        )
    }

    fn metric_type(&self) -> prometheus_client::metrics::MetricType {
        prometheus_client::metrics::MetricType::Histogram
    }
}

#[derive(Debug)]
struct Snapshot(Overview);

impl Snapshot {
    fn gauges(
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        values: &[(Labels, u64)],
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            name,
            help,
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (labels, value) in values {
            ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX))
                .encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn counters(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: fn(&SlotStats) -> u64,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            name,
            help,
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for report in &self.0.policies {
            ConstCounter::new(of(report)).encode(family.encode_family(&policy(report))?)?;
        }
        Ok(())
    }
}

fn policy(report: &SlotStats) -> Labels {
    vec![("slot", report.slot.to_string()), ("digest", report.digest.clone())]
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let overview = &self.0;
        let single = |value: u64| [(Labels::new(), value)];
        let count = u64::try_from(overview.leases.len()).unwrap_or(u64::MAX);
        let income =
            overview.revenue.iter().fold(0_u64, |sum, hour| sum.saturating_add(hour.earned.0));
        Self::gauges(&mut encoder, "leases", "Leases that are not over", &single(count))?;
        Self::gauges(
            &mut encoder,
            "ports_in_use",
            "Ports that are taken",
            &single(overview.ports_in_use.into()),
        )?;
        Self::gauges(
            &mut encoder,
            "ports",
            "Ports of the range",
            &single(overview.capacity.into()),
        )?;
        Self::gauges(
            &mut encoder,
            "income_day_sats",
            "What was taken in the last day, less what went back",
            &single(income),
        )?;
        let orders: Vec<_> = overview
            .count_by_state
            .iter()
            .map(|count| (vec![("state", count.state.as_str().to_owned())], count.orders))
            .collect();
        Self::gauges(&mut encoder, "orders", "Orders in each state", &orders)?;
        let mint = |name: &str| vec![("mint", name.to_owned())];
        let up: Vec<_> = overview
            .mints
            .iter()
            .map(|report| (mint(report.mint.as_str()), u64::from(report.fault.is_none())))
            .collect();
        Self::gauges(&mut encoder, "mint_up", "Whether the mint's last request went through", &up)?;
        let held: Vec<_> = overview
            .mints
            .iter()
            .map(|report| (mint(report.mint.as_str()), report.held.0))
            .collect();
        Self::gauges(&mut encoder, "mint_held_sats", "What is held at the mint", &held)?;
        self.counters(&mut encoder, "policy_calls", "Calls of a policy", |report| report.calls)?;
        {
            let kind = prometheus_client::metrics::MetricType::Counter;
            let mut family = encoder.encode_descriptor(
                "policy_refusals",
                "Refusals of a policy, by code",
                None,
                kind,
            )?;
            for (report, (code, count)) in overview
                .policies
                .iter()
                .flat_map(|report| report.refusals.iter().map(move |each| (report, each)))
            {
                let mut labels = policy(report);
                labels.push(("code", code.as_str().to_owned()));
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        let memory: Vec<_> =
            overview.policies.iter().map(|report| (policy(report), report.memory_bytes)).collect();
        Self::gauges(
            &mut encoder,
            "policy_memory_bytes",
            "The most memory that a call of a policy had",
            &memory,
        )?;
        self.counters(&mut encoder, "policy_faults", "Faults of a policy", |report| report.faults)?;
        let kind = prometheus_client::metrics::MetricType::Histogram;
        let mut family = encoder.encode_descriptor(
            "policy_call_seconds",
            "How long a policy's calls took",
            None,
            kind,
        )?;
        for report in &overview.policies {
            Latency(report.clone()).encode(family.encode_family(&policy(report))?)?;
        }
        Ok(())
    }
}

/// Metrics
///
/// In the text format of OpenMetrics, for who has the operator's token.
#[utoipa::path(get, path = "/metrics", tag = "operator",
    responses((status = 200, description = "Metrics", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    asked: ApiRequest,
) -> Result<Response, Problem> {
    asked.operator(&app)?;
    let overview = app.orders.overview(UnixTime::now().minus(Seconds(DAY))).await?;
    let mut registry = Registry::with_prefix("paygress");
    app.metrics.register(&mut registry);
    registry.register_collector(Box::new(Snapshot(overview)));
    let mut text = String::new();
    let failed = |_| {
        paygress_core::Refusal::new(
            paygress_core::ErrorType::InternalError,
            "the metrics cannot be written",
        )
    };
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(failed)?;
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
