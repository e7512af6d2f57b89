//! Logs and the metrics registry.

mod latency;
mod lines;
mod request_id;
mod tally;

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use prometheus_client::registry::{Registry, Unit};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use self::latency::{Distribution, LATENCY_BUCKETS, Latency};
pub(crate) use self::lines::Log;
use self::lines::{LOST, Lines};
pub(crate) use self::request_id::RequestId;
pub(crate) use self::tally::{Counts, Tally};

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// One level for all (`"info"`), or some for parts (`"info,hyper=debug"`).
    level: Level,
    /// How a line looks.
    format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: Level(
                "info".to_owned(),
                Targets::new().with_default(tracing::Level::INFO),
            ),
            format: Format::Auto,
        }
    }
}

/// The text, and what it means.
#[derive(Clone, Debug)]
struct Level(String, Targets);

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // `Targets` takes any single word for the name of a target, and a typing mistake would silence the log.
        let known = text.split(',').all(|part| {
            let level = part.rsplit('=').next().unwrap_or_default();
            !level.is_empty() && tracing::level_filters::LevelFilter::from_str(level).is_ok()
        });
        match Targets::from_str(&text) {
            Ok(targets) if known => Ok(Self(text, targets)),
            _ => Err(de::Error::custom(format!(
                "{text:?} is not a level: use error, warn, info, debug, trace or off, or \"info,hyper=debug\""
            ))),
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// Starts logging to stderr; ends, with what is still waiting, when the guard is dropped. `color` is the user's wish
/// (`NO_COLOR`); it is used on a terminal only.
///
/// # Errors
/// Fails if the system gives no thread, or if the process already logs.
pub(crate) fn start(config: &Config, color: bool) -> Result<Log, String> {
    let terminal = std::io::stderr().is_terminal();
    let text = match config.format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    let registry = tracing_subscriber::registry().with(config.level.1.clone());
    let (writer, log) =
        Lines::to_stderr().map_err(|error| format!("no thread for the log: {error}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false);
    // Where, not what: the message of a panic may quote anything.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(
            at = panic.location().map(ToString::to_string),
            "a bug in tillgate: please report this line"
        );
    }));
    let started = if text {
        registry
            .with(lines.with_ansi(terminal && color).with_target(false))
            .try_init()
    } else {
        registry
            .with(lines.json().flatten_event(true).with_current_span(false))
            .try_init()
    };
    started.map_err(|error| error.to_string())?;
    Ok(log)
}

/// An empty registry: every name in it starts with `tillgate_`.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::with_prefix("tillgate");
    let version =
        prometheus_client::metrics::info::Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program", version);
    registry.register(
        "log_lines_lost",
        "Lines of the log that were lost because its reader was slow",
        LOST.clone(),
    );
    registry
}

/// Returns how many lines of the log were lost.
pub(crate) fn lines_lost() -> u64 {
    LOST.get()
}

/// The unit of every latency histogram.
pub(crate) const SECONDS: Unit = Unit::Seconds;

/// The registry as OpenMetrics 1.0 text.
pub(crate) fn openmetrics(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

/// Every sample of the registry, as it is printed: its name with its labels, and its number.
pub(crate) fn samples(openmetrics: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = openmetrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' '))
}

/// The registry as Prometheus text 0.0.4, for scrapers that do not ask for OpenMetrics: there a counter's type is told
/// under the name that its samples have, an info is a gauge, and `# UNIT` and `# EOF` are unknown.
pub(crate) fn prometheus(registry: &Registry) -> Result<String, fmt::Error> {
    let open = openmetrics(registry)?;
    let kinds = |name: &str| {
        open.lines().find_map(|line| {
            line.strip_prefix("# TYPE ")?
                .strip_prefix(name)?
                .strip_prefix(' ')
        })
    };
    let mut text = String::new();
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            if !line.starts_with('#') {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let (suffix, kind) = match kinds(name) {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            Some(kind) => ("", kind),
            None => ("", "untyped"),
        };
        let rest = if word == "TYPE" { kind } else { rest };
        text.push_str(&format!("# {word} {name}{suffix} {rest}\n"));
    }
    Ok(text)
}
