//! Traces, metrics and logs to an OpenTelemetry collector: OTLP over HTTP, protobuf.
//!
//! Exporters have threads and blocking clients of their own, so they are made and ended off the async
//! threads. Headers, time-outs, the sampler and the service's name are OpenTelemetry's usual variables
//! (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, …).

use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::MeterProviderBuilder;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::tls;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("`{endpoint}` is no OTLP endpoint\n  hint: http://collector:4318, without `/v1/traces`")]
    Endpoint { endpoint: String },
    #[error("the OTLP exporter can't be made")]
    Exporter(#[from] ExporterBuildError),
}

/// The way to one collector.
pub struct Export {
    endpoint: String,
    resource: Resource,
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

impl Export {
    /// `endpoint`: the collector's base address. Nothing is sent yet; one that is away costs nothing but
    /// what it would have been told.
    pub fn new(endpoint: &str) -> Result<Self, ExportError> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(ExportError::Endpoint { endpoint });
        }
        tls::install_provider();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let mut resource = Resource::builder().with_attribute(version);
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("shieldgate");
        }
        let resource = resource.build();
        let spans = SpanExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/traces"));
        let traces = SdkTracerProvider::builder()
            .with_batch_exporter(spans.build()?)
            .with_resource(resource.clone())
            .build();
        let records = LogExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/logs"));
        let logs = SdkLoggerProvider::builder()
            .with_batch_exporter(records.build()?)
            .with_resource(resource.clone())
            .build();
        Ok(Self { endpoint, resource, traces, logs })
    }

    /// Spans and log records of our own; those of the exporter's own client would make more of themselves.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let ours = |metadata: &Metadata<'_>| {
            *metadata.level() <= Level::INFO && metadata.target().starts_with("shieldgate")
        };
        let spans = tracing_opentelemetry::layer().with_tracer(self.traces.tracer("shieldgate"));
        let records = OpenTelemetryTracingBridge::new(&self.logs);
        spans.with_filter(filter_fn(ours)).and_then(records.with_filter(filter_fn(ours)))
    }

    pub(super) fn with_metrics(
        &self,
        provider: MeterProviderBuilder,
    ) -> Result<MeterProviderBuilder, ExportError> {
        let exporter =
            MetricExporter::builder().with_http().with_endpoint(format!("{}/v1/metrics", self.endpoint));
        Ok(provider.with_periodic_exporter(exporter.build()?).with_resource(self.resource.clone()))
    }

    /// What is still on its way goes out, in bounded time; off the async threads.
    pub fn shut_down(&self) {
        for ended in [self.traces.shutdown(), self.logs.shutdown()] {
            if let Err(error) = ended {
                tracing::debug!(%error, "the last spans or log records were not sent");
            }
        }
    }
}

/// Makes `span` part of the caller's trace, where its headers (W3C `traceparent`) name one.
pub fn join_trace(span: &tracing::Span, headers: &dyn Extractor) {
    let context = TraceContextPropagator::new().extract(headers);
    // Fails where nothing is exported; then there is no trace to be part of.
    span.set_parent(context).ok();
}

/// Tells the collector what a request turned out to be: `GET`, `/v1/verdicts/{id}`, 200. Not by fields: the
/// log says it already, and the bridge reads names only when a span is made.
pub fn describe_request(span: &tracing::Span, method: &str, route: &str, status: u16) {
    let context = span.context();
    let span = context.span();
    span.update_name(format!("{method} {route}"));
    span.set_attribute(KeyValue::new("http.request.method", method.to_owned()));
    span.set_attribute(KeyValue::new("http.route", route.to_owned()));
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
}
