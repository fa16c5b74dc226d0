//! The files of a cluster, and its addresses.

#![expect(clippy::disallowed_methods, reason = "writes and reads the files of the clusters that it makes")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use tidelog_tls::{Authority, PemPair};
use tidelog_wire::ids::{ClusterId, NodeId};

use crate::dice::Dice;
use crate::error::ChaosError;
use crate::network::Ends;

/// First port that is tried, and one beyond the last: below those that the system hands out by itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports between two nodes, as the nodes derive them.
const PER_NODE: u16 = 10;
/// Lines of a log that are shown.
const LINES_SHOWN: usize = 8;

/// What every node's configuration says besides who and where it is: small files and many checkpoints.
const SMALL: &str = "segment_bytes = \"256KiB\"\n[checkpoint]\nbytes = \"2MiB\"\nseconds = 4\n";

/// The files of a cluster, and its addresses.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
    base_port: u16,
    /// Numbers of all nodes that may ever be part of it.
    nodes: Vec<u64>,
    /// What every configuration says besides who and where its node is.
    settings: &'static str,
    /// Whether peers reach each other through the proxy.
    proxied: bool,
}

impl Layout {
    /// Makes certificates and configurations of `founders` nodes, and of `spare` more that may join them, below `dir`,
    /// which is made anew.
    ///
    /// # Errors
    /// [`ChaosError::File`], [`ChaosError::NoPorts`], [`ChaosError::Tls`].
    pub fn make(dir: &Path, founders: u64, spare: u64, dice: &mut Dice) -> Result<Self, ChaosError> {
        let nodes: Vec<u64> = (0..founders + spare).collect();
        let base_port = free_block(&nodes, dice)?;
        let layout = Self { dir: dir.to_owned(), base_port, nodes, settings: SMALL, proxied: true };
        layout.write(founders, dice)?;
        Ok(layout)
    }

    /// The same for `founders` nodes whose peers reach them directly, with `settings` in every configuration.
    ///
    /// # Errors
    /// As [`Layout::make`].
    pub fn direct(
        dir: &Path,
        founders: u64,
        settings: &'static str,
        dice: &mut Dice,
    ) -> Result<Self, ChaosError> {
        let nodes: Vec<u64> = (0..founders).collect();
        let base_port = free_block(&nodes, dice)?;
        let layout = Self { dir: dir.to_owned(), base_port, nodes, settings, proxied: false };
        layout.write(founders, dice)?;
        Ok(layout)
    }

    fn write(&self, founders: u64, dice: &mut Dice) -> Result<(), ChaosError> {
        let (layout, dir) = (self, &self.dir);
        let authority = Authority::create(ClusterId(u128::from(dice.draw()) | 1 << 100))?;
        let write_pair = |name: &str, pair: &PemPair| {
            write(&dir.join("tls").join(format!("{name}.pem")), &pair.cert)?;
            write(&dir.join("tls").join(format!("{name}.key")), &pair.key)
        };
        make_folder(&dir.join("tls"))?;
        write(&dir.join("tls/ca.pem"), authority.cert_pem())?;
        write(&dir.join("tls/ca.key"), &authority.key_pem())?;
        write_pair("client", &authority.issue_client("chaos")?)?;
        let founders: Vec<u64> = (0..founders).collect();
        for node in &layout.nodes {
            write_pair(&format!("node-{node}"), &authority.issue_node(NodeId(*node))?)?;
            make_folder(&layout.folder(*node))?;
            layout.write_config(*node, &founders)?;
        }
        write(&layout.profile(), &layout.profile_text(authority.cluster(), &founders))
    }

    /// Writes a node's configuration, which names those of the cluster that it may ask.
    ///
    /// # Errors
    /// [`ChaosError::File`].
    pub fn write_config(&self, node: u64, members: &[u64]) -> Result<(), ChaosError> {
        write(&self.folder(node).join("config.toml"), &self.config(node, members))
    }

    /// All nodes that may ever be part of it.
    #[must_use]
    pub fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// The folder of a node.
    #[must_use]
    pub fn folder(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data(&self, node: u64) -> PathBuf {
        self.folder(node).join("data")
    }

    /// The profile for clients.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    fn port(&self, node: u64, place: u16) -> u16 {
        let node = u16::try_from(node).unwrap_or(u16::MAX);
        self.base_port.saturating_add(node.saturating_mul(PER_NODE)).saturating_add(place)
    }

