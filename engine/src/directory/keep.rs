//! Which segment files must stay: nothing that a kept checkpoint or a pin names is unlinked.
//!
//! There is no list of files to delete on disk. What may go is derived: files below the start of
//! their log, and logs that were removed. Both wait here until no kept checkpoint reaches into them,
//! because falling back to that checkpoint would need them again. After a restart the same follows
//! from the checkpoints and the directories.
//!
//! No file is unlinked with the lock held: what goes is noted as going first. Who is about to rely on what files there are
//! (an opening, a pin, an adoption) waits for those in question to be gone; appends, reads, trims and checkpoints wait
//! for none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::{RangeBounds, RangeInclusive};

use tidelog_wire::ids::{GroupId, LogId, Offset};

use crate::checkpoint::{Checkpoint, EntryId};
use crate::core::Core;
use crate::engine::Engine;
use crate::locks::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::segment;
use crate::storage::open_files::SegmentKey;

/// What one kept checkpoint names.
#[derive(Clone, Debug)]
struct Named {
    entry: EntryId,
    logs: BTreeMap<LogId, (Offset, Offset)>,
}

/// What a pin names.
#[derive(Clone, Debug)]
enum Pinned {
    /// Single files.
    Files(Vec<SegmentKey>),
    /// Per log, every file that reaches into this range.
    Ranges(BTreeMap<LogId, (Offset, Offset)>),
}

impl Pinned {
    fn names(&self, (log, base): SegmentKey, end: Offset) -> bool {
        match self {
            Self::Files(keys) => keys.contains(&(log, base)),
            Self::Ranges(logs) => reaches_into(logs, (log, base), end),
        }
    }

    fn names_log(&self, log: LogId) -> bool {
        match self {
            Self::Files(keys) => keys.iter().any(|(pinned, _)| *pinned == log),
            Self::Ranges(logs) => logs.contains_key(&log),
        }
    }
}

/// What a checkpoint names: per log its start and its end.
fn ranges(checkpoint: &Checkpoint) -> BTreeMap<LogId, (Offset, Offset)> {
    checkpoint.logs.iter().map(|log| (log.log, (log.state.start, log.state.end))).collect()
}

fn all_of(log: LogId) -> RangeInclusive<SegmentKey> {
    (log, Offset::ZERO)..=(log, Offset(u64::MAX))
}

fn reaches_into(logs: &BTreeMap<LogId, (Offset, Offset)>, (log, base): SegmentKey, end: Offset) -> bool {
    logs.get(&log).is_some_and(|(start, named_end)| *start < end && base < *named_end)
}

#[derive(Debug, Default)]
struct KeepState {
    /// Per group, newest first.
    named: BTreeMap<GroupId, Vec<Named>>,
    pins: BTreeMap<u64, Pinned>,
    next_pin: u64,
    /// Files that go as soon as nothing names them, with the offset behind their last record.
    doomed: BTreeMap<SegmentKey, Offset>,
    /// Logs found on disk that nobody has opened.
    unopened: BTreeSet<LogId>,
    /// A checkpoint could not be read: what it names is not known.
    blind: bool,
    /// Groups of which a checkpoint may lie on the disk that was not written whole: what it names is not
    /// known to be named by another.
    doubted: BTreeSet<GroupId>,
    /// Files that are being unlinked just now.
    going: BTreeMap<SegmentKey, Offset>,
    /// Somebody outside needs logs that nobody has opened: an installation that is not finished.
    unopened_held: bool,
}

/// What must stay.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    state: Mutex<KeepState>,
    /// Rung when files are gone.
    gone: Condvar,
}

/// Keeps files from being unlinked while it is held.
#[derive(Debug)]
#[must_use = "dropping it gives the files free"]
pub struct Pin {
    core: Arc<Core>,
    number: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.core.keep.state().pins.remove(&self.number);
        self.core.unlink_unnamed();
    }
}

