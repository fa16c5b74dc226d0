//! `up`, `down` and `restart-node`: what they answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::arguments::{Down, RestartNode, Server, Up};
use crate::error::CliError;
use crate::local::{self, Ending, Layout, Shape, Stopped};
use crate::output::{Answer, Output, table};

#[derive(Serialize)]
struct UpAnswer {
    dir: PathBuf,
    profile: PathBuf,
    cluster_id: String,
    nodes: Vec<UpNode>,
}

#[derive(Serialize)]
struct UpNode {
    id: u64,
    pid: u32,
    /// Whether this command started it.
    started: bool,
    native: String,
    admin: String,
    log: PathBuf,
}

impl Answer for UpAnswer {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|node| {
                let state = if node.started { "started" } else { "ran already" };
                vec![
                    node.id.to_string(),
                    node.pid.to_string(),
                    state.to_owned(),
                    node.native.clone(),
                    node.admin.clone(),
                    node.log.display().to_string(),
                ]
            })
            .collect();
        format!(
            "cluster {} is ready\n{}\nnext: export TIDELOG_PROFILE={}",
            self.cluster_id,
            table(&["node", "pid", "state", "native", "admin", "log"], &rows),
            self.profile.display()
        )
    }
}

/// Starts what is not running.
pub(crate) async fn up(up: Up, output: &Output) -> Result<(), CliError> {
    let server = server_program(&up.local.server)?;
    let shape = Shape { nodes: up.nodes, base_port: up.base_port, groups: up.groups, ..Shape::default() };
    let waiting = spinner("waiting until every node serves");
    let result = local::start(&up.local.dir, shape, &server, up.local.server.wait_seconds).await;
    waiting.finish_and_clear();
    let brought = result?;
    output.print(&up_answer(&brought.layout, &brought.started)?);
    Ok(())
}

fn up_answer(layout: &Layout, started: &[u64]) -> Result<UpAnswer, CliError> {
    let mut nodes = Vec::new();
    for id in layout.nodes() {
        let process = layout.process(id);
        let running = process.running()?.ok_or_else(|| process.ended())?;
        let addresses = layout.addresses(id)?;
        nodes.push(UpNode {
            id,
            pid: running.pid,
            started: started.contains(&id),
            native: addresses.native.to_string(),
            admin: addresses.admin.to_string(),
            log: process.log(),
        });
    }
    Ok(UpAnswer {
        dir: layout.dir().to_owned(),
        profile: layout.profile(),
        cluster_id: layout.cluster_id().to_owned(),
        nodes,
    })
}

#[derive(Serialize)]
struct DownAnswer {
    nodes: Vec<DownNode>,
}

#[derive(Serialize)]
struct DownNode {
    id: u64,
    outcome: &'static str,
}

impl Answer for DownAnswer {
    fn text(&self) -> String {
        let lines =
            self.nodes.iter().map(|node| format!("node {}: {}", node.id, node.outcome.replace('_', " ")));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The outcome as `--json` says it.
fn outcome(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::NotRunning => "was_not_running",
        Stopped::Gracefully => "stopped",
        Stopped::Killed => "killed",
        Stopped::StillRunning => "still_running",
    }
}

/// Stops every node.
pub(crate) async fn down(down: Down, output: &Output) -> Result<(), CliError> {
    let waiting = spinner("waiting until every node has stopped");
    let result = local::stop(&down.dir, down.wait_seconds, down.force).await;
    waiting.finish_and_clear();
    let stopped = result?;
    let nodes =
        stopped.iter().map(|(id, stopped)| DownNode { id: *id, outcome: outcome(*stopped) }).collect();
    output.print(&DownAnswer { nodes });
    let running: Vec<String> = stopped
        .iter()
        .filter(|(_, stopped)| *stopped == Stopped::StillRunning)
        .map(|(node, _)| node.to_string())
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    Err(CliError::StillRunning { seconds: down.wait_seconds, nodes: running.join(", ") })
}

#[derive(Serialize)]
struct RestartAnswer {
    id: u64,
    /// What became of the process that ran.
    outcome: &'static str,
    pid: u32,
}

impl Answer for RestartAnswer {
    fn text(&self) -> String {
        format!("node {}: {}, now ready as process {}", self.id, self.outcome.replace('_', " "), self.pid)
    }
}

/// Ends one node and starts it again.
pub(crate) async fn restart_node(restart: RestartNode, output: &Output) -> Result<(), CliError> {
    let server = server_program(&restart.local.server)?;
    let ending = if restart.kill { Ending::Kill } else { Ending::Graceful };
    let (dir, node) = (restart.local.dir, restart.node);
    let waiting = spinner("waiting until the node serves again");
    let result = local::restart_node(&dir, node, ending, &server, restart.local.server.wait_seconds).await;
    waiting.finish_and_clear();
    let stopped = result?;
    let process = Layout::existing(&dir)?.process(node);
    let running = process.running()?.ok_or_else(|| process.ended())?;
    output.print(&RestartAnswer { id: node, outcome: outcome(stopped), pid: running.pid });
    Ok(())
}

/// The server program to start: the one that was named, or the one beside this program.
pub(crate) fn server_program(server: &Server) -> Result<PathBuf, CliError> {
    if let Some(program) = &server.tidelogd {
        // Nodes start in folders of their own, where a relative path would mean something else.
        return crate::files::absolute(program).map_err(|_| CliError::NoServer { path: program.clone() });
    }
    let this = std::env::current_exe().map_err(|source| CliError::File {
        path: PathBuf::from("tidelog"),
        action: "find this program",
        source,
    })?;
    Ok(this.parent().unwrap_or(Path::new(".")).join("tidelogd"))
}

/// A sign of life on a terminal; nothing elsewhere.
pub(crate) fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
