//! What keeps a run from going on. Not a broken promise: those are findings of the check.

use std::io;
use std::path::PathBuf;

use tidelog_client::ClientError;
use tidelog_tls::TlsError;

use crate::disk::MountError;

/// Why a run ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// A file or folder.
    #[error("{}: cannot be {action}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program does not start.
    #[error("{}: cannot be started: {source}; `cargo xtask chaos` builds it first", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process cannot be signalled or watched.
    #[error("the process of node {node} cannot be signalled: {source}")]
    Signal {
        /// The node.
        node: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A node's process is not there any more, and nobody here ended it.
    #[error("node {node} ended by itself ({status}); its last lines:\n{last_lines}")]
    Ended {
        /// The node.
        node: u64,
        /// How.
        status: String,
        /// The end of its log.
        last_lines: String,
    },
    /// Something did not come about in time.
    #[error("waited {seconds} s in vain until {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// No ports.
    #[error("no free block of ports between {first} and {last}")]
    NoPorts {
        /// The first tried.
        first: u16,
        /// The last tried.
        last: u16,
    },
    /// A command of the cluster's own tools failed.
    #[error("`tidelog {arguments}` failed: {said}")]
    Command {
        /// As it was called.
        arguments: String,
        /// What it said.
        said: String,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A disk cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The proxy.
    #[error("the proxy between the nodes cannot listen: {0}")]
    Proxy(io::Error),
}

impl ChaosError {
    /// Whether it says that the cluster did not do what it promises, rather than that this machine lacks something.
    #[must_use]
    pub const fn is_finding(&self) -> bool {
        match self {
            Self::Ended { .. } | Self::Late { .. } | Self::Client(_) | Self::Command { .. } => true,
            Self::File { .. }
            | Self::Start { .. }
            | Self::Signal { .. }
            | Self::NoPorts { .. }
            | Self::Tls(_)
            | Self::Mount(_)
            | Self::Proxy(_) => false,
        }
    }
}
