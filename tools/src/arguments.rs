//! The command line: every command, flag and help text.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueHint};

use crate::bench::Bench;
use crate::cluster::arguments::Cluster;
use crate::cursor::Cursor;
use crate::import::Import;
use crate::segment::arguments::Segment;
use crate::values::{ChannelName, Delimiter, Size, Start};

/// tidelog: a durable, replicated stream log.
///
/// `up` makes a cluster on this machine. The online commands (status, channel, produce, consume) reach the cluster that
/// --profile or TIDELOG_PROFILE names. Exit codes: 0 done, 1 failed or damage found, 2 asked wrongly, 3 no damage
/// found, but something could not be judged (`segment verify`).
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, max_term_width = 110, propagate_version = true)]
pub(crate) struct Arguments {
    /// Profile of the cluster: `up` writes one to D/client.toml.
    #[arg(long, global = true, value_name = "FILE", env = "TIDELOG_PROFILE", value_hint = ValueHint::FilePath)]
    pub(crate) profile: Option<PathBuf>,
    /// Answers as JSON on standard output; errors too, as {"error": "…"}.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a cluster of tidelogd processes on this machine, with TLS, below a directory.
    ///
    /// Returns when every node serves and every group has a leader. Run again on the same directory, it starts what is
    /// not running and leaves the rest alone. Writes D/client.toml, the profile for the online commands.
    Up(Up),
    /// Stops the cluster below a directory: every node hands over, syncs and ends.
    Down(Down),
    /// Ends one node and starts it again; returns when it serves.
    RestartNode(RestartNode),
    /// Shows three nodes taking a real stream, losing their leader, and losing nothing else.
    ///
    /// Makes a cluster in a temporary directory, streams records in, kills the leader with SIGKILL on the way, starts it
    /// again, reads everything back from each node and compares it with the input byte for byte. What it prints is
    /// measured. It stops what it started. Exits with 1 if a promise is broken.
    Demo(Demo),
    /// Measures a cluster of its own: failover, and what an acknowledged append takes.
    #[command(subcommand)]
    Bench(Bench),
    /// Makes certificates for clusters that `up` does not make.
    #[command(subcommand)]
    Certs(Certs),
    /// Shows nodes, groups and channels, with each replica's chain at one common offset.
    Status,
    /// Shows and changes the cluster's members, spreads leaders and replicas, and proves replicas equal.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Makes, lists, describes, deletes and trims channels.
    #[command(subcommand)]
    Channel(Channel),
    /// Sends records: one a line, from a file or standard input.
    ///
    /// A record is a line without its newline; it need not be UTF-8, and a last line without a newline counts. At the end,
    /// and on failure or Ctrl-C too, it prints what was acknowledged: those records are on a quorum's disks.
    Produce(Produce),
    /// Reads records: their values as they are, one a line.
    Consume(Consume),
    /// Sets, shows, lists and deletes durable named positions of a partition.
    #[command(subcommand)]
    Cursor(Cursor),
    /// Takes a log into a channel: of an embedded engine's data directory, or a stream of records.
    ///
    /// May be interrupted and called again: what is there already is checked against the source, and importing goes on behind it. At
    /// the end it proves that channel and source are equal: by chain where the source has one, else record by record.
    Import(Import),
    /// Looks at segment files without a server, and mends them.
    ///
    /// Works on the data directory of a node, running or not, on parts of it and on copies. Only `repair --apply` writes,
    /// and refuses while a process holds the directory.
    #[command(subcommand)]
    Segment(Segment),
    /// Prints the version, and what this program was built for.
    Version,
    /// Prints completions for a shell: `tidelog completions bash > /etc/bash_completion.d/tidelog`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where a local cluster is, and which server it runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Local {
    /// Directory of the cluster.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Which server to start, and how patiently.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// The server program. Otherwise the tidelogd beside this program.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::ExecutablePath)]
    pub(crate) tidelogd: Option<PathBuf>,
    /// How long nodes may take to be ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) wait_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) local: Local,
    /// Number of nodes. 3 for a new cluster; an existing one keeps its number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=15))]
    pub(crate) nodes: Option<u64>,
    /// First port P: node i opens P+10i to P+10i+3. 0, the default for a new cluster, takes a free block.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(0..=65_300))]
    pub(crate) base_port: Option<u16>,
    /// Number of data groups, which share out the partitions. 4 for a new cluster.
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) groups: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Directory of the cluster.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Kills nodes that run still when the time is over. Nothing acknowledged is lost by it.
    #[arg(long)]
    pub(crate) force: bool,
    /// How long nodes may take to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) wait_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RestartNode {
    #[command(flatten)]
    pub(crate) local: Local,
    /// Which node, from 0.
    #[arg(long, value_name = "I")]
    pub(crate) node: u64,
    /// With SIGKILL, as a crash would, instead of a graceful stop.
    #[arg(long)]
    pub(crate) kill: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The stream: a text file, one record a line after a header line; `.gz` is unpacked. Otherwise the flights of 2013
    /// from `../shared/data/` if they are there, else the extract in `examples/data/`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) data: Option<PathBuf>,
    /// Keeps the directory of the cluster instead of removing it.
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Certs {
    /// Makes the authority of a new cluster, and with it the cluster's id.
    Create {
        /// Folder to write ca.pem and ca.key to. The key makes members of the cluster: keep it away from nodes.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Makes a certificate for a node or for a client.
    Issue(CertsIssue),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("for").required(true).args(["node", "client"]))]
