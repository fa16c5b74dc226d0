//! What a cluster's directory holds, and how it is made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidelog_wire::ids::NodeId;

use super::ports::{self, NodeAddresses};
use super::process::NodeProcess;
use crate::certs;
use crate::error::CliError;
use crate::files::{self, Access};

/// Nodes of a cluster when none are asked for.
const NODES_DEFAULT: u64 = 3;
/// Data groups of a cluster when none are asked for.
const GROUPS_DEFAULT: u64 = 4;
/// A node's data directory, in its folder.
const DATA: &str = "data";
/// The version of `cluster.toml`.
const VERSION: u32 = 1;

/// What was asked of a cluster; `None` is "as it is, or the default for a new one".
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) nodes: Option<u64>,
    /// 0 is any free block.
    pub(crate) base_port: Option<u16>,
    pub(crate) groups: Option<u64>,
    /// Time between two checkpoints of a group; the node's own choice if `None`.
    pub(crate) checkpoint_seconds: Option<u64>,
}

/// A cluster below a directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
    facts: Facts,
}

/// `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    version: u32,
    cluster_id: String,
    /// The nodes there are; a number is never given twice.
    nodes: Vec<u64>,
    next_node: u64,
    /// Nodes that were begun and do not hold yet what they should: they are started with `--join`.
    joining: Vec<u64>,
    /// Those of them that were members before, with another data directory.
    replacing: Vec<u64>,
    groups: u64,
    base_port: u16,
    /// Time between two checkpoints of a group, if it is not the node's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint_seconds: Option<u64>,
    /// Whether all nodes were ready once. From then on no data directory may be formatted again.
    formed: bool,
}

#[derive(Serialize)]
struct NodeConfig {
    node: u64,
    data_dir: &'static str,
    base_port: u16,
    peers: Vec<Peer>,
    tls: Tls,
    raft: Raft,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Checkpoint>,
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

#[derive(Serialize)]
struct Raft {
    data_groups: u64,
}

#[derive(Serialize)]
struct Checkpoint {
    seconds: u64,
}

#[derive(Serialize)]
struct Profile {
    cluster_id: String,
    ca: &'static str,
    cert: &'static str,
    key: &'static str,
    nodes: Vec<ProfileNode>,
}

#[derive(Serialize)]
struct ProfileNode {
    id: u64,
    native: String,
    admin: String,
}

impl Layout {
    /// The cluster below `dir`, if one was made there.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, CliError> {
        let path = dir.join("cluster.toml");
        let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
        let wrong = |what: String| CliError::Layout { path: path.clone(), what };
        let facts: Facts = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        if facts.version != VERSION {
            return Err(wrong(format!("version {}, and this command knows {VERSION}", facts.version)));
        }
        let last = facts.nodes.iter().copied().max();
        let fits = |last: u64| last < facts.next_node && ports::addresses(facts.base_port, last).is_some();
        if !last.is_some_and(fits) {
            return Err(wrong(format!("nodes {:?} from port {}", facts.nodes, facts.base_port)));
        }
        Ok(Some(Self { dir: files::absolute(dir)?, facts }))
    }

    /// The cluster below `dir`, which must be there.
    pub(crate) fn existing(dir: &Path) -> Result<Self, CliError> {
        Self::load(dir)?.ok_or_else(|| CliError::NoCluster { dir: dir.to_owned() })
    }

    /// Makes the files of a new cluster below `dir`, which exists. Starts nothing.
    ///
    /// Interrupted, it is simply done again: before `cluster.toml` is there, no node was ever started.
    pub(crate) fn make(dir: &Path, shape: Shape) -> Result<Self, CliError> {
        let dir = files::absolute(dir)?;
        let nodes = shape.nodes.unwrap_or(NODES_DEFAULT);
        let base_port = match shape.base_port {
            None | Some(0) => ports::free_block(nodes, std::process::id().wrapping_mul(7))?,
            Some(base_port) => base_port,
        };
        let cluster = certs::make_cluster(&dir.join("tls"), nodes)?;
        let groups = shape.groups.unwrap_or(GROUPS_DEFAULT);
        let facts = Facts {
            version: VERSION,
            cluster_id: cluster.to_string(),
            nodes: (0..nodes).collect(),
            next_node: nodes,
            joining: Vec::new(),
            replacing: Vec::new(),
            groups,
            base_port,
            checkpoint_seconds: shape.checkpoint_seconds,
            formed: false,
        };
        let layout = Self { dir, facts };
        for node in layout.nodes() {
            layout.write_config(node)?;
        }
        layout.write_profile()?;
        layout.save()?;
        Ok(layout)
    }

    /// Begins a new node, or takes up one that was begun and interrupted: its certificate, its configuration, and its place in
    /// `cluster.toml`, which comes last. Starts nothing.
    pub(crate) fn begin_node(&mut self) -> Result<u64, CliError> {
        // A node that is being replaced holds a number that others know already.
        if let Some(node) = self.facts.joining.iter().find(|node| !self.facts.replacing.contains(node)) {
            return Ok(*node);
        }
        let node = self.facts.next_node;
        self.addresses(node)?;
        certs::issue_node(&self.dir.join("tls"), NodeId(node))?;
        let mut facts = self.facts.clone();
        facts.nodes.push(node);
        facts.joining.push(node);
        facts.next_node += 1;
        self.facts = facts;
        self.write_config(node)?;
        self.write_profile()?;
        self.save()?;
        Ok(node)
    }

    /// From now on the node comes back with an empty directory, until [`Self::set_joined`]: it is started with `--join`.
    pub(crate) fn set_replacing(&mut self, node: u64) -> Result<(), CliError> {
        if !self.is_joining(node) {
            self.facts.joining.push(node);
            self.facts.replacing.push(node);
        }
        self.save()
    }

