//! Nodes of this machine that come and go: their certificates, files and processes.
//!
//! What the cluster makes of them is not decided here: a process is started with `--join` and asks the others itself. Each
//! step may be repeated, so a command that was interrupted is simply called again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tidelog_wire::ids::NodeId;

use super::bring::start_node;
use super::layout::Layout;
use super::ports::{self, NodeAddresses};
use super::process::{Ending, NodeProcess};
use super::ready;
use crate::certs;
use crate::error::CliError;
use crate::files::{self, Access};

/// How long a process that was asked to stop may take.
const STOP_SECONDS: u64 = 60;

/// Starts a further node of the cluster below `dir`, and waits until it serves. Gives its number.
pub(crate) async fn add_node(dir: &Path, server: &Path, seconds: u64) -> Result<u64, CliError> {
    let _lock = files::lock_folder(dir)?;
    let mut layout = Layout::existing(dir)?;
    let node = layout.begin_node()?;
    bring(&layout, node, server, seconds).await?;
    Ok(node)
}

/// Starts a node with an empty data directory; what is left of the old one is set aside. Gives where, if there was one.
pub(crate) async fn replace_node(
    dir: &Path,
    node: u64,
    server: &Path,
    seconds: u64,
) -> Result<Option<PathBuf>, CliError> {
    let _lock = files::lock_folder(dir)?;
    let mut layout = Layout::existing(dir)?;
    layout.check_node(node)?;
    let mut aside = None;
    // Called again, the directory is the new one already.
    if !layout.is_joining(node) {
        end(&layout, node).await?;
        layout.set_replacing(node)?;
        aside = files::set_aside(&layout.data_dir(node))?;
    }
    bring(&layout, node, server, seconds).await?;
    Ok(aside)
}

/// Stops a node that is a member no more, and strikes it off.
pub(crate) async fn end_node(dir: &Path, node: u64) -> Result<(), CliError> {
    let _lock = files::lock_folder(dir)?;
    let mut layout = Layout::existing(dir)?;
    end(&layout, node).await?;
    layout.forget_node(node)
}

async fn bring(layout: &Layout, node: u64, server: &Path, seconds: u64) -> Result<(), CliError> {
    if !files::exists(server) {
        return Err(CliError::NoServer { path: server.to_owned() });
    }
    if layout.process(node).running()?.is_none() {
        start_node(layout, node, server)?;
    }
    ready::wait(layout, &[node], seconds).await
}

async fn end(layout: &Layout, node: u64) -> Result<(), CliError> {
    let process = layout.process(node);
    process.signal(Ending::Graceful)?;
    if process.ended_within(Duration::from_secs(STOP_SECONDS)).await? {
        return Ok(());
    }
    Err(CliError::StillRunning { seconds: STOP_SECONDS, nodes: node.to_string() })
}

/// A node in a folder of its own, of a cluster that `up` did not make.
#[derive(Clone, Debug)]
pub(crate) struct NewNode {
    pub(crate) node: NodeId,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Where the authority's key is.
    pub(crate) ca: PathBuf,
    /// Node i opens this + 10 i and the three behind it; otherwise a free block.
    pub(crate) base_port: Option<u16>,
    /// Members to ask, with their addresses for other nodes.
    pub(crate) members: Vec<(NodeId, String)>,
}

#[derive(Serialize)]
struct Config {
    node: u64,
    data_dir: &'static str,
    base_port: u16,
    peers: Vec<Peer>,
    tls: Tls,
}

#[derive(Serialize)]
struct Peer {
    node: u64,
    address: String,
}

#[derive(Serialize)]
struct Tls {
    ca: &'static str,
    cert: String,
    key: String,
}

/// Makes the files of a new node, starts it, and waits until it serves. Called again, it goes on with what is there.
pub(crate) async fn make_node(new: &NewNode, server: &Path, seconds: u64) -> Result<NodeAddresses, CliError> {
    if !files::exists(server) {
        return Err(CliError::NoServer { path: server.to_owned() });
    }
    files::create_folder(&new.folder)?;
    let _lock = files::lock_folder(&new.folder)?;
    let folder = files::absolute(&new.folder)?;
    let number = new.node.get();
    let config = folder.join("config.toml");
    let base_port = match (Known::read(&config)?, new.base_port) {
        (Some(Known { base_port, .. }), _) | (None, Some(base_port)) => base_port,
        (None, None) => ports::free_block(number + 1, std::process::id().wrapping_mul(7))?,
    };
    let wrong = || CliError::NoPorts { count: 4, first: base_port, last: u16::MAX };
    let addresses = ports::addresses(base_port, number).ok_or_else(wrong)?;
    if !files::exists(&config) {
        certs::issue_node_to(&new.ca, &folder.join("tls"), new.node)?;
        let peer = |(node, address): &(NodeId, String)| Peer { node: node.get(), address: address.clone() };
        let own = Peer { node: number, address: addresses.peers.to_string() };
        let text = Config {
            node: number,
            data_dir: "data",
            base_port,
            peers: new.members.iter().map(peer).chain([own]).collect(),
            tls: Tls {
                ca: "tls/ca.pem",
                cert: format!("tls/node-{number}.pem"),
                key: format!("tls/node-{number}.key"),
            },
        };
        let text = toml::to_string(&text)
            .map_err(|error| CliError::Layout { path: config.clone(), what: error.to_string() })?;
        let head =
            "# Written by `tidelog cluster add-node`. Every key: `tidelogd --print-config-reference`.\n";
        files::replace(&config, &format!("{head}{text}"), Access::Public)?;
    }
    let process = NodeProcess::of(number, &folder);
    if process.running()?.is_none() {
        process.start(server, &["--config", "config.toml", "--join"])?;
    }
    ready::wait_one(number, &process, addresses.admin, seconds).await?;
    Ok(addresses)
}

/// What a configuration that is there already says.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Known {
    node: u64,
    base_port: u16,
}

impl Known {
    fn read(config: &Path) -> Result<Option<Self>, CliError> {
        let Some(text) = files::read_if_there(config)? else { return Ok(None) };
        let known = toml::from_str(&text).map_err(|error| CliError::Layout {
            path: config.to_owned(),
            what: error.message().to_owned(),
        })?;
        Ok(Some(known))
    }
}

/// The number of the node that was begun in a folder, if one was.
pub(crate) fn begun_node(folder: &Path) -> Result<Option<NodeId>, CliError> {
    Ok(Known::read(&folder.join("config.toml"))?.map(|known| NodeId(known.node)))
}
