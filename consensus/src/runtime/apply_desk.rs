//! The desk of apply: whoever learns that entries are committed applies them, if that is quick, else the apply thread does.
//!
//! Quick means: appends, little enough in bytes, each into a segment that has room for it, on a disk that gives no reason for
//! doubt. Everything else may make files, sync or wait, and whoever brought it here may be the task that also reads
//! heartbeats. A disk is in doubt
//! - while a checkpoint is written, since a write may then wait for the same pages,
//! - after it finished no write of the raft log from one tick to the next,
//! - after a write of apply took long,
//!
//! and then until the apply thread has applied some tasks without such a delay.
//!
//! Not here: what is applied and how (`super::apply_thread`), and the lock (`super::desk`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::apply_thread::{ApplyInput, ApplyThread};
use super::desk::{Desk, Waited, Worked};

/// Most bytes of entries that whoever brings them applies at a time.
const HERE_BYTES_MAX: usize = 256 << 10;
/// Rounds that a bringer works, until it calls the apply thread.
const ROUNDS_MAX: u32 = 4;
/// Quick rounds of the apply thread after which the disk is in doubt no more.
const DOUBT_ROUNDS: u32 = 16;

/// What waits for apply, and apply.
#[derive(Debug)]
pub(super) struct ApplyBox {
    desk: Desk<ApplyInput, ApplyThread>,
    /// Rounds until the disk is trusted again.
    doubt: AtomicU32,
    checkpointing: AtomicBool,
}

impl ApplyBox {
    pub(super) fn new() -> Self {
        // What comes here the core has let out, and it bounds that.
        Self { desk: Desk::new(0, 0), doubt: AtomicU32::new(0), checkpointing: AtomicBool::new(false) }
    }

    /// Leaves something for the apply thread.
    pub(super) fn push(&self, input: ApplyInput) {
        self.desk.put(input);
        self.desk.call();
    }

    /// Leaves something, of which [`ApplyBox::work_here`] is to be told once the core's lock is free.
    pub(super) fn put(&self, input: ApplyInput) {
        self.desk.put(input);
    }

    /// Applies what waits, as far as it is quick; the rest is the apply thread's.
    pub(super) fn work_here(&self) {
        let may = |thread: &ApplyThread, items: &[ApplyInput]| self.is_quick(thread, items);
        if self.desk.work_if(ROUNDS_MAX, may, |()| {}) == Worked::Left {
            self.desk.call();
        }
    }

    fn is_quick(&self, thread: &ApplyThread, items: &[ApplyInput]) -> bool {
        if self.is_in_doubt() {
            return false;
        }
        let mut bytes = 0_usize;
        items.iter().all(|item| match item {
            ApplyInput::Apply(task) => {
                let sizes = task.entries.iter().map(|committed| committed.entry.data.len());
                bytes = bytes.saturating_add(sizes.sum());
                bytes <= HERE_BYTES_MAX && thread.is_quick(task)
            }
            ApplyInput::Leads { .. }
            | ApplyInput::Checkpointed(_)
            | ApplyInput::CheckpointFailed(_)
            | ApplyInput::CheckpointSoon(_)
            | ApplyInput::Install(_)
            | ApplyInput::Open(..)
            | ApplyInput::Close(..)
            | ApplyInput::Finish(_)
            | ApplyInput::Round => false,
        })
    }

    fn is_in_doubt(&self) -> bool {
        self.checkpointing.load(Ordering::Relaxed) || self.doubt.load(Ordering::Relaxed) > 0
    }

    /// The disk was slow.
    pub(super) fn doubt_disk(&self) {
        self.doubt.store(DOUBT_ROUNDS, Ordering::Relaxed);
    }

    /// The apply thread has applied something without delay.
    pub(super) fn trust_disk(&self) {
        let less = |doubt: u32| Some(doubt.saturating_sub(1));
        // Always given a new value.
        let _before = self.doubt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Whether a checkpoint is being written.
    pub(super) fn set_checkpointing(&self, checkpointing: bool) {
        self.checkpointing.store(checkpointing, Ordering::Relaxed);
    }

    /// Asks the apply thread to come.
    pub(super) fn call(&self) {
        self.desk.call();
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.desk.close();
    }

    /// The apply thread's life: seats `thread`, then works until the desk is closed, at least every `idle`.
    pub(super) fn serve(&self, thread: ApplyThread, idle: Duration) {
        self.desk.seat(thread);
        let seated = Seated(self);
        while self.desk.wait(idle) == Waited::Open {
            // A round even if nothing waits: checkpoints fall due, and stalled groups are tried again.
            self.desk.put(ApplyInput::Round);
            let worked = self.desk.work(ROUNDS_MAX, |()| {});
            assert!(worked != Worked::Broken, "whoever applied last has panicked");
            if worked == Worked::Left {
                self.desk.call();
            }
        }
        drop(seated);
    }

    /// Everything that waits now.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Vec<ApplyInput> {
        self.desk.taken()
    }

    /// Waits like the apply thread, but takes nothing.
    #[cfg(test)]
    pub(super) fn wait(&self, idle: Duration) -> Waited {
        self.desk.wait(idle)
    }
}

/// Takes apply from its desk at the end of its thread, whatever ended it.
struct Seated<'a>(&'a ApplyBox);

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        drop(self.0.desk.leave());
    }
}
