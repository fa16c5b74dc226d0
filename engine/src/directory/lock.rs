//! One process owns a data directory: `DATA/lock`.
//!
//! A server holds it from before it reads anything until it exits; tools that write take it too. The
//! system releases it when the process dies, however it dies, so there is no stale lock to remove.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::storage::{DirectoryLock, Storage};

/// Why the lock was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "E0207 {path}: the data directory is in use by another process: stop that one first (`fuser {path}` names \
         it), or name another directory"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The file cannot be opened or locked.
    #[error(
        "E0208 {path}: cannot lock the data directory: {source}: check that it exists and belongs to this user"
    )]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes the data directory for this process; released when the guard is dropped.
///
/// # Errors
/// [`LockError::Held`] if another process has it, [`LockError::Io`] if it cannot be asked.
pub fn take(storage: &dyn Storage, data_dir: &Path) -> Result<Box<dyn DirectoryLock>, LockError> {
    let path = data_dir.join("lock");
    storage.lock(&path).map_err(|source| {
        if source.kind() == ErrorKind::WouldBlock {
            LockError::Held { path }
        } else {
            LockError::Io { path, source }
        }
    })
}
