//! Commands and flags of `tidelog cluster`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use crate::arguments::Server;
use crate::values::ChannelName;

/// What can be asked of the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Shows nodes with their state, version and certificate, groups with their members, and what is under way.
    Status,
    /// Adds a node and waits until it holds what it should.
    ///
    /// With --dir, to a cluster of `up`: issues a certificate, writes the configuration, starts the process. With --node-dir and
    /// --ca, to any cluster whose authority is at hand, such as a single tidelogd with its own (DATA/tls): the new node gets a folder
    /// of its own. May be interrupted and called again.
    AddNode(AddNode),
    /// Moves everything off a node, ends its membership, and with --dir stops its process.
    ///
    /// Refused with the reason where it is unsafe: too few nodes would be left, or a group would lose its quorum. May be interrupted
    /// and called again. Its data directory stays where it is and is never let in again.
    RemoveNode(RemoveNode),
    /// Gives a node of a cluster of `up` an empty data directory and has it filled from the others.
    ///
    /// For a node whose disk is lost or not to be trusted. What is left of the old directory is set aside, not removed. Refused while
    /// the other nodes lack a quorum without it.
    ReplaceNode(ReplaceNode),
    /// Hands leadership of one group to a node, or of all groups that a node leads to others.
    TransferLeader(TransferLeader),
    /// Spreads replicas and leaders evenly over the nodes.
    Rebalance {
        /// Only says what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Proves that all replicas hold the same, by the chains of every log at one common offset. Exits with 1 on a difference.
    ///
    /// With --data-dir, given for each directory, without any node: over the directories themselves, or copies of them.
    Compare(Compare),
    /// For a node alone whose raft log cannot be read: goes on from its checkpoints, and gives up what came after them.
    ///
    /// Says what is given up; does it only with --accept-loss, and after that was typed. Refused where other nodes count: they have
    /// what this one lost. The node must not run.
    Recover(Recover),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").required(true).args(["dir", "node_dir"]))]
pub(crate) struct AddNode {
    /// Directory of a cluster that `up` made.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Folder of the new node, for a cluster that `up` did not make: certificates, configuration and data go there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "ca")]
    pub(crate) node_dir: Option<PathBuf>,
    /// Folder with ca.pem and ca.key of the cluster's authority.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "node_dir")]
    pub(crate) ca: Option<PathBuf>,
    /// First port P of the new node's folder: node i opens P+10i to P+10i+3. Otherwise a free block.
    #[arg(long, value_name = "P", requires = "node_dir", value_parser = clap::value_parser!(u16).range(1..=65_300))]
    pub(crate) base_port: Option<u16>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveNode {
    /// Which node.
    #[arg(value_name = "N")]
    pub(crate) node: u64,
    /// Directory of a cluster that `up` made: the node's process is stopped at the end.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct ReplaceNode {
    /// Which node.
    #[arg(value_name = "N")]
    pub(crate) node: u64,
    /// Directory of the cluster.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// How patiently a change is waited for.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Waiting {
    /// How long the change may take until this command gives up waiting; it goes on without.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(crate) change_seconds: u64,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["group", "node"]))]
pub(crate) struct TransferLeader {
    /// The group.
    #[arg(long, value_name = "G", requires = "to")]
    pub(crate) group: Option<u64>,
    /// All groups that this node leads.
    #[arg(long, value_name = "N")]
    pub(crate) node: Option<u64>,
    /// The node that shall lead. With --node, otherwise one of each group's members.
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The node's data directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: PathBuf,
    /// Does it. Otherwise it is only said what would be given up.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Does not ask.
    #[arg(long, requires = "accept_loss")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Only this channel.
    #[arg(long, value_name = "NAME", conflicts_with = "data_dirs")]
    pub(crate) channel: Option<ChannelName>,
    /// A data directory, or a copy of one; give it once for each.
    #[arg(long = "data-dir", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data_dirs: Vec<PathBuf>,
}