impl Keep {
    fn state(&self) -> MutexGuard<'_, KeepState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once none of the files that `concern` the caller is being unlinked.
    fn without_going(&self, concern: impl Fn(SegmentKey, Offset) -> bool) -> MutexGuard<'_, KeepState> {
        let mut state = self.state();
        while state.going.iter().any(|(key, end)| concern(*key, *end)) {
            state = self.gone.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// A kept checkpoint was found or written. Returns the entries to keep, newest first.
    pub(crate) fn named(&self, checkpoint: &Checkpoint, kept: usize) -> Vec<EntryId> {
        let logs = ranges(checkpoint);
        let mut state = self.state();
        state.doubted.remove(&checkpoint.group);
        let known = state.named.entry(checkpoint.group).or_default();
        known.retain(|named| named.entry != checkpoint.applied);
        known.push(Named { entry: checkpoint.applied, logs });
        known.sort_by_key(|named| Reverse(named.entry));
        known.truncate(kept);
        known.iter().map(|named| named.entry).collect()
    }

    /// The group has no checkpoints any more.
    pub(crate) fn forget(&self, group: GroupId) {
        let mut state = self.state();
        state.named.remove(&group);
        state.doubted.remove(&group);
    }

    /// A checkpoint of the group failed to be written and may be there. Nothing is unlinked until one is.
    pub(crate) fn doubts(&self, group: GroupId) {
        self.state().doubted.insert(group);
    }

    /// A checkpoint could not be read, so logs that nobody opened may still be named by it.
    pub(crate) fn blind(&self) {
        self.state().blind = true;
    }

    /// Whether logs that nobody has opened stay whatever the checkpoints say.
    pub(crate) fn hold_unopened(&self, held: bool) {
        self.state().unopened_held = held;
    }

    /// The kept checkpoints that name `log`.
    pub(crate) fn naming(&self, log: LogId) -> Vec<(GroupId, EntryId)> {
        let state = self.state();
        let groups = state.named.iter();
        groups
            .flat_map(|(group, known)| known.iter().map(|named| (*group, named)))
            .filter(|(_, named)| named.logs.contains_key(&log))
            .map(|(group, named)| (group, named.entry))
            .collect()
    }

    pub(crate) fn found_on_disk(&self, logs: &[LogId]) {
        self.state().unopened.extend(logs);
    }

    /// The log is being opened: its files from `start` on stay.
    pub(crate) fn opened(&self, log: LogId) {
        let mut state = self.without_going(|(going, _), _| going == log);
        state.unopened.remove(&log);
        let of_log: Vec<SegmentKey> = state.doomed.range(all_of(log)).map(|(key, _)| *key).collect();
        for key in of_log {
            state.doomed.remove(&key);
        }
    }

    /// Files to unlink when nothing names them: base and end of each.
    pub(crate) fn doom(&self, log: LogId, files: &[(Offset, Offset)]) {
        let mut state = self.state();
        state.doomed.extend(files.iter().map(|(base, end)| ((log, *base), *end)));
    }

    /// These files are in use again, and their logs are no longer without anybody who knows them.
    pub(crate) fn spare(&self, keys: &[SegmentKey]) {
        let mut state = self.without_going(|going, _| keys.contains(&going));
        for key in keys {
            state.doomed.remove(key);
            state.unopened.remove(&key.0);
        }
    }

    fn pin(&self, pinned: Pinned) -> u64 {
        let mut state = self.without_going(|going, end| pinned.names(going, end));
        let number = state.next_pin;
        state.next_pin = number.wrapping_add(1);
        state.pins.insert(number, pinned);
        number
    }

    /// Logs on disk that neither were opened nor are named by a kept checkpoint or a pin. Empty when
    /// that cannot be known.
    pub(crate) fn orphans(&self) -> Vec<LogId> {
        let state = self.state();
        state.unopened.iter().filter(|log| state.is_orphan(**log)).copied().collect()
    }

    /// Takes what may go and is named by nothing. Whoever takes it unlinks it and says so, file by file. What somebody else
    /// is unlinking is left to them: of one name there may be another file by the time that a second one comes to it.
    fn take_due(&self, keys: impl RangeBounds<SegmentKey>) -> Due<'_> {
        let mut state = self.state();
        let due: Vec<(SegmentKey, Offset)> = state
            .doomed
            .range(keys)
            .filter(|(key, end)| !state.going.contains_key(*key) && !state.must_stay(**key, **end))
            .map(|(key, end)| (*key, *end))
            .collect();
        for (key, end) in &due {
            state.doomed.remove(key);
            state.going.insert(*key, *end);
        }
        Due { keep: self, files: due }
    }

    /// A file that was taken is gone; or it stays, and ends at an offset, and is to be tried again.
    fn went(&self, key: SegmentKey, stays: Option<Offset>) {
        let mut state = self.state();
        state.going.remove(&key);
        if let Some(end) = stays {
            state.doomed.insert(key, end);
        }
        drop(state);
        self.gone.notify_all();
    }

    /// The same as [`Keep::doom`] if the log is an orphan still: whoever opens it says so here first, and
    /// finds either all its files or those that were left, but none goes while it looks.
    pub(crate) fn doom_orphan(&self, log: LogId, files: &[(Offset, Offset)]) {
        let mut state = self.state();
        if state.is_orphan(log) {
            state.doomed.extend(files.iter().map(|(base, end)| ((log, *base), *end)));
        }
    }
}

/// Files that were taken and are to be unlinked. Those that are left when it is dropped, by a panic, stay.
struct Due<'a> {
    keep: &'a Keep,
    files: Vec<(SegmentKey, Offset)>,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        for (key, end) in self.files.drain(..) {
            self.keep.went(key, Some(end));
        }
    }
}

impl KeepState {
    fn is_orphan(&self, log: LogId) -> bool {
        let named = || self.named.values().flatten().any(|named| named.logs.contains_key(&log));
        let pinned = || self.pins.values().any(|pinned| pinned.names_log(log));
        let known = !self.blind && !self.unopened_held;
        known && self.unopened.contains(&log) && !named() && !pinned()
    }

