//! Metric families of values that were counted elsewhere, in the text format of OpenMetrics.

use crate::problem::Problem;
use crate::request_metrics::Labels;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;

/// An empty registry. The names of its metrics begin with `paygress_`.
pub(crate) fn registry() -> Registry {
    Registry::with_prefix("paygress")
}

pub(crate) fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &[(Labels, u64)],
) -> Result<(), fmt::Error> {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let values = values.iter().map(|(labels, value)| (labels.clone(), signed(*value)));
    signed_gauges(encoder, name, help, values)
}

pub(crate) fn signed_gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels, i64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge of this share. A share that is not known has no sample.
pub(crate) fn ratio(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    thousandths: Option<u32>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    let Some(thousandths) = thousandths else { return Ok(()) };
    let labels = Labels::new();
    ConstGauge::new(f64::from(thousandths) / 1_000.0).encode(family.encode_family(&labels)?)
}

pub(crate) fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The response with all metrics of the registry.
pub(crate) fn openmetrics(registry: &Registry) -> Result<Response, Problem> {
    let mut text = String::new();
    let failed = |_| Problem::internal("the metrics cannot be written");
    prometheus_client::encoding::text::encode(&mut text, registry).map_err(failed)?;
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
