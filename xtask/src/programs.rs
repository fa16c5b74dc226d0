//! Programs the chores start, and where the workspace lies.
//!
//! A chore prints the command before it runs it, with its output passed through: what a person sees
//! is what they can repeat. Variables that `cargo run` sets for this program are taken away from its
//! children, because build scripts watch some of them: with them every chore would rebuild `ring`.
//!
//! The one file of the chores that reads the clock and starts processes.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Variables of `cargo run` that build scripts of dependencies watch.
const CARGO_RUN_VARIABLES: [&str; 18] = [
    "CARGO",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_AUTHORS",
    "CARGO_PKG_DESCRIPTION",
    "CARGO_PKG_HOMEPAGE",
    "CARGO_PKG_LICENSE",
    "CARGO_PKG_LICENSE_FILE",
    "CARGO_PKG_NAME",
    "CARGO_PKG_README",
    "CARGO_PKG_REPOSITORY",
    "CARGO_PKG_RUST_VERSION",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// Why a chore did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program could not be started at all.
    #[error("`{command}` cannot be started: {source}; is it installed and on the PATH?")]
    Start { command: String, source: io::Error },
    /// A program ran and reported a failure.
    #[error("`{command}` failed ({status})")]
    Exit { command: String, status: String },
    /// `cargo metadata` answered with something else than expected.
    #[error("`cargo metadata` names no {field}; run `cargo metadata --no-deps` to see why")]
    Metadata { field: &'static str },
    /// A file of the repository could not be read.
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// A file or folder could not be written.
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: io::Error },
    /// A fuzz target that does not exist was named.
    #[error("there is no such fuzz target; there are {known}")]
    NoTarget { known: String },
    /// A fuzz target ended well, and had done nothing.
    #[error("it executed nothing, or did not tell how much: what it prints above says why")]
    NothingExecuted,
    /// The tree breaks rules; each is printed above.
    #[error("{count} findings, printed above")]
    Findings { count: usize },
    /// Steps of the gate failed; the table names them.
    #[error("{count} of {total} steps failed; the table above names the command to repeat each")]
    Gate { count: usize, total: usize },
}

/// Where the workspace and its build products are.
pub(crate) struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Build products.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self, Failure> {
        let asked = Program::new("cargo").arguments(["metadata", "--format-version", "1", "--no-deps"]);
        let answer: serde_json::Value = serde_json::from_slice(&asked.output(None)?)
            .map_err(|_| Failure::Metadata { field: "workspace" })?;
        let path = |field: &'static str| {
            answer
                .get(field)
                .and_then(serde_json::Value::as_str)
                .map(PathBuf::from)
                .ok_or(Failure::Metadata { field })
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// Runs `program` in the root of the workspace, its output passed through.
    pub(crate) fn run(&self, program: &Program) -> Result<(), Failure> {
        println!("$ {}", program.shown());
        let status =
            program.command(Some(&self.root)).status().map_err(|source| program.not_started(source))?;
        if status.success() { Ok(()) } else { Err(program.failed(&status.to_string())) }
    }

    /// Runs `program` and passes its standard error through; returns that, and the failure if it did not succeed.
    pub(crate) fn run_telling(&self, program: &Program) -> Result<(String, Option<Failure>), Failure> {
        println!("$ {}", program.shown());
        let mut child = program
            .command(Some(&self.root))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| program.not_started(source))?;
        let mut told = String::new();
        for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')) {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            told.push_str(&line);
            told.push('\n');
        }
        let status = child.wait().map_err(|source| program.not_started(source))?;
        Ok((told, (!status.success()).then(|| program.failed(&status.to_string()))))
    }

    /// Makes the folder at `path`.
    #[expect(clippy::disallowed_methods, reason = "a place below the target directory for what chores keep")]
    pub(crate) fn folder(&self, path: &Path) -> Result<PathBuf, Failure> {
        let path = self.target.join(path);
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(Failure::Write { path, source }),
        }
    }

    /// Whether `program` runs and succeeds; its output is dropped.
    pub(crate) fn succeeds(&self, program: &Program) -> bool {
        program.output(Some(&self.root)).is_ok()
    }
}

/// A command line with the variables it needs.
pub(crate) struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
}

impl Program {
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        Self { name: name.as_ref().to_owned(), arguments: Vec::new(), variables: Vec::new() }
    }

    pub(crate) fn arguments<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// Standard output of the program, if it succeeds.
    pub(crate) fn output(&self, folder: Option<&Path>) -> Result<Vec<u8>, Failure> {
        let output = self
            .command(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|source| self.not_started(source))?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failed(&output.status.to_string())) }
    }

    fn command(&self, folder: Option<&Path>) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.arguments);
        for name in &CARGO_RUN_VARIABLES {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        command
    }

    fn shown(&self) -> String {
        let mut shown = String::new();
        for (name, value) in &self.variables {
            let value = value.to_string_lossy();
            let quote = if value.contains(' ') { "'" } else { "" };
            shown.push_str(&format!("{name}={quote}{value}{quote} "));
        }
        shown.push_str(&self.name.to_string_lossy());
        for argument in &self.arguments {
            shown.push(' ');
            shown.push_str(&argument.to_string_lossy());
        }
        shown
    }

    fn not_started(&self, source: io::Error) -> Failure {
        Failure::Start { command: self.shown(), source }
    }

    fn failed(&self, status: &str) -> Failure {
        Failure::Exit { command: self.shown(), status: status.to_owned() }
    }
}

/// Runs `work` and says how long it took.
#[expect(clippy::disallowed_methods, reason = "a step's time is shown to the person who waits for it")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}
