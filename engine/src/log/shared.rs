//! What the writer and the readers of a log share: how far it has come, and its segments.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use tidelog_wire::ids::{Chain, LogId, Offset, TimestampMs};

use super::damage::{Damage, Hole};
use super::error::{AppendError, ReadError};
use super::locate::Hints;
use super::reader::Visible;
use super::segments::Segments;
use super::watch::Watch;
use crate::core::{Core, Mode};
use crate::locks::atomic::{AtomicBool, Ordering};
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError};
use crate::segment::state::{SegmentEvent, SegmentState};
use crate::segment::summary::Summary;
use crate::segment::{self, LogTag};
use crate::storage::{File, Position};

/// One segment of an open log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    /// The log's directory.
    dir: Arc<PathBuf>,
    facts: Mutex<SegmentFacts>,
}

/// What is known of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nobody has looked at it: its facts are what its name and its successor's say.
    Due,
    /// It was looked at and cannot be used now, which was reported. The next one who wants it looks again.
    Refused,
    /// The facts are the file's.
    Done,
}

/// What changes about a segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFacts {
    pub(crate) look: Look,
    pub(crate) state: SegmentState,
    /// Offset behind its last record.
    pub(crate) end: Offset,
    /// Where its frames end.
    pub(crate) end_position: Position,
    /// Largest record timestamp of a segment that takes no more frames, where it is known without reading
    /// them. Of one that grows the summary says it.
    pub(crate) max_timestamp: Option<TimestampMs>,
    /// The frames summed up. `None`: nobody needed it yet, or the index in the file says the same.
    pub(crate) summary: Option<Box<Summary>>,
    /// The handle that wrote what is not synced yet.
    pub(crate) unsynced: Option<Arc<dyn File>>,
    /// Counts the writes, so that a sync knows whether it covered the last one.
    pub(crate) writes: u64,
    /// How far the file is known durable (embedded).
    pub(crate) synced_to: Position,
}

impl Segment {
    pub(crate) fn new(base: Offset, dir: &Arc<PathBuf>, facts: SegmentFacts) -> Self {
        Self { base, dir: Arc::clone(dir), facts: Mutex::new(facts) }
    }

    /// Its file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(segment::file_name(self.base))
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, SegmentFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentFacts {
    /// Of a segment whose frames end at `end_position`.
    pub(crate) const fn known(
        state: SegmentState,
        end: Offset,
        end_position: Position,
        max_timestamp: Option<TimestampMs>,
    ) -> Self {
        Self {
            look: Look::Done,
            state,
            end,
            end_position,
            max_timestamp,
            summary: None,
            unsynced: None,
            writes: 0,
            synced_to: Position::ZERO,
        }
    }

    /// Of a segment below the mark that nobody has looked at. `end`: where the next one begins.
    pub(crate) fn unseen(end: Offset) -> Self {
        Self { look: Look::Due, ..Self::known(SegmentState::Sealed, end, Position::ZERO, None) }
    }

    /// Moves on in the state machine.
    ///
    /// # Panics
    /// If `event` cannot happen in the present state: a bug in the engine.
    pub(crate) fn apply(&mut self, event: SegmentEvent) {
        let next = self.state.after(event);
        assert!(next.is_some(), "{event:?} in state {:?}", self.state);
        self.state = next.unwrap_or(SegmentState::Fenced);
    }
}

/// How far a log has come.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// Everything below is durable.
    pub(crate) durable_end: Offset,
    /// Chain up to `end`.
    pub(crate) chain: Chain,
    pub(crate) segments: Segments,
    /// Why nothing comes any more.
    pub(crate) ended: Option<Ended>,
}

/// How this opening of a log came to its end. Its handles are of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The log is gone.
    Removed,
    /// It was closed and has been opened again since.
    Reopened,
}

impl View {
    /// The segment that would hold `offset`, if there is one that begins at or below it.
    pub(crate) fn segment_for(&mut self, offset: Offset) -> Option<Arc<Segment>> {
        self.segments.at_or_below(offset, self.end)
    }

    /// The base of the first segment above `offset`, or the end of the log.
    pub(crate) fn next_base(&self, offset: Offset) -> Offset {
        self.segments.next_base(offset).unwrap_or(self.end)
    }
}

/// A log, seen by its writer and its readers.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(crate) id: LogId,
    pub(crate) tag: LogTag,
    pub(crate) path: Arc<PathBuf>,
    pub(crate) core: Arc<Core>,
    /// The number of this opening: see `crate::log::lives`.
    pub(crate) life: u64,
    pub(crate) watch: Arc<Watch>,
    pub(crate) hints: Hints,
    view: Mutex<View>,
    damage: Mutex<Damage>,
    fenced: AtomicBool,
    removed: AtomicBool,
    dir: Mutex<DirSync>,
    syncing: Mutex<()>,
    /// Held by whoever writes to a segment below the mark, or sets one aside.
    mending: Mutex<()>,
}

