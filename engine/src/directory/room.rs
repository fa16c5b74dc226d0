//! Room on the disk: a reserve is kept, so that a full disk can still be trimmed and recovered.
//!
//! `DATA/reserve` holds some MiB. When something that must go on finds the disk full (the rest of a batch,
//! a new segment, a checkpoint, a piece for quarantine, the identity at a start) the reserve is given away
//! and it is tried once more; new appends are to be refused from then on. As soon as there is room for
//! twice the reserve it is taken again, and writes resume by themselves. A reserve that an earlier run left
//! is held as it is.
//!
//! A crash may leave a file of the full length that takes no room. So the reserve is filled with zeros,
//! synced, and only then marked in its first bytes; without the mark it is filled again from the start.
//!
//! To take it again is to write and sync all of it, for which no append of an embedded log should wait. So appends go on
//! without it as soon as there is room for twice the reserve: less is as if it were still in use. Whoever trims, is
//! idle or asks for the room takes it. Only where the system says that there is room and the disk was full all the same, as
//! with a quota, an append takes it first: nothing else can tell how far that room goes.
//!
//! Several may find the disk full at once. One gives the reserve, and all of them try once more: it is counted
//! how often it was given, so that each can tell whether that was since it began.

use std::io::ErrorKind;
use std::path::Path;

use crate::core::Core;
use crate::locks::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::locks::{Mutex, PoisonError, TryLockError};
use crate::storage::{OpenMode, Position, Storage};

/// Bytes that mark the reserve as whole.
const MARK_BYTES: usize = 16;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes free to this process.
    pub free_bytes: u64,
    /// Whether the reserve is there.
    pub reserve_held: bool,
    /// New appends are to be refused; reads, trims and deletes go on.
    pub refuses_writes: bool,
}

/// Gives the reserve away before there is an engine to hold it. Says whether there was any.
pub(crate) fn give_away(storage: &dyn Storage, data_dir: &Path) -> bool {
    let given = storage.remove(&data_dir.join("reserve")).is_ok();
    if given {
        tracing::error!("the disk is full: the reserve is in use to start at all");
    }
    given
}

#[derive(Debug)]
pub(crate) struct Room {
    reserve_bytes: u64,
    /// Changed only with `changing` held.
    held: AtomicBool,
    /// How often it was given.
    given: AtomicU64,
    /// What the system says of free bytes was wrong when the reserve was given.
    misled: AtomicBool,
    changing: Mutex<()>,
}

impl Room {
    pub(crate) const fn new(reserve_bytes: u64) -> Self {
        Self {
            reserve_bytes,
            held: AtomicBool::new(false),
            given: AtomicU64::new(0),
            misled: AtomicBool::new(false),
            changing: Mutex::new(()),
        }
    }

    /// Whether the reserve is there, so that what may wait may write. Asks nobody: for every append.
    pub(crate) fn holds(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// How often the reserve was given until now.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    /// Takes the reserve again if it is not there and there is room for it.
    pub(crate) fn take_back(&self, core: &Core) {
        if !self.holds() {
            self.look(core);
        }
    }

    /// Looks how much room there is, without waiting for the reserve if that can be helped.
    pub(crate) fn look_for_append(&self, core: &Core) -> DiskRoom {
        let held = self.holds();
        if held || self.misled.load(Ordering::Acquire) {
            return self.look(core);
        }
        let free_bytes = free_bytes(core);
        let refuses_writes = self.reserve_bytes > 0 && free_bytes < self.reserve_bytes.saturating_mul(2);
        DiskRoom { free_bytes, reserve_held: held, refuses_writes }
    }

    /// Looks how much room there is, and takes the reserve again if there is enough.
    pub(crate) fn look(&self, core: &Core) -> DiskRoom {
        let free_bytes = free_bytes(core);
        // Not while another takes or gives it: that may take a while, and until then there is none.
        let changing = match self.changing.try_lock() {
            Ok(changing) => Some(changing),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if changing.is_some() && !self.holds() {
            let room_for_it = free_bytes >= self.reserve_bytes.saturating_mul(2);
            let (storage, dir) = (core.storage.as_ref(), core.data_dir.as_path());
            let held = self.is_there(storage, dir) || (room_for_it && self.take(storage, dir));
            self.held.store(held, Ordering::Release);
        }
        drop(changing);
        let reserve_held = self.holds();
        let refuses_writes = self.reserve_bytes > 0 && (!reserve_held || free_bytes < self.reserve_bytes / 8);
        DiskRoom { free_bytes, reserve_held, refuses_writes }
    }

    /// Whether an earlier run has taken the reserve whole. Its room is its own, however little is free.
    fn is_there(&self, storage: &dyn Storage, dir: &Path) -> bool {
        let mut found = [0; MARK_BYTES];
        let read = storage.open(&dir.join("reserve"), OpenMode::Read).and_then(|file| {
            file.read_at(Position::ZERO, &mut found)?;
            file.len()
        });
        self.reserve_bytes > 0 && read.is_ok_and(|len| len >= self.reserve_bytes && found == self.mark())
    }

    /// What the reserve begins with once all of it takes room.
    fn mark(&self) -> [u8; MARK_BYTES] {
        let mut mark = *b"tlreserv\0\0\0\0\0\0\0\0";
        for (to, from) in mark.iter_mut().skip(8).zip(self.reserve_bytes.to_le_bytes()) {
            *to = from;
        }
        mark
    }

    fn take(&self, storage: &dyn Storage, dir: &Path) -> bool {
        if self.reserve_bytes == 0 {
            return true;
        }
        let path = dir.join("reserve");
        let file = match storage.open(&path, OpenMode::CreateNew) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                storage.open(&path, OpenMode::ReadWrite)
            }
            opened => opened,
        };
        let filled = file.and_then(|file| {
            file.prefill(Position::ZERO, self.reserve_bytes)?;
            file.sync()?;
            file.write_at(Position::ZERO, &[&self.mark()])?;
            file.sync()?;
            storage.sync_dir(dir)
        });
        if let Err(error) = &filled {
            tracing::warn!(%error, "cannot take the disk reserve");
        }
        filled.is_ok()
    }

