//! A cluster of real processes for a test, driven by the commands alone, as a person would.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads its input and waits for real processes, with a limit"
)]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until no other test has a cluster.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program under test.
pub(crate) fn tidelog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    command.env_remove("TIDELOG_PROFILE").stdin(Stdio::null());
    command
}

/// Runs `command`, whatever comes of it.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// The first 2,000 flights of 2013, one a line.
pub(crate) fn flights() -> Vec<u8> {
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/flights-extract.csv.gz");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap()).read_to_end(&mut text).unwrap();
    let header = text.iter().position(|byte| *byte == b'\n').unwrap();
    text.split_off(header + 1)
}

/// The first `count` lines, and the rest.
pub(crate) fn split_lines(text: &[u8], count: usize) -> (&[u8], &[u8]) {
    let end = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(count - 1).unwrap().0;
    text.split_at(end + 1)
}

/// One cluster at a time: a small machine with several has elections for no other reason.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Three nodes below a temporary directory. Dropped, they are stopped by force.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Makes and starts one of three nodes.
    pub(crate) fn start() -> Self {
        Self::of(3)
    }

    /// Makes and starts one of so many nodes.
    pub(crate) fn of(nodes: u64) -> Self {
        let cluster = Self { _turn: turn(), dir: tempfile::tempdir().unwrap() };
        cluster.json(&["up", "--nodes", &nodes.to_string(), "--dir", cluster.text()]);
        cluster
    }

    /// Its directory, as an argument.
    pub(crate) fn text(&self) -> &str {
        self.dir().to_str().unwrap()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn profile(&self) -> PathBuf {
        self.dir().join("client.toml")
    }

    /// `tidelog up`: starts what does not run.
    pub(crate) fn up(&self) -> Value {
        let server = Path::new(env!("CARGO_BIN_EXE_tidelog")).with_file_name("tidelogd");
        assert!(server.exists(), "build the server first: cargo build --workspace --bins");
        self.json(&["up", "--dir", self.text()])
    }

    /// Stops the cluster, adds `keys` to each node's configuration, and starts it again.
    pub(crate) fn configure_nodes(&self, keys: &str) {
        self.json(&["down", "--dir", self.text()]);
        for node in 0..3 {
            let path = self.dir().join(format!("node-{node}/config.toml"));
            let config = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{config}\n{keys}")).unwrap();
        }
        self.up();
    }

    /// What `node` has logged.
    pub(crate) fn log(&self, node: u64) -> String {
        std::fs::read_to_string(self.dir().join(format!("node-{node}/log"))).unwrap_or_default()
    }

    /// An online command for this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tidelog();
        command.arg("--profile").arg(self.profile()).args(arguments);
        command
    }

    /// Runs a command with `--json`, which must succeed, and reads its answer.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = output(self.command(arguments).arg("--json"));
        let (answer, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {errors}{}", self.logs());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {answer}"))
    }

    /// Runs a command that must fail with `exit_code`, and gives what it says on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, exit_code: i32, arguments: &[&str]) -> String {
        let output = output(&mut self.command(arguments));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {errors}");
        errors
    }

    /// Starts `tidelog produce flights` with its standard input open.
    pub(crate) fn produce(&self, batch_records: &str) -> Producer {
        let arguments =
            ["produce", "flights", "--json", "--key-column", "10", "--batch-records", batch_records];
        let child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Producer { child }
    }

    /// Everything that `node` has of the channel, as `consume` writes it.
    #[track_caller]
    pub(crate) fn consume_from(&self, node: u64) -> Vec<u8> {
        let output =
            output(&mut self.command(&["consume", "flights", "--until-end", "--node", &node.to_string()]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// Waits until `condition` holds of the status.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&["status"], what, condition)
    }

    /// Waits until `condition` holds of what a command answers.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        arguments: &[&str],
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = output(self.command(arguments).arg("--json"));
            let status: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            match status {
                Some(status) if condition(&status) => return status,
                status => assert!(Instant::now() < deadline, "{what}: {status:?}{}", self.logs()),
            }
        }
    }

    /// Ends the process of `node` as a crash would.
    pub(crate) fn kill(&self, status: &Value, node: u64) {
        self.signal(status, node, rustix::process::Signal::KILL);
    }

    /// Signals the process of `node`.
    pub(crate) fn signal(&self, status: &Value, node: u64, signal: rustix::process::Signal) {
        let pid = status.pointer(&format!("/nodes/{node}/pid")).and_then(Value::as_i64).unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The ends of the nodes' logs, for a test that fails.
    fn logs(&self) -> String {
        let mut text = String::new();
        for node in 0..3 {
            let log = self.log(node);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
            text.push_str(&format!("\n--- node {node} ---\n{}", last.join("\n")));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        output(tidelog().args(["down", "--force", "--wait-seconds", "5", "--dir", self.text()]));
    }
}

/// A running `tidelog produce`.
pub(crate) struct Producer {
    child: Child,
}

impl Producer {
    /// Gives it more input.
    pub(crate) fn feed(&mut self, lines: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(lines).unwrap();
    }

    /// Ends its input and reads what it says, with its exit code.
    pub(crate) fn finish(mut self) -> (Value, Option<i32>) {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let summary =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}{errors}"));
        (summary, output.status.code())
    }

    /// As Ctrl-C does, then as [`Self::finish`].
    pub(crate) fn interrupt(self) -> (Value, Option<i32>) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        // Its input stays open: it has to end by itself.
        let mut child = self.child;
        let stdin = child.stdin.take();
        let finished = Self { child }.finish();
        drop(stdin);
        finished
    }
}

/// A number in an answer.
#[track_caller]
pub(crate) fn number(answer: &Value, pointer: &str) -> u64 {
    answer.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {answer}"))
}

/// The high watermark of the only partition.
pub(crate) fn high_watermark(status: &Value) -> u64 {
    status.pointer("/channels/0/partitions/0/high_watermark").and_then(Value::as_u64).unwrap_or(0)
}

/// Whether all three replicas of the only partition have `offset` records with one chain.
pub(crate) fn replicas_agree(status: &Value, offset: u64) -> bool {
    let replicas = status.pointer("/channels/0/partitions/0/replicas").and_then(Value::as_array);
    replicas.is_some_and(|replicas| {
        let chains: Vec<_> = replicas.iter().map(|replica| replica.get("chain")).collect();
        replicas.len() == 3
            && replicas.iter().all(|replica| replica.get("offset").and_then(Value::as_u64) == Some(offset))
            && chains.iter().all(|chain| chain.is_some_and(Value::is_string) && *chain == chains[0])
    })
}