    /// The node holds what it should.
    pub(crate) fn set_joined(&mut self, node: u64) -> Result<(), CliError> {
        self.facts.joining.retain(|joining| *joining != node);
        self.facts.replacing.retain(|replacing| *replacing != node);
        self.save()
    }

    /// The node left. Its folder stays.
    pub(crate) fn forget_node(&mut self, node: u64) -> Result<(), CliError> {
        self.facts.nodes.retain(|known| *known != node);
        self.facts.joining.retain(|joining| *joining != node);
        self.facts.replacing.retain(|replacing| *replacing != node);
        self.write_profile()?;
        self.save()
    }

    /// Whether the node is to be started with `--join`.
    pub(crate) fn is_joining(&self, node: u64) -> bool {
        self.facts.joining.contains(&node)
    }

    /// Where the node keeps its data.
    pub(crate) fn data_dir(&self, node: u64) -> PathBuf {
        self.node_folder(node).join(DATA)
    }

    fn write_config(&self, node: u64) -> Result<(), CliError> {
        files::create_folder(&self.node_folder(node))?;
        let path = self.node_folder(node).join("config.toml");
        let head = "# Written by `tidelog up`. Every key: `tidelogd --print-config-reference`.\n";
        write_toml(&path, head, &self.node_config(node))
    }

    fn write_profile(&self) -> Result<(), CliError> {
        let head = "# How clients reach this cluster: give it to --profile or TIDELOG_PROFILE.\n";
        write_toml(&self.profile(), head, &self.client_profile())
    }

    /// Refuses a shape that this cluster does not have.
    pub(crate) fn check(&self, shape: Shape) -> Result<(), CliError> {
        let asked = |key, found: u64, asked: Option<u64>| match asked {
            Some(asked) if asked != found => Err(CliError::OtherShape {
                dir: self.dir.clone(),
                key,
                found: found.to_string(),
                asked: asked.to_string(),
            }),
            Some(_) | None => Ok(()),
        };
        let nodes = u64::try_from(self.facts.nodes.len()).unwrap_or(u64::MAX);
        asked("nodes", nodes, shape.nodes)?;
        asked("groups", self.facts.groups, shape.groups)?;
        let base_port = shape.base_port.filter(|port| *port != 0).map(u64::from);
        asked("base-port", u64::from(self.facts.base_port), base_port)
    }

    /// Puts on record that the cluster has stood once.
    pub(crate) fn set_formed(&mut self) -> Result<(), CliError> {
        if self.facts.formed {
            return Ok(());
        }
        self.facts.formed = true;
        self.save()
    }

    pub(crate) fn is_formed(&self) -> bool {
        self.facts.formed
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.facts.cluster_id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The nodes' numbers.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u64> {
        self.facts.nodes.iter().copied()
    }

    /// Refuses a node that the cluster does not have.
    pub(crate) fn check_node(&self, node: u64) -> Result<(), CliError> {
        if self.facts.nodes.contains(&node) {
            return Ok(());
        }
        let have: Vec<String> = self.nodes().map(|node| node.to_string()).collect();
        Err(CliError::NoNode { node, have: have.join(", ") })
    }

    /// The profile for online commands.
    pub(crate) fn profile(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    /// The process of `node`.
    pub(crate) fn process(&self, node: u64) -> NodeProcess {
        NodeProcess::of(node, &self.node_folder(node))
    }

    /// Where `node` listens.
    pub(crate) fn addresses(&self, node: u64) -> Result<NodeAddresses, CliError> {
        ports::addresses(self.facts.base_port, node).ok_or_else(|| CliError::Layout {
            path: self.dir.join("cluster.toml"),
            what: format!("node {node} has no ports from {}", self.facts.base_port),
        })
    }

    fn node_folder(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    fn node_config(&self, node: u64) -> NodeConfig {
        let addresses = self.nodes().filter_map(|node| Some((node, self.addresses(node).ok()?)));
        NodeConfig {
            node,
            data_dir: DATA,
            base_port: self.facts.base_port,
            peers: addresses
                .map(|(node, addresses)| Peer { node, address: addresses.peers.to_string() })
                .collect(),
            tls: Tls {
                ca: "../tls/ca.pem",
                cert: format!("../tls/node-{node}.pem"),
                key: format!("../tls/node-{node}.key"),
            },
            raft: Raft { data_groups: self.facts.groups },
            checkpoint: self.facts.checkpoint_seconds.map(|seconds| Checkpoint { seconds }),
        }
    }

    fn client_profile(&self) -> Profile {
        let addresses = self.nodes().filter_map(|node| Some((node, self.addresses(node).ok()?)));
        Profile {
            cluster_id: self.facts.cluster_id.clone(),
            ca: "tls/ca.pem",
            cert: "tls/client.pem",
            key: "tls/client.key",
            nodes: addresses
                .map(|(id, addresses)| ProfileNode {
                    id,
                    native: addresses.native.to_string(),
                    admin: addresses.admin.to_string(),
                })
                .collect(),
        }
    }

    fn save(&self) -> Result<(), CliError> {
        write_toml(&self.dir.join("cluster.toml"), "# Written by `tidelog up`.\n", &self.facts)
    }
}

fn write_toml(path: &Path, head: &str, value: &impl Serialize) -> Result<(), CliError> {
    let text = toml::to_string(value)
        .map_err(|error| CliError::Layout { path: path.to_owned(), what: error.to_string() })?;
    files::replace(path, &format!("{head}{text}"), Access::Public)
}