    fn must_stay(&self, key: SegmentKey, end: Offset) -> bool {
        !self.doubted.is_empty()
            || self.named.values().flatten().any(|named| reaches_into(&named.logs, key, end))
            || self.pins.values().any(|pinned| pinned.names(key, end))
    }
}

impl Engine {
    /// Keeps every file that `checkpoint` names from being unlinked while the pin is held. For one that is
    /// not written yet: a trim meanwhile would take files that it will name.
    pub fn pin_checkpoint(&self, checkpoint: &Checkpoint) -> Pin {
        let number = self.core.keep.pin(Pinned::Ranges(ranges(checkpoint)));
        Pin { core: Arc::clone(&self.core), number }
    }
}

impl Core {
    /// Keeps files from being unlinked until the pin is dropped.
    pub(crate) fn pin(self: &Arc<Self>, keys: Vec<SegmentKey>) -> Pin {
        let number = self.keep.pin(Pinned::Files(keys));
        Pin { core: Arc::clone(self), number }
    }

    /// Unlinks what may go and is named by nothing. A file that cannot be unlinked waits for the next
    /// time: it costs space and nothing else.
    pub(crate) fn unlink_unnamed(&self) {
        self.unlink_among(..);
    }

    /// The same, of one log: many that are opened do not each go through the files of all.
    pub(crate) fn unlink_unnamed_of(&self, log: LogId) {
        self.unlink_among(all_of(log));
    }

    fn unlink_among(&self, keys: impl RangeBounds<SegmentKey>) {
        let mut due = self.keep.take_due(keys);
        let mut touched = BTreeSet::new();
        while let Some((key, end)) = due.files.last().copied() {
            let path = self.log_dir(key.0).join(segment::file_name(key.1));
            let outcome = self.storage.remove(&path);
            match &outcome {
                Ok(()) => tracing::debug!(path = %path.display(), "unlinked a segment"),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot unlink a segment; trying again later");
                }
            }
            let stays = outcome.is_err_and(|error| error.kind() != ErrorKind::NotFound);
            if !stays {
                self.open_files.close(key);
                touched.insert(key.0);
            }
            due.files.pop();
            self.keep.went(key, stays.then_some(end));
        }
        for log in touched {
            self.remove_empty_dirs(log);
        }
    }

    /// Removes the directories of a log that is gone, as far as they are empty. Nobody opens a log
    /// meanwhile, who would make them.
    pub(crate) fn remove_empty_dirs(&self, log: LogId) {
        self.lives.unless_taken(log, |generation_is_free| {
            let dirs = [self.log_dir(log), self.generation_dir(log)];
            // Another log of the generation may be about to make its directory in it.
            for dir in dirs.into_iter().take(if generation_is_free { 2 } else { 1 }) {
                if let Err(error) = self.storage.remove_dir(&dir) {
                    tracing::trace!(path = %dir.display(), %error, "the directory stays");
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    /// The story: two installations were cut short. Finishing the first wrote a checkpoint, which took the
    /// files that the second had put in place for those of a log that nobody knows.
    #[test]
    fn unopened_logs_stay_while_they_are_held() {
        let log = LogId { generation: Generation(7), partition: Partition(0) };
        let keep = Keep::default();
        keep.found_on_disk(&[log]);
        keep.hold_unopened(true);
        assert!(keep.orphans().is_empty());
        keep.hold_unopened(false);
        assert_eq!(keep.orphans(), [log]);
    }

    /// The story: a trim was slow on a list of files. Meanwhile a removal doomed one of them again, unlinked it and let the
    /// log be opened anew; the trim came to that name and unlinked the file of the new opening.
    #[test]
    fn a_file_that_somebody_is_unlinking_is_not_taken_again() {
        let log = LogId { generation: Generation(7), partition: Partition(0) };
        let keep = Keep::default();
        let file = (Offset(0), Offset(5));
        keep.doom(log, &[file]);
        let mut first = keep.take_due(..);
        keep.doom(log, &[file]);
        assert!(keep.take_due(..).files.is_empty(), "the first has not come to it yet");
        assert_eq!(first.files.pop(), Some(((log, file.0), file.1)));
        keep.went((log, file.0), None);
        let again = keep.take_due(..).files.len();
        assert_eq!(again, 1, "doomed again, so it is looked for again");
        keep.opened(log);
        assert!(keep.take_due(..).files.is_empty(), "not once the log is opened");
    }

    /// Whoever opened the log waited for ever when a panic had ended an unlinking half way.
    #[test]
    fn files_that_a_panic_left_are_not_on_their_way_any_more() {
        let log = LogId { generation: Generation(7), partition: Partition(0) };
        let keep = Keep::default();
        keep.doom(log, &[(Offset(0), Offset(5))]);
        drop(keep.take_due(..));
        keep.opened(log);
        assert!(keep.state().going.is_empty());
    }
}
