//! Starting and stopping what a cluster's directory says, and nothing else.

use std::path::Path;
use std::time::Duration;

use super::layout::{Layout, Shape};
use super::process::Ending;
use super::ready;
use crate::error::CliError;
use crate::files;

/// How long a killed process may take to be gone.
const KILL_SECONDS: u64 = 10;

/// A cluster that stands.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) layout: Layout,
    /// Nodes that this call started; the others ran already.
    pub(crate) started: Vec<u64>,
}

/// What became of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// None ran.
    NotRunning,
    /// It ended in its own time.
    Gracefully,
    /// It was killed.
    Killed,
    /// It runs still.
    StillRunning,
}

/// Makes the cluster below `dir` if there is none, starts the nodes that do not run, and waits until all serve.
///
/// # Errors
/// Processes that were started stay: `tidelog up` again goes on from there, `tidelog down` stops them.
pub(crate) async fn start(
    dir: &Path,
    shape: Shape,
    server: &Path,
    seconds: u64,
) -> Result<Brought, CliError> {
    if !files::exists(server) {
        return Err(CliError::NoServer { path: server.to_owned() });
    }
    files::create_folder(dir)?;
    let _lock = files::lock_folder(dir)?;
    let mut layout = match Layout::load(dir)? {
        Some(layout) => layout,
        None => Layout::make(dir, shape)?,
    };
    layout.check(shape)?;
    let nodes: Vec<u64> = layout.nodes().collect();
    let mut started = Vec::new();
    loop {
        for node in &nodes {
            if layout.process(*node).running()?.is_none() {
                start_node(&layout, *node, server)?;
                started.push(*node);
            }
        }
        match ready::wait(&layout, &nodes, seconds).await {
            // It was dying when this call began: it is started too, like every node once.
            Err(CliError::NodeEnded { node, .. }) if !started.contains(&node) => {}
            ready => break ready?,
        }
    }
    layout.set_formed()?;
    Ok(Brought { layout, started })
}

/// Stops every node of the cluster below `dir`: all are asked at once, then waited for.
///
/// With `force`, those that run still after `seconds` are killed. Fails only where a process cannot be signalled
/// or watched; whether all have ended is in the answer.
pub(crate) async fn stop(dir: &Path, seconds: u64, force: bool) -> Result<Vec<(u64, Stopped)>, CliError> {
    let layout = Layout::existing(dir)?;
    let _lock = files::lock_folder(layout.dir())?;
    let mut asked = Vec::new();
    for node in layout.nodes() {
        asked.push((node, layout.process(node).signal(Ending::Graceful)?.is_some()));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut stopped = Vec::new();
    for (node, was_running) in asked {
        let process = layout.process(node);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let outcome = if !was_running {
            Stopped::NotRunning
        } else if process.ended_within(left).await? {
            Stopped::Gracefully
        } else if force {
            process.signal(Ending::Kill)?;
            match process.ended_within(Duration::from_secs(KILL_SECONDS)).await? {
                true => Stopped::Killed,
                false => Stopped::StillRunning,
            }
        } else {
            Stopped::StillRunning
        };
        stopped.push((node, outcome));
    }
    Ok(stopped)
}

/// Ends one node as `ending` says, starts it again, and waits until it serves.
pub(crate) async fn restart_node(
    dir: &Path,
    node: u64,
    ending: Ending,
    server: &Path,
    seconds: u64,
) -> Result<Stopped, CliError> {
    let layout = Layout::existing(dir)?;
    layout.check_node(node)?;
    let _lock = files::lock_folder(layout.dir())?;
    let process = layout.process(node);
    let stopped = match (process.signal(ending)?, ending) {
        (None, _) => Stopped::NotRunning,
        (Some(_), Ending::Graceful) => Stopped::Gracefully,
        (Some(_), Ending::Kill) => Stopped::Killed,
    };
    if !process.ended_within(Duration::from_secs(seconds)).await? {
        return Err(CliError::StillRunning { seconds, nodes: node.to_string() });
    }
    start_node(&layout, node, server)?;
    ready::wait(&layout, &[node], seconds).await?;
    Ok(stopped)
}

/// Starts one node. Only a cluster that has never stood may format data directories: a node whose directory was
/// emptied later must not come back as a voter that remembers nothing. One that was told to join asks the others.
pub(super) fn start_node(layout: &Layout, node: u64, server: &Path) -> Result<(), CliError> {
    let mut arguments = vec!["--config", "config.toml"];
    if layout.is_joining(node) {
        arguments.push("--join");
    } else if !layout.is_formed() {
        arguments.push("--bootstrap");
    }
    layout.process(node).start(server, &arguments).map(|_| ())
}