pub(crate) struct CertsIssue {
    /// Folder with ca.pem and ca.key; the certificate is written there too.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// For this node: writes node-I.pem and node-I.key.
    #[arg(long, value_name = "I")]
    pub(crate) node: Option<u64>,
    /// For a client of this name (a-z, 0-9, inner hyphens): writes NAME.pem and NAME.key.
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,
    /// Days until the certificate expires. Otherwise it does not. A running node takes the new files into use by itself
    /// within half a minute, or at once on SIGHUP.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// Makes channels; returns when they take records.
    ///
    /// Several names, or --count, are agreed on together, a thousand in one request.
    Create {
        /// Their names: letters, digits, `.`, `_` and `-`, at most 249.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<ChannelName>,
        /// Makes so many channels, NAME-0, NAME-1 and so on.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: Option<u32>,
        /// Number of partitions, each a log of its own.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        partitions: u32,
        /// Copies of each record. Otherwise as many as the cluster keeps: three, or one a node if there are fewer.
        #[arg(long, value_name = "R")]
        replicas: Option<u32>,
        /// Size at which a segment file is sealed, as a number or with KiB, MiB or GiB.
        #[arg(long, value_name = "B")]
        segment_bytes: Option<Size>,
    },
    /// Lists the channels.
    List,
    /// Shows one channel with its partitions.
    Describe {
        /// Its name.
        name: ChannelName,
    },
    /// Deletes a channel with all its records.
    Delete {
        /// Its name.
        name: ChannelName,
        /// Only if the channel is still this one: a channel made anew under its name has another generation.
        #[arg(long, value_name = "G")]
        generation: Option<u64>,
    },
    /// Drops the records of a partition below an offset.
    Trim {
        /// Its name.
        name: ChannelName,
        /// Which partition.
        #[arg(long, value_name = "P", default_value_t = 0)]
        partition: u32,
        /// First offset to keep.
        #[arg(long, value_name = "OFFSET")]
        to: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// File to read; `-` or nothing is standard input.
    #[arg(long, value_name = "F", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Column whose text is the record's key, from 1. Records of one key keep their order.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) key_column: Option<u32>,
    /// What separates columns: one byte, or `\t`.
    #[arg(long, value_name = "C", default_value = ",", requires = "key_column")]
    pub(crate) delimiter: Delimiter,
    /// Most records in a batch. A batch is also closed when it is large, or when no input is waiting.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch_records: u32,
    /// Sends every record to this partition, whatever its key.
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Only this partition. Otherwise all, one after the other or, with --follow, as they come.
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// Where to begin: `earliest`, `latest`, an offset, or a time as 2013-01-01T10:00:00Z.
    #[arg(long, value_name = "WHERE", default_value = "earliest")]
    pub(crate) from: Start,
    /// Ends after this many records.
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
    /// Ends at the high watermark that held at the start. This is what happens without --follow too.
    #[arg(long, conflicts_with = "follow")]
    pub(crate) until_end: bool,
    /// Goes on waiting for new records until Ctrl-C or --max.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Reads the replica of this node, whether it leads or not.
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_all_commands_may_stand_after_the_command() {
        let arguments = Arguments::try_parse_from(["tidelog", "status", "--json", "--profile", "p"]).unwrap();
        assert!(arguments.json);
        assert_eq!(arguments.profile, Some(PathBuf::from("p")));
    }

    /// Story: a group on a struct takes in every flag of it, so `certs issue` refused the very flags that it needs beside
    /// each other. Nothing noticed, since the commands were never parsed whole.
    #[test]
    fn flags_that_belong_together_may_stand_together_and_alternatives_may_not() {
        for line in [
            "certs issue --dir d --node 1 --days 30",
            "certs issue --dir d --client c",
            "cluster add-node --dir d --change-seconds 5",
            "cluster add-node --node-dir n --ca c --base-port 7400",
            "cluster transfer-leader --group 1 --to 2",
            "cluster transfer-leader --node 1 --to 2",
            "cluster transfer-leader --node 1",
            "cluster remove-node 3 --dir d",
            "cluster replace-node 3 --dir d",
            "cluster compare --data-dir a --data-dir b",
            "cluster recover --data-dir d --accept-loss --yes",
            "cursor set flights reader 7 --partition 1",
            "import flights --data-dir d --log 1/0",
            "channel create a b c",
            "channel create many --count 1000",
        ] {
            let parsed = Arguments::try_parse_from(std::iter::once("tidelog").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "certs issue --dir d",
            "certs issue --dir d --node 1 --client c",
            "cluster add-node",
            "cluster add-node --dir d --node-dir n --ca c",
            "cluster add-node --node-dir n",
            "cluster transfer-leader --group 1",
            "cluster transfer-leader --group 1 --node 1 --to 2",
            "cluster recover --data-dir d --yes",
        ] {
            let parsed = Arguments::try_parse_from(std::iter::once("tidelog").chain(line.split(' ')));
            assert!(parsed.is_err(), "{line}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed() {
        for (line, named) in [
            (vec!["tidelog", "consume", "c", "--from", "noon"], "RFC 3339"),
            (vec!["tidelog", "channel", "create", "a/b"], "letters"),
            (vec!["tidelog", "up", "--dir", "d", "--nodes", "0"], "1..=15"),
            (vec!["tidelog", "produce", "c", "--delimiter", "ab", "--key-column", "1"], "one byte"),
        ] {
            let error = Arguments::try_parse_from(&line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{line:?}: {error}");
        }
    }
}
