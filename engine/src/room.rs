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

use std::io::ErrorKind;
use std::path::Path;

use crate::core::Core;
use crate::locks::{Mutex, PoisonError};
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
    held: Mutex<bool>,
}

impl Room {
    pub(crate) const fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, held: Mutex::new(false) }
    }

    /// Looks how much room there is, and takes the reserve again if there is enough.
    pub(crate) fn look(&self, core: &Core) -> DiskRoom {
        let free_bytes = match core.storage.free_bytes(&core.data_dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how much room the disk has");
                u64::MAX
            }
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !*held {
            let room_for_it = free_bytes >= self.reserve_bytes.saturating_mul(2);
            let (storage, dir) = (core.storage.as_ref(), core.data_dir.as_path());
            *held = self.is_there(storage, dir) || (room_for_it && self.take(storage, dir));
        }
        let refuses_writes = self.reserve_bytes > 0 && (!*held || free_bytes < self.reserve_bytes / 8);
        DiskRoom { free_bytes, reserve_held: *held, refuses_writes }
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

    /// Gives the reserve away to whoever found the disk full. Says whether there was any.
    pub(crate) fn give_reserve(&self, core: &Core) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !*held || self.reserve_bytes == 0 {
            return false;
        }
        *held = false;
        match core.storage.remove(&core.data_dir.join("reserve")) {
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
