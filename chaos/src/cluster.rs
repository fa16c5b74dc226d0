//! A cluster of real `tidelogd` processes below one folder.
//!
//! ```text
//! DIR/tls/            the authority, a certificate for each node, and one for the client
//! DIR/client.toml     the profile, as `tidelog --profile` takes it
//! DIR/node-N/         config.toml, log, data/
//! ```
//! The nodes are children of this process and die with it. Checkpoints and segments are small, so that a short run sees
//! many of them.
//!
//! Not here: what is done to the processes (`crate::faults`).

mod layout;
mod process;
mod ready;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidelog_client::{Client, ClientOptions, Profile};
use tokio::time::Instant;

pub use layout::Layout;
pub use process::{How, Node};

use crate::error::ChaosError;

/// How long a node may take until it serves, with elections and a busy machine.
const READY: Duration = Duration::from_secs(90);
/// How long a process that was told to stop may take.
const STOP: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a node that has no data directory yet is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As one of those that found the cluster.
    Bootstrap,
    /// As one that lost its directory, or never had one.
    Join,
    /// As one that has its directory.
    Resume,
}

/// The processes of a cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its files and addresses.
    pub layout: Layout,
    server: PathBuf,
    nodes: BTreeMap<u64, Node>,
    /// Nodes that ended by themselves although nothing that was done to them explains it.
    ended: Vec<String>,
}

impl Cluster {
    /// A cluster whose nodes do not run yet.
    #[must_use]
    pub fn new(layout: Layout, server: &Path) -> Self {
        Self { layout, server: server.to_owned(), nodes: BTreeMap::new(), ended: Vec::new() }
    }

    /// Starts a node that does not run. Does not wait for it.
    ///
    /// # Errors
    /// [`ChaosError::Start`], [`ChaosError::File`].
    pub fn start(&mut self, node: u64, begin: Begin) -> Result<(), ChaosError> {
        let folder = self.layout.folder(node);
        let process = Node::start(node, &self.server, &folder, begin)?;
        self.nodes.insert(node, process);
        Ok(())
    }

    /// Starts `nodes` and waits until all serve.
    ///
    /// # Errors
    /// As [`Cluster::start`] and [`Cluster::ready`].
    pub async fn start_all(&mut self, nodes: &[u64], begin: Begin) -> Result<(), ChaosError> {
        for node in nodes {
            self.start(*node, begin)?;
        }
        self.ready(nodes).await
    }

    /// Waits until each of `nodes` says that it is ready.
    ///
    /// # Errors
    /// [`ChaosError::Late`], or [`ChaosError::Ended`] when one of them is not there any more.
    pub async fn ready(&mut self, nodes: &[u64]) -> Result<(), ChaosError> {
        let deadline = Instant::now() + READY;
        for node in nodes {
            let admin = self.layout.admin(*node);
            loop {
                self.check_running(*node)?;
                let said = match ready::ask(admin).await {
                    Ok(()) => break,
                    Err(said) => said,
                };
                if Instant::now() > deadline {
                    let what = format!("node {node} is ready; it says: {said}");
                    return Err(ChaosError::Late { what, seconds: READY.as_secs() });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// The number of a node's process, while it is there.
    #[must_use]
    pub fn process(&self, node: u64) -> Option<u32> {
        self.nodes.get(&node).and_then(Node::number)
    }

    /// What a node counts under `name`, summed over its labels; `None` if it does not say.
    pub async fn count(&self, node: u64, name: &str) -> Option<u64> {
        let page = ready::get(self.layout.admin(node), "/metrics").await.ok()?;
        let lines = page.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines
            .filter(|rest| rest.starts_with([' ', '{']))
            .filter_map(|rest| rest.rsplit(' ').next()?.split('.').next()?.parse::<u64>().ok());
        values.reduce(u64::saturating_add)
    }

    fn check_running(&mut self, node: u64) -> Result<(), ChaosError> {
        match self.nodes.get_mut(&node).map(Node::status) {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(status))) => {
                Err(ChaosError::Ended { node, status, last_lines: self.layout.last_lines(node) })
            }
            Some(Err(error)) => Err(error),
            None => Err(ChaosError::Ended {
                node,
                status: "it was never started".to_owned(),
                last_lines: String::new(),
            }),
        }
    }

    /// Ends a node's process and waits until it is gone.
    ///
    /// # Errors
    /// [`ChaosError::Signal`]; [`ChaosError::Late`] for one that does not stop when told to.
    pub async fn end(&mut self, node: u64, how: How) -> Result<(), ChaosError> {
        let Some(mut process) = self.nodes.remove(&node) else { return Ok(()) };
        process.signal(how)?;
        if process.ended_within(STOP).await? {
            return Ok(());
        }
        process.signal(How::Kill)?;
        process.ended_within(STOP).await?;
        Err(ChaosError::Late { what: format!("node {node} stops when told to"), seconds: STOP.as_secs() })
    }

    /// Stops or continues a node's process.
    ///
    /// # Errors
    /// [`ChaosError::Signal`].
    pub fn signal(&mut self, node: u64, how: How) -> Result<(), ChaosError> {
        self.nodes.get_mut(&node).map_or(Ok(()), |process| process.signal(how))
    }

    /// Nodes whose processes are there.
    ///
    /// # Errors
    /// [`ChaosError::Signal`].
    pub fn running(&mut self) -> Result<BTreeSet<u64>, ChaosError> {
        let mut running = BTreeSet::new();
        for (node, process) in &mut self.nodes {
            if process.status()?.is_none() {
                running.insert(*node);
            }
        }
        Ok(running)
    }

    /// Takes note of nodes that ended by themselves, and starts them again: this must not happen, and the run is to show
    /// what comes of it all the same. Returns those.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn revive(&mut self) -> Result<Vec<u64>, ChaosError> {
        let running = self.running()?;
        let gone: Vec<u64> = self.nodes.keys().copied().filter(|node| !running.contains(node)).collect();
        for node in &gone {
            self.start(*node, Begin::Resume)?;
        }
        Ok(gone)
    }

    /// Puts on record that a node ended by itself.
    pub fn note_ended(&mut self, node: u64, when: &str) {
        let lines = self.layout.last_lines(node);
        self.ended.push(format!("node {node} ended by itself {when}; its last lines:\n{lines}"));
    }

    /// What was put on record.
    #[must_use]
    pub fn ended(&self) -> &[String] {
        &self.ended
    }

    /// A client of this cluster.
    ///
    /// # Errors
    /// [`ChaosError::Client`] if the profile cannot be read.
    pub fn client(&self) -> Result<Client, ChaosError> {
        let profile = Profile::load(&self.layout.profile())?;
        Ok(Client::new(profile, ClientOptions::default())?)
    }

    /// Stops every node in its own time.
    ///
    /// # Errors
    /// As [`Cluster::end`]; the others are stopped nevertheless.
    pub async fn stop_all(&mut self) -> Result<(), ChaosError> {
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        for node in &nodes {
            self.signal(*node, How::Terminate)?;
        }
        let mut outcome = Ok(());
        for node in nodes {
            outcome = outcome.and(self.end(node, How::Terminate).await);
        }
        outcome
    }
}
