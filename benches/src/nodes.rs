//! Clusters of real `tidelogd` processes: the programs are built, started as a person would, and stopped again.
//!
//! `tidelog up` starts them, on free ports and with TLS; `tidelog down --force` stops them by the process ids that it has on
//! record, and kills what does not end. That happens when a [`Nodes`] is dropped: at the end of a run, at an error, at a panic
//! and at Ctrl-C. Only if this process itself is killed do they stay; `tidelog down` on the folder stops them then.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tidelog_client::Profile;

use crate::error::{BenchError, Doing as _};

/// Bytes of a failed program's words that are shown.
const SHOWN_BYTES: usize = 2000;

/// What cargo sets for a benchmark and not for a person. Build scripts of dependencies look at them, and would be run again, with
/// all that depends on them compiled anew, each time that a build comes from here instead.
const OF_THIS_PACKAGE: [&str; 9] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// Where `tidelog` and `tidelogd` are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    tidelog: PathBuf,
    tidelogd: PathBuf,
}

impl Programs {
    /// Those in `folder`.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, BenchError> {
        let programs = Self { tidelog: folder.join("tidelog"), tidelogd: folder.join("tidelogd") };
        for path in [&programs.tidelog, &programs.tidelogd] {
            if !path.is_file() {
                return Err(BenchError::NoProgram { path: path.clone() });
            }
        }
        Ok(programs)
    }

    /// Builds them in the release profile, below `target`. cargo says on standard error how it goes.
    pub(crate) fn build(target: &Path) -> Result<Self, BenchError> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([
                "build",
                "--release",
                "--locked",
                "--bins",
                "-p",
                "tidelog-frontends",
                "-p",
                "tidelog-tools",
            ])
            .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .stderr(Stdio::inherit());
        for name in OF_THIS_PACKAGE {
            cargo.env_remove(name);
        }
        let said = output(&mut cargo)?;
        let built = |name: &str| {
            let executables = said.lines().filter_map(|line| {
                let message: serde_json::Value = serde_json::from_str(line).ok()?;
                Some(PathBuf::from(message.get("executable")?.as_str()?))
            });
            let found =
                executables.into_iter().find(|path| path.file_name().is_some_and(|file| file == name));
            found.ok_or("cargo names no such program").doing(&format!("build {name}"))
        };
        Ok(Self { tidelog: built("tidelog")?, tidelogd: built("tidelogd")? })
    }
}

/// A cluster that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Nodes {
    tidelog: PathBuf,
    folder: TempDir,
}

impl Nodes {
    /// Starts `count` nodes with their data below `parent`; on return all are ready.
    pub(crate) fn start(programs: &Programs, parent: &Path, count: u32) -> Result<Self, BenchError> {
        let prefix = format!("bench-{count}-nodes-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).doing("make a folder")?;
        // From here on a failure stops what came up.
        let nodes = Self { tidelog: programs.tidelog.clone(), folder };
        let mut up = Command::new(&programs.tidelog);
        up.arg("up").arg("--dir").arg(nodes.folder.path()).args(["--nodes", &count.to_string()]);
        up.arg("--tidelogd").arg(&programs.tidelogd);
        output(up.stderr(Stdio::piped()))?;
        Ok(nodes)
    }

    /// How a client reaches them.
    pub(crate) fn profile(&self) -> Result<Profile, BenchError> {
        Profile::load(&self.folder.path().join("client.toml")).doing("read the cluster's profile")
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let mut down = Command::new(&self.tidelog);
        down.arg("down").arg("--dir").arg(self.folder.path()).args(["--force", "--wait-seconds", "10"]);
        if let Err(error) = output(down.stderr(Stdio::piped())) {
            // The folder stays: the command that is named needs it.
            self.folder.disable_cleanup(true);
            eprintln!(
                "nodes may still run; `tidelog down --force --dir {}`: {error}",
                self.folder.path().display()
            );
        }
    }
}

/// Runs a program to its end and returns what it wrote to standard output.
fn output(command: &mut Command) -> Result<String, BenchError> {
    let program = format!("{command:?}");
    let ended = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|child| child.wait_with_output());
    let ended = ended.doing(&format!("run {program}"))?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = if ended.stderr.is_empty() { ended.stdout } else { ended.stderr };
    let shown = said.get(said.len().saturating_sub(SHOWN_BYTES)..).unwrap_or_default();
    let output = String::from_utf8_lossy(shown).trim().to_owned();
    Err(BenchError::Program { program, status: ended.status.to_string(), output })
}
