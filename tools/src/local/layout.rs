//! What a cluster's directory holds, and how it is made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ports::{self, NodeAddresses};
use super::process::NodeProcess;
use crate::certs;
use crate::error::CliError;
use crate::files::{self, Access};

/// Nodes of a cluster when none are asked for.
const NODES_DEFAULT: u64 = 3;
/// Data groups of a cluster when none are asked for.
const GROUPS_DEFAULT: u64 = 4;
/// The version of `cluster.toml`.
const VERSION: u32 = 1;

/// What was asked of a cluster; `None` is "as it is, or the default for a new one".
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) nodes: Option<u64>,
    /// 0 is any free block.
    pub(crate) base_port: Option<u16>,
    pub(crate) groups: Option<u64>,
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
    nodes: u64,
    groups: u64,
    base_port: u16,
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
        if facts.nodes == 0 || ports::addresses(facts.base_port, facts.nodes - 1).is_none() {
            return Err(wrong(format!("{} nodes from port {}", facts.nodes, facts.base_port)));
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
            nodes,
            groups,
            base_port,
            formed: false,
        };
        let layout = Self { dir, facts };
        for node in layout.nodes() {
            files::create_folder(&layout.node_folder(node))?;
            let path = layout.node_folder(node).join("config.toml");
            let head = "# Written by `tidelog up`. Every key: `tidelogd --print-config-reference`.\n";
            write_toml(&path, head, &layout.node_config(node))?;
        }
        let head = "# How clients reach this cluster: give it to --profile or TIDELOG_PROFILE.\n";
        write_toml(&layout.profile(), head, &layout.client_profile())?;
        layout.save()?;
        Ok(layout)
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
        asked("nodes", self.facts.nodes, shape.nodes)?;
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
    pub(crate) fn nodes(&self) -> std::ops::Range<u64> {
        0..self.facts.nodes
    }

    /// Refuses a node that the cluster does not have.
    pub(crate) fn check_node(&self, node: u64) -> Result<(), CliError> {
        if self.nodes().contains(&node) {
            return Ok(());
        }
        Err(CliError::NoNode { node, have: format!("0 to {}", self.facts.nodes - 1) })
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
            data_dir: "data",
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
