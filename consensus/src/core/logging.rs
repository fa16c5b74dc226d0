//! raft's log lines, which come through slog, handed on to tracing.
//!
//! What raft calls information is detail to whoever runs a node, so every level but the failures goes
//! one down. A line is put together only if somebody listens.

use std::fmt::Write as _;

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};
use tidelog_wire::ids::GroupId;

/// A logger for the raft of one group.
pub(super) fn raft_logger(group: GroupId) -> Logger {
    Logger::root(ToTracing, o!("group" => group.get()))
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, context: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error if tracing::enabled!(tracing::Level::ERROR) => {
                tracing::error!("{}", text(record, context));
            }
            Level::Warning if tracing::enabled!(tracing::Level::WARN) => {
                tracing::warn!("{}", text(record, context));
            }
            Level::Info if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!("{}", text(record, context));
            }
            Level::Debug | Level::Trace if tracing::enabled!(tracing::Level::TRACE) => {
                tracing::trace!("{}", text(record, context));
            }
            Level::Critical | Level::Error | Level::Warning | Level::Info | Level::Debug | Level::Trace => {}
        }
        Ok(())
    }
}

fn text(record: &Record<'_>, context: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // Writing to a string does not fail, and a log line is not worth failing for.
    drop(record.kv().serialize(record, &mut line));
    drop(context.serialize(record, &mut line));
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}
