//! What operators see: logs to stderr, metrics, and, where a collector is named, all of it and traces over OTLP.
//!
//! Never content, texts, queries, keys or account ids.

mod export;
mod metrics;

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

pub use export::{Export, ExportError, describe_request, join_trace};
pub use metrics::Metrics;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is no log format: expected `text` or `json`")),
        }
    }
}

/// `filter` as tracing writes it: `info`, `shieldgate=debug,info`. What is exported goes by no filter of
/// the log's: spans and events of our own, from `info` on.
pub fn init_logs(format: LogFormat, filter: &str, export: Option<&Export>) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter `{filter}`: {error}"))?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let plain =
        std::env::var_os("NO_COLOR").is_some() || !std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = match format {
        LogFormat::Text => layer.fmt_fields(ForPeople).with_ansi(!plain).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let exported = export.map(|export| export.layer());
    tracing_subscriber::registry().with(layer).with(exported).try_init().map_err(|error| error.to_string())
}

/// Fields as `name=value`, without those that only a collector needs.
struct ForPeople;

impl<'w> FormatFields<'w> for ForPeople {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    empty: bool,
    result: fmt::Result,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() || field.name().starts_with("otel.") {
            return;
        }
        let gap = if std::mem::replace(&mut self.empty, false) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{gap}{value:?}"),
            name => write!(self.writer, "{gap}{name}={value:?}"),
        };
    }
}