    /// Where clients and peers are told to find a node.
    fn told_host(node: u64) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, u8::try_from(node).unwrap_or(u8::MAX).saturating_add(1))
    }

    /// Where a node's admin HTTP is.
    #[must_use]
    pub fn admin(&self, node: u64) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(node, 3)))
    }

    /// Where the peers of each node look for it, and where it is.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<u64, Ends> {
        let ends = |node: &u64| {
            let port = self.port(*node, 1);
            let told = SocketAddr::from((Self::told_host(*node), port));
            let own = if self.proxied { SocketAddr::from((Ipv4Addr::LOCALHOST, port)) } else { told };
            (*node, Ends { told, own })
        };
        self.nodes.iter().map(ends).collect()
    }

    fn config(&self, node: u64, members: &[u64]) -> String {
        let host = Self::told_host(node);
        let (ends, admin, base_port) = (self.ends(), self.admin(node), self.base_port);
        let told = |node: &u64| Some(format!("\"{node}={}\"", ends.get(node)?.told));
        let mut known = members.to_vec();
        if !known.contains(&node) {
            known.push(node);
        }
        let peers: Vec<String> = known.iter().filter_map(told).collect();
        let own = ends.get(&node).map(|ends| ends.own.to_string()).unwrap_or_default();
        let settings = self.settings;
        format!(
            "node = {node}\ndata_dir = \"data\"\nbase_port = {base_port}\nhost = \"{host}\"\nadvertise_host = \"{host}\"\n\
             peers = [{}]\n{settings}[listen]\npeers = \"{own}\"\nadmin = \"{admin}\"\n[tls]\nca = \"../tls/ca.pem\"\n\
             cert = \"../tls/node-{node}.pem\"\nkey = \"../tls/node-{node}.key\"\n",
            peers.join(", "),
        )
    }

    fn profile_text(&self, cluster: ClusterId, founders: &[u64]) -> String {
        let node = |node: &u64| {
            let native = SocketAddr::from((Self::told_host(*node), self.port(*node, 0)));
            format!("{{ id = {node}, native = \"{native}\", admin = \"{}\" }}", self.admin(*node))
        };
        let nodes: Vec<String> = founders.iter().map(node).collect();
        format!(
            "cluster_id = \"{cluster}\"\nca = \"tls/ca.pem\"\ncert = \"tls/client.pem\"\nkey = \"tls/client.key\"\nnodes = [{}]\n",
            nodes.join(", ")
        )
    }

    /// The end of a node's log.
    #[must_use]
    pub fn last_lines(&self, node: u64) -> String {
        let text = fs::read(self.folder(node).join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(LINES_SHOWN).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Keeps a copy of a node's data directory, in place of the one kept before. The node must not run.
    ///
    /// # Errors
    /// [`ChaosError::File`].
    pub fn copy_data(&self, node: u64) -> Result<(), ChaosError> {
        let copy = self.data(node).with_extension("old");
        copy_folder(&self.data(node), &copy).map_err(|source| ChaosError::File {
            path: copy,
            action: "copied",
            source,
        })
    }

    /// Puts the copy in place of a node's data directory. The node must not run.
    ///
    /// # Errors
    /// [`ChaosError::File`].
    pub fn put_copy_back(&self, node: u64) -> Result<(), ChaosError> {
        self.wipe(node)?;
        let (path, copy) = (self.data(node), self.data(node).with_extension("old"));
        fs::rename(copy, &path).map_err(|source| ChaosError::File { path, action: "put back", source })
    }

    /// Removes a node's data directory, as whoever replaced its disk.
    ///
    /// # Errors
    /// [`ChaosError::File`].
    pub fn wipe(&self, node: u64) -> Result<(), ChaosError> {
        let path = self.data(node);
        fs::remove_dir_all(&path).map_err(|source| ChaosError::File { path, action: "removed", source })
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), ChaosError> {
    let failed = |source| ChaosError::File { path: path.to_owned(), action: "made", source };
    fs::create_dir_all(path).map_err(failed)
}

fn write(path: &Path, text: &str) -> Result<(), ChaosError> {
    let failed = |source| ChaosError::File { path: path.to_owned(), action: "written", source };
    fs::write(path, text).map_err(failed)
}

/// A base port whose ports are all free right now.
fn free_block(nodes: &[u64], dice: &mut Dice) -> Result<u16, ChaosError> {
    let beyond = u16::try_from(nodes.len()).unwrap_or(u16::MAX).saturating_mul(PER_NODE);
    let mut starts: Vec<u16> =
        (PORTS.start..PORTS.end.saturating_sub(beyond)).step_by(usize::from(beyond).max(1)).collect();
    dice.shuffle(&mut starts);
    let is_free = |host: Ipv4Addr, port: u16| {
        UdpSocket::bind((host, port)).is_ok() && TcpListener::bind((host, port)).is_ok()
    };
    let all_free = |first: &u16| {
        nodes.iter().zip((*first..).step_by(usize::from(PER_NODE))).all(|(node, base)| {
            let hosts = [Ipv4Addr::LOCALHOST, Layout::told_host(*node)];
            hosts.iter().all(|host| (base..base.saturating_add(4)).all(|port| is_free(*host, port)))
        })
    };
    let (first, last) = (PORTS.start, PORTS.end);
    starts.iter().find(|first| all_free(first)).copied().ok_or(ChaosError::NoPorts { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_put_back_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path(), 1, 0, &mut Dice::new(std::process::id().into())).unwrap();
        let votes = layout.data(0).join("raft/votes");
        fs::create_dir_all(votes.parent().unwrap()).unwrap();
        fs::write(&votes, "before").unwrap();
        layout.copy_data(0).unwrap();
        fs::write(&votes, "after").unwrap();
        fs::write(layout.data(0).join("newer"), "").unwrap();
        layout.put_copy_back(0).unwrap();
        assert_eq!(fs::read_to_string(&votes).unwrap(), "before");
        assert!(!layout.data(0).join("newer").exists());
    }

    /// Peers are told an address at which the proxy listens, and no node listens there.
    #[test]
    fn nodes_are_told_where_the_proxy_is_and_listen_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path(), 3, 1, &mut Dice::new(std::process::id().into())).unwrap();
        let ends = layout.ends();
        assert_eq!(ends.len(), 4);
        for (node, Ends { told, own }) in &ends {
            assert_ne!(told.ip(), own.ip());
            assert_eq!(told.port(), own.port(), "an advertised host keeps the port");
            let config = fs::read_to_string(layout.folder(*node).join("config.toml")).unwrap();
            assert!(config.contains(&format!("[listen]\npeers = \"{own}\"")), "{config}");
            assert!(config.contains(&format!("\"0={}\"", ends[&0].told)), "{config}");
            assert_eq!(config.contains("\"3="), *node == 3, "founders do not know who will join");
        }
    }
}
