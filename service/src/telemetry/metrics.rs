//! The instruments: one set, for Prometheus and, where a collector is named, for OTLP.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, MeterProvider as _};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

use super::export::Export;
use crate::moderate::ModerateError;
use crate::scheduler::{Lane, SeatNow};
use crate::verdict::Verdict;

/// From a millisecond (an override) to a minute (a large model on a CPU).
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// The instruments; one set for every reader.
pub struct Metrics {
    registry: Registry,
    /// Instruments fall silent when it is dropped.
    provider: SdkMeterProvider,
    requests: Counter<u64>,
    duration: Histogram<f64>,
    verdicts: Counter<u64>,
    failures: Counter<u64>,
    judgements: Counter<u64>,
    connections: Gauge<u64>,
    queued: Gauge<u64>,
    run: Gauge<f64>,
    stuck: Gauge<u64>,
    batches: Counter<u64>,
    pictures: Counter<u64>,
    interrupted: Counter<u64>,
    decoders_failed: Counter<u64>,
}

/// A client's own word is no label: made-up methods would fill the table of series.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

impl Metrics {
    /// `export`: where they are sent to as well.
    pub fn new(export: Option<&Export>) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .build()?;
        let seconds = |instrument: &Instrument| {
            let aggregation =
                Aggregation::ExplicitBucketHistogram { boundaries: SECONDS.to_vec(), record_min_max: false };
            (instrument.unit() == "s" && instrument.kind() == InstrumentKind::Histogram)
                .then(|| Stream::builder().with_aggregation(aggregation).build().ok())?
        };
        let provider = SdkMeterProvider::builder().with_reader(exporter).with_view(seconds);
        let provider = match export {
            Some(export) => export.with_metrics(provider)?,
            None => provider,
        };
        let provider = provider.build();
        let meter = provider.meter("shieldgate");
        let counter =
            |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Ok(Self {
            requests: counter("shieldgate_http_requests", "Requests answered, by route, method and status"),
            duration: meter
                .f64_histogram("shieldgate_http_request_duration")
                .with_unit("s")
                .with_description("From the request's head to its answer")
                .build(),
            verdicts: counter(
                "shieldgate_verdicts",
                "Verdicts recorded, by action and whether they were recalled",
            ),
            failures: counter("shieldgate_moderation_failures", "Submissions without a verdict, by reason"),
            judgements: counter("shieldgate_policy_answers", "Policy answers, by policy, outcome and action"),
            connections: meter
                .u64_gauge("shieldgate_database_connections")
                .with_description("Connections to Postgres, by state")
                .build(),
            queued: meter
                .u64_gauge("shieldgate_judge_queue")
                .with_description("Submissions waiting for a judge, by lane")
                .build(),
            run: meter
                .f64_gauge("shieldgate_judge_run")
                .with_unit("s")
                .with_description("How long a judge takes for one picture or one window of a text, smoothed")
                .build(),
            stuck: meter
                .u64_gauge("shieldgate_judge_stuck")
                .with_description("1 while a run that was told to stop has not ended")
                .build(),
            batches: counter("shieldgate_judge_batches", "Batches that a judge ran"),
            pictures: counter(
                "shieldgate_judge_pictures",
                "Pictures and windows of texts in those batches, frames and backgrounds each for itself",
            ),
            interrupted: counter(
                "shieldgate_judge_interrupted",
                "Bulk batches that made way for interactive work and are done again",
            ),
            decoders_failed: counter("shieldgate_decoders_failed", "Decoders that a picture ended"),
            registry,
            provider,
        })
    }

    pub fn answered(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let labels = [
            KeyValue::new("method", known(method)),
            KeyValue::new("route", route.to_owned()),
            KeyValue::new("status", i64::from(status.as_u16())),
        ];
        self.requests.add(1, &labels);
        self.duration.record(took.as_secs_f64(), &labels[..2]);
    }

    /// What stands in a judge's queue, how long it takes, and how full its batches were.
    pub fn judge(&self, seat: &SeatNow<'_>) {
        let judge = KeyValue::new("judge", seat.name.to_owned());
        for (lane, queued) in Lane::ALL.iter().zip(seat.queued) {
            self.queued.record(queued as u64, &[judge.clone(), KeyValue::new("lane", lane.name())]);
        }
        let judge = [judge];
        self.run.record(seat.run.as_secs_f64(), &judge);
        self.stuck.record(u64::from(seat.stuck), &judge);
        self.batches.add(seat.batches, &judge);
        self.pictures.add(seat.pictures, &judge);
        self.interrupted.add(seat.interrupted, &judge);
    }

    pub fn decoders_failed(&self, count: u64) {
        self.decoders_failed.add(count, &[]);
    }

    /// A submission that was turned away before it was looked at.
    pub fn turned_away(&self, reason: &'static str) {
        self.failures.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub fn moderated(&self, outcome: &Result<Verdict, ModerateError>) {
        match outcome {
            Ok(verdict) => {
                let action = KeyValue::new("action", format!("{:?}", verdict.action).to_lowercase());
                self.verdicts.add(1, &[action, KeyValue::new("cached", verdict.cached)]);
                for answer in &verdict.policies {
                    self.judgements.add(
                        1,
                        &[
                            KeyValue::new("policy", answer.policy.clone()),
                            KeyValue::new("outcome", format!("{:?}", answer.outcome).to_lowercase()),
                            KeyValue::new("action", format!("{:?}", answer.action).to_lowercase()),
                        ],
                    );
                }
            }
            Err(error) => self.failures.add(1, &[KeyValue::new("reason", error.reason())]),
        }
    }

    pub fn connections(&self, open: u32, idle: usize) {
        let idle = idle as u64;
        self.connections.record(u64::from(open).saturating_sub(idle), &[KeyValue::new("state", "used")]);
        self.connections.record(idle, &[KeyValue::new("state", "idle")]);
    }

    /// The last numbers go out; off the async threads.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the last metrics were not sent");
        }
    }

    /// Prometheus text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
