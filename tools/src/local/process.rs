//! A node's process, known by more than its number.
//!
//! `process.toml` keeps the number, the start time that the kernel gives the process, and the identity of this boot.
//! Signals go through a descriptor of the process: it is opened first, then the start time is compared, then the
//! signal is sent through it. A number that was handed out again in between cannot be hit.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::files::{self, Access};

/// Time between two looks at a process that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What tells one process from every other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since this boot.
    started: u64,
    boot: String,
}

/// How a process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGTERM: hand over leadership, sync, checkpoint.
    Graceful,
    /// SIGKILL: at once, as in a crash.
    Kill,
}

/// The process of one node, running or not.
#[derive(Clone, Debug)]
pub(crate) struct NodeProcess {
    node: u64,
    folder: PathBuf,
}

impl NodeProcess {
    /// The process of the node whose folder is `folder`.
    pub(crate) fn of(node: u64, folder: &Path) -> Self {
        Self { node, folder: folder.to_owned() }
    }

    /// The log of the node.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The running process, if the one on record still runs.
    pub(crate) fn running(&self) -> Result<Option<Identity>, CliError> {
        let path = self.record();
        let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
        let recorded: Identity = toml::from_str(&text).map_err(|error| CliError::Layout {
            path,
            what: format!("not a process record: {}", error.message()),
        })?;
        Ok((Identity::of(recorded.pid)? == Some(recorded.clone())).then_some(recorded))
    }

    /// Starts `program` for this node, detached from this command and its terminal, and puts it on record.
    ///
    /// Only for a node that does not run. The environment is empty: what the node does is in its file.
    pub(crate) fn start(&self, program: &Path, arguments: &[&str]) -> Result<Identity, CliError> {
        let not_started = |source| CliError::Spawn { program: program.to_owned(), source };
        let log = files::open_log(&self.log())?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(not_started)?)
            .stderr(log)
            .spawn()
            .map_err(not_started)?;
        let identity = Identity::of(child.id())?.ok_or_else(|| self.ended())?;
        let text = toml::to_string(&identity)
            .map_err(|error| CliError::Layout { path: self.record(), what: error.to_string() })?;
        files::replace(&self.record(), &text, Access::Public)?;
        Ok(identity)
    }

    /// Signals the process on record, if it runs. Returns at once; see [`Self::ended_within`].
    pub(crate) fn signal(&self, ending: Ending) -> Result<Option<Identity>, CliError> {
        let Some(identity) = self.running()? else { return Ok(None) };
        let Some(handle) = self.handle(&identity)? else { return Ok(None) };
        let signal = match ending {
            Ending::Graceful => Signal::TERM,
            Ending::Kill => Signal::KILL,
        };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(Some(identity)),
            Err(errno) => Err(self.failed(&identity, "signal it", errno.into())),
        }
    }

    /// Whether the process has ended when `limit` has passed; true at once if none runs.
    pub(crate) async fn ended_within(&self, limit: Duration) -> Result<bool, CliError> {
        let ended = async {
            while self.running()?.is_some() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(true)
        };
        tokio::time::timeout(limit, ended).await.unwrap_or(Ok(false))
    }

    /// The error for a process that ended by itself.
    pub(crate) fn ended(&self) -> CliError {
        let log = self.log();
        let last_lines = files::last_lines(&log, 3);
        CliError::NodeEnded { node: self.node, log, last_lines }
    }

    /// A descriptor of exactly this process; none if it has ended.
    fn handle(&self, identity: &Identity) -> Result<Option<OwnedFd>, CliError> {
        let Some(pid) = i32::try_from(identity.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok((Identity::of(identity.pid)?.as_ref() == Some(identity)).then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(errno) => Err(self.failed(identity, "open it", errno.into())),
        }
    }

    fn failed(&self, identity: &Identity, action: &'static str, source: io::Error) -> CliError {
        CliError::Process { node: self.node, pid: identity.pid, action, source }
    }

    fn record(&self) -> PathBuf {
        self.folder.join("process.toml")
    }
}

impl Identity {
    /// The identity of the process that has the number `pid` now; none if there is none, or only its remains.
    pub(crate) fn of(pid: u32) -> Result<Option<Self>, CliError> {
        let stat = match files::read_if_there(Path::new(&format!("/proc/{pid}/stat"))) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(None),
            // The process ended between opening and reading.
            Err(CliError::File { source, .. })
                if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let boot = files::read(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned();
        Ok(start_time(&stat).map(|started| Self { pid, started, boot }))
    }
}

/// Field 22 of `/proc/PID/stat`; none for a process that has ended but is not yet collected.
///
/// A killed process shows as ended (`Z`) once its first thread has, while its other threads may still hold its ports
/// and files. It has ended when no other thread (field 20) is left.
fn start_time(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let has_ended = matches!(state, "Z" | "X") && threads <= 1;
    (!has_ended).then(|| fields.nth(1)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(state: &str, threads: u64) -> String {
        format!("7 (a) b) (c) {state} 1 7 7 0 -1 4 0 0 0 0 1 2 0 0 20 0 {threads} 0 4711 99 1 2")
    }

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        assert_eq!(start_time(&stat("S", 9)), Some(4711));
        assert_eq!(start_time(&stat("Z", 3)), Some(4711), "other threads may still hold its ports");
        assert_eq!(start_time(&stat("Z", 1)), None);
        assert_eq!(start_time("7 (x"), None);
    }
}
