//! Frames of an earlier run above the checkpoint: compared when their entries are applied again.
//!
//! Recovery verified each of them: checksums, offsets, chain. The chain hashes the whole history, so
//! a header that is equal byte for byte, raft index included, stands for equal batches.

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;

use tidelog_wire::ids::{Offset, RaftIndex};

use super::error::is_out_of_handles;
use super::error::{LogError, OutOfHandles};
use super::plan::Planned;
use super::recovery::report::LogRecovery;
use super::shared::{LogShared, Segment};
use crate::fields::wide;
use crate::locks::Arc;
use crate::segment::frame::FRAME_HEADER_BYTES;
use crate::segment::{self};
use crate::storage::{File, Position};

/// A verified frame that waits for its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) base: Offset,
    pub(crate) position: Position,
    pub(crate) raft_index: RaftIndex,
    pub(crate) header: [u8; FRAME_HEADER_BYTES],
}

/// What recovery kept above the checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    frames: VecDeque<Kept>,
    files: BTreeSet<Offset>,
    /// Frames that were compared and are the same, since that was last reported.
    same: u64,
}

impl Replay {
    pub(crate) fn keep(&mut self, kept: Kept) {
        self.files.insert(kept.base);
        self.frames.push_back(kept);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn has_file(&self, base: Offset) -> bool {
        self.files.contains(&base)
    }

    pub(crate) fn last_index(&self) -> Option<RaftIndex> {
        self.frames.back().map(|kept| kept.raft_index)
    }

    /// Whether the next kept frame is `planned`; if so it waits no longer.
    pub(crate) fn matches(&mut self, base: Offset, planned: &Planned) -> bool {
        let same = self.frames.front().is_some_and(|kept| {
            kept.base == base && kept.position == planned.position && kept.header == planned.header.encode()
        });
        if same {
            self.frames.pop_front();
            self.same = self.same.saturating_add(1);
        }
        same
    }

    /// Reports what was compared, once nothing waits any more.
    pub(crate) fn settle(&mut self, log: &LogShared) {
        if self.frames.is_empty() && self.same > 0 {
            let mut late = LogRecovery::new(log.id);
            late.replayed_frames = std::mem::take(&mut self.same);
            log.core.found_late(late);
        }
    }

    /// Sets aside and cuts everything that still waits: what is applied now differs from it.
    pub(crate) fn cut(
        &mut self,
        log: &LogShared,
        active: Option<(Arc<Segment>, Arc<dyn File>)>,
        position: Position,
    ) -> Result<(), LogError> {
        let core = &log.core;
        let mut late = LogRecovery::new(log.id);
        late.differing_frames = wide(self.frames.len());
        let why = "frames of an earlier run differ from the entries that are applied now";
        tracing::warn!(log = %log.id, frames = self.frames.len(), "{why}; setting them aside");
        let active_base = active.as_ref().map(|(segment, _)| segment.base);
        if let Some((segment, file)) = active
            && self.files.contains(&segment.base)
        {
            let io = |action| {
                let path = segment.path();
                move |source| LogError::Io { path, action, source }
            };
            let aside = core.set_aside_range(&segment.path(), position, Position(u64::MAX), why)?;
            late.cut_bytes = aside.bytes;
            late.put_aside(aside);
            file.truncate(position.get()).map_err(io("cut frames of an earlier run"))?;
            file.sync().map_err(io("sync after the cut"))?;
            core.open_files.close((log.id, segment.base));
        }
        let later: Vec<Offset> = self
            .files
            .iter()
            .copied()
            .filter(|base| active_base.is_none_or(|active| *base > active))
            .collect();
        for base in later {
            let path = log.path.join(segment::file_name(base));
            match core.storage.open(&path, crate::storage::OpenMode::Read) {
                Ok(_) => late.put_aside(core.set_aside_file(&path, why)?),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) if is_out_of_handles(&source) => return Err(OutOfHandles { path, source }.into()),
                Err(source) => return Err(LogError::Io { path, action: "open a later segment", source }),
            }
        }
        self.frames.clear();
        self.files.clear();
        core.found_late(late);
        Ok(())
    }
}
