//! What the engine and all its logs share: the data directory and who owns it.

use std::path::{Path, PathBuf};

use tidelog_wire::ids::{LogId, TimestampMs};

use crate::clock::Clock;
use crate::directory::identity::Identity;
use crate::directory::keep::Keep;
use crate::directory::quarantine::{Quarantine, QuarantineError, SetAside};
use crate::directory::room::Room;
use crate::locks::{Arc, Mutex};
use crate::log::error::is_full;
use crate::log::lives::Lives;
use crate::log::opening::Tally;
use crate::log::recovery::report::Aside;
use crate::report::RecoveryReport;
use crate::report::file::ReportFile;
use crate::storage::open_files::OpenFiles;
use crate::storage::{DirectoryLock, Position, Storage};

/// Who vouches for what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A raft log is the durable copy; checkpoints say up to where the segments are.
    Consensus,
    /// The segments are the durable copy; each frame witnesses how far the file was synced.
    Embedded,
}

/// Deliberate defects, which the simulator must catch. Never on in a server.
#[cfg(feature = "defects")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// Recovery does not sync what it keeps.
    pub skip_recovered_tail_sync: bool,
}

/// The data directory of one engine.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) data_dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) mode: Mode,
    pub(crate) open_files: OpenFiles,
    pub(crate) quarantine: Quarantine,
    /// When the engine was opened, as the caller said: the engine has no clock.
    pub(crate) opened_at: TimestampMs,
    /// The same by the clock that was lent.
    pub(crate) opened_at_micros: u64,
    pub(crate) keep: Keep,
    pub(crate) room: Room,
    pub(crate) lives: Lives,
    /// Lent by the caller, for reports and for the dates of what is set aside.
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) report: Mutex<RecoveryReport>,
    pub(crate) report_file: Mutex<ReportFile>,
    pub(crate) open_threads: usize,
    /// How far the opening of logs has come.
    pub(crate) tally: Tally,
    #[cfg(feature = "defects")]
    pub(crate) defects: Defects,
    pub(crate) _lock: Box<dyn DirectoryLock>,
}

impl Core {
    /// `DATA/logs/<generation>/<partition>`.
    pub(crate) fn log_dir(&self, log: LogId) -> PathBuf {
        self.generation_dir(log).join(log.partition.to_string())
    }

    pub(crate) fn generation_dir(&self, log: LogId) -> PathBuf {
        self.logs_dir().join(log.generation.to_string())
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    /// Whether recovery syncs what it keeps: always, but for the defect that says otherwise.
    pub(crate) const fn syncs_recovered(&self) -> bool {
        #[cfg(feature = "defects")]
        if self.defects.skip_recovered_tail_sync {
            return false;
        }
        true
    }

    /// The present time, for what is set aside: a node may be up for longer than a piece is kept. Without a
    /// clock it is the time of the opening.
    fn now(&self) -> TimestampMs {
        let micros = self.clock.as_ref().map_or(self.opened_at_micros, |clock| clock.micros());
        let up_ms = micros.saturating_sub(self.opened_at_micros) / 1_000;
        TimestampMs(self.opened_at.get().saturating_add(i64::try_from(up_ms).unwrap_or(i64::MAX)))
    }

    /// Copies a range of a file into quarantine, durably, before it is cut.
    pub(crate) fn set_aside_range(
        &self,
        path: &Path,
        from: Position,
        to: Position,
        why: &str,
    ) -> Result<Aside, QuarantineError> {
        let storage = self.storage.as_ref();
        self.with_reserve(
            || self.quarantine.set_aside_range(storage, path, from, to, why, self.now()),
            |error| is_full(&error.source),
        )
        .map(|aside| report(path, why, aside))
    }

    /// Moves a file into quarantine, durably.
    pub(crate) fn set_aside_file(&self, path: &Path, why: &str) -> Result<Aside, QuarantineError> {
        let storage = self.storage.as_ref();
        self.with_reserve(
            || self.quarantine.set_aside_file(storage, path, why, self.now()),
            |error| is_full(&error.source),
        )
        .map(|aside| report(path, why, aside))
    }

    /// Does something that must succeed on a full disk too: if there is no room, once more with the room of
    /// the reserve, whoever gave it since.
    pub(crate) fn with_reserve<T, E>(
        &self,
        attempt: impl Fn() -> Result<T, E>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let given = self.room.given();
        match attempt() {
            Err(error) if is_full(&error) && self.room.give_reserve(self, given) => attempt(),
            done => done,
        }
    }
}

fn report(path: &Path, why: &str, aside: SetAside) -> Aside {
    let piece = aside.path;
    tracing::warn!(path = %path.display(), aside = %piece.display(), bytes = aside.bytes, "set aside: {why}");
    for evicted in &aside.evicted {
        tracing::warn!(path = %evicted.path.display(), bytes = evicted.bytes, cause = ?evicted.cause, "left quarantine");
    }
    Aside { from: path.to_path_buf(), piece, bytes: aside.bytes }
}
