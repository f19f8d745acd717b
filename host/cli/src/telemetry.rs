//! Traces, sent to a collector by OTLP over HTTP: one span for each order, its steps and the policy
//! calls in it.
//!
//! Off unless OTLP_ENDPOINT is set. Only our own spans are sent: those of libraries may hold
//! customers' data.

use anyhow::{Context, Result};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// A collector answers in milliseconds; the spans of one that does not are dropped.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the remaining spans when it is dropped.
pub struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        // Best effort: the collector may be unavailable.
        let _ = self.0.shutdown_with_timeout(TIMEOUT);
    }
}

/// The exporter has a thread of its own; connections live on the runtime.
#[derive(Debug)]
struct OnRuntime {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

/// The layer that sends spans to this collector, `http://collector:4318` for instance. To be called
/// on a runtime.
///
/// # Errors
/// When it cannot be set up; the collector is not contacted.
pub fn layer<S>(endpoint: &str) -> Result<(impl Layer<S> + use<S>, Traces)>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let tls = HttpsConnectorBuilder::new()
        .with_native_roots()
        .context("OTLP_ENDPOINT: the system has no certificates")?;
    let client = HyperClient::new(tls.https_or_http().enable_http1().build(), TIMEOUT, None);
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime { client, runtime: Handle::current() })
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_protocol(Protocol::HttpBinary)
        .build()
        .context("OTLP_ENDPOINT")?;
    let resource = Resource::builder_empty()
        .with_attributes([opentelemetry::KeyValue::new("service.name", "paygress")])
        .build();
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let ours = Targets::new().with_target("paygress", LevelFilter::INFO);
    let layer =
        tracing_opentelemetry::layer().with_tracer(provider.tracer("paygress")).with_filter(ours);
    Ok((layer, Traces(provider)))
}
