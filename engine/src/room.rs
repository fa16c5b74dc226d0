//! Room on the disk: a reserve is kept, so that a full disk can still be trimmed and recovered.
//!
//! `DATA/reserve` holds some MiB. When a write finds the disk full the reserve is given away, so
//! that what was committed can still be applied and checkpoints written; new appends are to be
//! refused from then on. As soon as there is room for twice the reserve it is taken again, and
//! writes resume by themselves. A reserve that an earlier run left is held as it is.

use std::io::ErrorKind;
use std::path::Path;

use crate::core::Core;
use crate::locks::{Mutex, PoisonError};
use crate::storage::{OpenMode, Position, Storage};

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
            *held = self.is_there(core) || (room_for_it && self.take(core));
        }
        let refuses_writes = self.reserve_bytes > 0 && (!*held || free_bytes < self.reserve_bytes / 8);
        DiskRoom { free_bytes, reserve_held: *held, refuses_writes }
    }

    /// Whether an earlier run has taken the reserve whole. Its room is its own, however little is free.
    fn is_there(&self, core: &Core) -> bool {
        let len =
            core.storage.open(&core.data_dir.join("reserve"), OpenMode::Read).and_then(|file| file.len());
        self.reserve_bytes > 0 && len.is_ok_and(|len| len >= self.reserve_bytes)
    }

    fn take(&self, core: &Core) -> bool {
        if self.reserve_bytes == 0 {
            return true;
        }
        let path = core.data_dir.join("reserve");
        let file = match core.storage.open(&path, OpenMode::CreateNew) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                core.storage.open(&path, OpenMode::ReadWrite)
            }
            opened => opened,
        };
        let filled = file.and_then(|file| {
            let len = file.len()?;
            if len < self.reserve_bytes {
                file.prefill(Position(len), self.reserve_bytes.saturating_sub(len))?;
            }
            Ok(())
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
        let path = core.data_dir.join("reserve");
        match core.storage.remove(&path) {
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
