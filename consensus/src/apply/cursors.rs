//! Cursors: named positions of a log, kept by the group that carries it.
//!
//! A cursor belongs to one generation: it goes when the log is closed, so a name's next life begins without any. A
//! purge moves none. Whoever asks is answered the log's start if that is above the cursor, because what lies below can
//! not be read any more.
//!
//! Shared with readers on other threads; apply alone writes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tidelog_wire::ids::{LogId, Offset, Partition};

use super::catalogue_bytes::ascending;
use super::channel::NAME_BYTES_MAX;
use crate::entry::{FieldReader, FieldWriter, MalformedField};

/// Most cursors of one log.
pub const CURSORS_PER_LOG_MAX: u32 = 1024;
/// Most cursors of one group.
pub const CURSORS_PER_GROUP_MAX: u32 = 65_536;

/// The cursors of one log. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursors {
    by_name: Arc<RwLock<BTreeMap<String, Offset>>>,
}

impl Cursors {
    pub(super) fn of(by_name: BTreeMap<String, Offset>) -> Self {
        Self { by_name: Arc::new(RwLock::new(by_name)) }
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn find(&self, name: &str) -> Option<Offset> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(super) fn all(&self) -> BTreeMap<String, Offset> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, name: String, offset: Offset) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name, offset);
    }

    /// Whether there was one.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

/// All cursors of a group, as its checkpoints keep them: those of logs that have any.
pub(super) type CursorsByLog = BTreeMap<LogId, BTreeMap<String, Offset>>;

pub(super) fn write_cursors(out: &mut FieldWriter, cursors: &CursorsByLog) {
    let all: Vec<(&LogId, &String, &Offset)> = cursors
        .iter()
        .flat_map(|(log, by_name)| by_name.iter().map(move |(name, offset)| (log, name, offset)))
        .collect();
    out.list(&all, super::catalogue_bytes::items(CURSORS_PER_GROUP_MAX), |out, (log, name, offset)| {
        out.log(**log).text(name, NAME_BYTES_MAX).u64(offset.get());
    });
}

pub(super) fn read_cursors(from: &mut FieldReader<'_>) -> Result<CursorsByLog, MalformedField> {
    let max = super::catalogue_bytes::items(CURSORS_PER_GROUP_MAX);
    let all = from.list("cursors", max, 22, |from| {
        Ok((from.log()?, from.text("name", NAME_BYTES_MAX)?, Offset(from.u64("offset")?)))
    })?;
    let key = |(log, name, _): &(LogId, String, Offset)| -> (u64, Partition, String) {
        (log.generation.get(), log.partition, name.clone())
    };
    ascending("cursors", all.iter().map(key))?;
    let mut cursors = CursorsByLog::new();
    for (log, name, offset) in all {
        cursors.entry(log).or_default().insert(name, offset);
    }
    Ok(cursors)
}
