//! What can keep the offline tools from an answer. Damage is not among it: that is an answer.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no answer. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// Nothing of tidelog lies at the path.
    #[error(
        "E0240 {path}: no segments here: name a data directory, its `logs`, the directory of one log, or a `.seg` file"
    )]
    NothingHere {
        /// What was named.
        path: PathBuf,
    },
    /// The system refused.
    #[error(
        "E0241 {path}: cannot {action}: {source}: check the path, its owner and the disk, then repeat the command"
    )]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
}

pub(crate) fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> OfflineError {
    let path = path.to_path_buf();
    move |source| OfflineError::Io { path, action, source }
}
