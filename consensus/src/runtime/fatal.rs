//! The end of the process, when to go on would break a promise.
//!
//! A failed sync, a failed write of the raft log or votes, or a thread of the node that panicked: in
//! each case nobody can say any more what is durable. The caller of `Node::start` gives the hook that
//! ends the process; a new start recovers what is really there.
//!
//! Not here: damage and full disks, which cost a replica and not the node.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::clock::Clock;
use crate::metrics::NodeMetrics;
use crate::raft_log::{SyncPolicy, sync_failed};

/// Ends the process, saying why. In tests it may return; the node is then of no use any more.
#[derive(Clone)]
pub struct Fatal(Arc<dyn Fn(&str) + Send + Sync>);

impl Fatal {
    /// Calls `end` when the process must stop.
    #[must_use]
    pub fn new(end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(end))
    }

    /// Logs `message`, then ends the process.
    #[must_use]
    pub fn aborting() -> Self {
        Self::new(|message| {
            tracing::error!("{message}");
            std::process::abort();
        })
    }

    pub(super) fn end(&self, message: &str) {
        (self.0)(message);
    }
}

impl fmt::Debug for Fatal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Fatal")
    }
}

/// Runs `body` on a thread of its own; a panic there is fatal.
pub(super) fn spawn(
    name: &str,
    fatal: &Fatal,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let fatal = fatal.clone();
    let thread = name.to_owned();
    Builder::new().name(name.to_owned()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            fatal.end(&format!(
                "E1130 thread {thread} of the node panicked, see the lines above; what it had begun is unknown, so \
                 this process stops: restart the node, and report this as a bug"
            ));
        }
    })
}

/// Times the syncs of the raft log and ends the process when one fails.
#[derive(Debug)]
pub(super) struct TimedSyncs {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) fatal: Fatal,
}

impl SyncPolicy for TimedSyncs {
    fn run(&self, path: &Path, sync: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let begun = self.clock.now();
        let result = sync();
        match &result {
            Ok(()) => self.metrics.raft_log_sync_time.observe(self.clock.now().saturating_sub(begun)),
            Err(error) => self.fatal.end(&sync_failed(path, error)),
        }
        result
    }
}

#[cfg(test)]
mod tests;