impl Drop for LogShared {
    fn drop(&mut self) {
        self.core.lives.left(self);
    }
}

/// Counts the files created in the log's directory, and those whose names are durable.
#[derive(Clone, Copy, Debug, Default)]
struct DirSync {
    created: u64,
    durable: u64,
}

impl LogShared {
    pub(crate) fn new(core: Arc<Core>, id: LogId, view: View, damage: Damage) -> Self {
        Self {
            id,
            tag: LogTag::of(core.identity.cluster, id),
            path: Arc::clone(view.segments.dir()),
            life: core.lives.number(),
            core,
            watch: Arc::default(),
            hints: Hints::default(),
            view: Mutex::new(view),
            damage: Mutex::new(damage),
            fenced: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            dir: Mutex::default(),
            syncing: Mutex::default(),
            mending: Mutex::default(),
        }
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer has made more visible. Those who wait for it are told at once, embedded when the call ends: its writer is
    /// under a lock then, and they may ask for it.
    pub(crate) fn grown(&self, visible: Visible, end: Offset) {
        match self.core.mode {
            Mode::Consensus => self.watch.advanced(visible, end),
            Mode::Embedded => self.watch.due(visible, end),
        }
    }

    /// Ends this opening: its readers are told, whether they read or wait, and to a log that was removed
    /// nothing is written any more. Sync jobs go on: what was appended may still be waited for.
    pub(crate) fn end(&self, how: Ended) {
        self.view().ended = Some(how);
        self.removed.store(how == Ended::Removed, Ordering::Release);
        self.watch.end();
    }

    /// Refuses a reader whose opening has ended.
    pub(crate) fn not_ended(&self, view: &View) -> Result<(), ReadError> {
        match view.ended {
            None => Ok(()),
            Some(Ended::Removed) => Err(ReadError::Removed { log: self.id }),
            Some(Ended::Reopened) => Err(ReadError::Reopened { log: self.id }),
        }
    }

    /// Whether the log was removed.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Refuses a write to a log that has failed or was removed.
    pub(crate) fn takes_writes(&self) -> Result<(), AppendError> {
        if self.is_removed() {
            return Err(AppendError::Removed { log: self.id });
        }
        if self.is_fenced() {
            return Err(AppendError::Fenced { log: self.id });
        }
        Ok(())
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Refuses writes from now on.
    pub(crate) fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    /// Held from the look at the fence, over the syncs, until their outcome is known to all. A kernel
    /// tells one caller only that bytes were lost: a second sync at the same time may hear that all is
    /// well, and must not act upon that before the first has fenced. Taken before any other lock here.
    pub(crate) fn syncing(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a segment below the mark is mended, so that one does it. Taken before any other lock here.
    pub(crate) fn mending(&self) -> MutexGuard<'_, ()> {
        self.mending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file was created: its name is durable only after a sync of the directory.
    pub(crate) fn file_created(&self) {
        let mut dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        dir.created = dir.created.wrapping_add(1);
    }

    /// Whether names in the directory are not durable yet.
    pub(crate) fn dir_dirty(&self) -> bool {
        let dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        dir.created != dir.durable
    }

    /// Makes the names of the files created so far durable, if they are not.
    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        let created = {
            let dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
            if dir.created == dir.durable {
                return Ok(());
            }
            dir.created
        };
        self.core.storage.sync_dir(&self.path)?;
        let mut dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        dir.durable = dir.durable.max(created);
        Ok(())
    }

    pub(crate) fn mark_damaged(&self, range: Range<Offset>) {
        let news = self.damage.lock().unwrap_or_else(PoisonError::into_inner).mark(range.clone());
        if news {
            tracing::error!(log = %self.id, start = %range.start, end = %range.end, "offsets are damaged on this node");
        }
    }

    /// The same for a hole in a segment, unless `said` tells why the disk did not give its bytes: that may pass, and a
    /// mark would not.
    pub(crate) fn mark_hole(&self, hole: &Hole, said: Option<&str>) {
        let range = &hole.offsets;
        match said {
            None => self.mark_damaged(range.clone()),
            Some(said) => {
                tracing::warn!(log = %self.id, start = %range.start, end = %range.end, said, "the disk does not give these offsets");
            }
        }
    }

    pub(crate) fn damage_at(&self, offset: Offset) -> Option<Range<Offset>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).at(offset)
    }

    pub(crate) fn damage(&self) -> Vec<Range<Offset>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).ranges()
    }

    pub(crate) fn forget_damage_below(&self, start: Offset) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).forget_below(start);
    }
}
