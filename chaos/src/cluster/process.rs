//! One node's process.

#![expect(clippy::disallowed_methods, reason = "opens the file that a node's process logs to")]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Begin;
use crate::error::ChaosError;

/// What is sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SIGKILL: it is gone at once.
    Kill,
    /// SIGTERM: it hands over, syncs and ends.
    Terminate,
    /// SIGSTOP: it is there and does nothing.
    Pause,
    /// SIGCONT: it goes on.
    Continue,
}

/// A node's process. Dropped, it is killed.
#[derive(Debug)]
pub struct Node {
    node: u64,
    child: Child,
}

impl Node {
    /// Starts `server` in `folder`, where its configuration lies.
    pub(super) fn start(node: u64, server: &Path, folder: &Path, begin: Begin) -> Result<Self, ChaosError> {
        let path = folder.join("log");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| ChaosError::File { path, action: "opened", source })?;
        let failed = |source| ChaosError::Start { path: server.to_owned(), source };
        let more: &[&str] = match begin {
            Begin::Bootstrap => &["--bootstrap"],
            Begin::Join => &["--join"],
            Begin::Resume => &[],
        };
        let child = Command::new(server)
            .args(["--config", "config.toml"])
            .args(more)
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { node, child })
    }

    /// Its number, while it is there.
    pub(super) fn number(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended; none while it is there.
    pub(super) fn status(&mut self) -> Result<Option<String>, ChaosError> {
        let status = self.child.try_wait();
        let status = status.map_err(|source| ChaosError::Signal { node: self.node, source })?;
        Ok(status.map(|status| status.to_string()))
    }

    pub(super) fn signal(&mut self, how: How) -> Result<(), ChaosError> {
        // A number is there as long as the process was not waited for, so no other process has it.
        let number = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(number) = number else { return Ok(()) };
        let signal = match how {
            How::Kill => Signal::KILL,
            How::Terminate => Signal::TERM,
            How::Pause => Signal::STOP,
            How::Continue => Signal::CONT,
        };
        kill_process(number, signal)
            .map_err(|errno| ChaosError::Signal { node: self.node, source: errno.into() })
    }

    pub(super) async fn ended_within(&mut self, limit: Duration) -> Result<bool, ChaosError> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(source)) => Err(ChaosError::Signal { node: self.node, source }),
            Err(_) => Ok(false),
        }
    }
}
