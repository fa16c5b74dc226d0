//! Log lines on standard error: text for people, or a JSON object a line.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Libraries whose own lines are wanted only when something is looked into.
const QUIET: [&str; 6] = ["quinn", "quinn_proto", "quinn_udp", "rustls", "hyper", "axum"];

/// Starts logging for the process. A second call changes nothing.
pub(super) fn start(format: LogFormat, level: Level) {
    let quiet = level.min(Level::WARN);
    let filter = QUIET
        .iter()
        .fold(Targets::new().with_default(level), |filter, library| filter.with_target(*library, quiet));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer =
                tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