    /// Gives the reserve away to whoever found the disk full. Says whether that, or another who did so since it
    /// had been given `before` times, made room.
    pub(crate) fn give_reserve(&self, core: &Core, before: u64) -> bool {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.given() != before {
            return true;
        }
        if !self.holds() || self.reserve_bytes == 0 {
            return false;
        }
        let misled = free_bytes(core) >= self.reserve_bytes.saturating_mul(2);
        self.misled.store(misled, Ordering::Release);
        // First of all, so that nobody takes the room who may wait.
        self.held.store(false, Ordering::Release);
        let removed = core.storage.remove(&core.data_dir.join("reserve"));
        if removed.is_ok() {
            self.given.fetch_add(1, Ordering::AcqRel);
        }
        drop(changing);
        match removed {
            Ok(()) => {
                tracing::error!(
                    "the disk is full: the reserve is in use; new appends are refused until there is room"
                );
                true
            }
            Err(error) => {
                tracing::error!(%error, "the disk is full and the reserve cannot be given");
                false
            }
        }
    }
}

/// Bytes free to this process; all there are if nobody says.
fn free_bytes(core: &Core) -> u64 {
    core.storage.free_bytes(&core.data_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot tell how much room the disk has");
        u64::MAX
    })
}

#[cfg(all(test, not(feature = "interleave")))]
mod tests {
    use std::cell::Cell;
    use std::io;

    use tidelog_wire::ids::{ClusterId, Incarnation, NodeId, TimestampMs};

    use super::*;
    use crate::log::error::is_full;
    use crate::storage::sim_disk::SimDisk;
    use crate::{Engine, NewIdentity, Options};

    /// Eight logs found the disk full at once. The first gave the reserve; the others heard that there was
    /// none left to give, and did not open although there was room by then.
    #[test]
    fn who_found_the_disk_full_tries_again_also_when_another_gave_the_reserve() {
        let disk = SimDisk::new(7);
        let dir = Path::new("/data");
        let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
        Engine::format(&disk.storage(), dir, new).unwrap();
        let options = Options { reserve_bytes: 1 << 20, ..Options::embedded(TimestampMs(1)) };
        let engine = Engine::open(disk.storage(), dir, options).unwrap();
        let core = engine.core.as_ref();
        let full = || Err(io::Error::from(ErrorKind::StorageFull));
        let attempts = Cell::new(0);
        let outcome = core.with_reserve(
            || {
                attempts.set(attempts.get() + 1);
                if attempts.get() > 1 {
                    return Ok(());
                }
                core.with_reserve(full, is_full).expect_err("it gives the reserve, and there is no room yet");
                full()
            },
            is_full,
        );
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!((attempts.get(), core.room.given(), core.room.holds()), (2, 1, false));
        // Whoever begins later has nothing to hope for.
        attempts.set(0);
        let count = || {
            attempts.set(attempts.get() + 1);
            full()
        };
        core.with_reserve(count, is_full).unwrap_err();
        assert_eq!(attempts.get(), 1);
    }
}
