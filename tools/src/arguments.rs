//! The command line: every command, flag and help text.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

/// tidelog: a durable, replicated stream log.
///
/// `up` makes a cluster on this machine. The online commands (status, channel, produce, consume) reach the cluster that
/// --profile or TIDELOG_PROFILE names. Exit codes: 0 done, 1 failed or damage found, 2 asked wrongly.
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
    /// Makes certificates for clusters that `up` does not make.
    #[command(subcommand)]
    Certs(Certs),
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
#[group(id = "for", required = true, multiple = false)]
pub(crate) struct CertsIssue {
    /// Folder with ca.pem and ca.key; the certificate is written there too.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// For this node: writes node-I.pem and node-I.key.
    #[arg(long, value_name = "I", group = "for")]
    pub(crate) node: Option<u64>,
    /// For a client of this name (a-z, 0-9, inner hyphens): writes NAME.pem and NAME.key.
    #[arg(long, value_name = "NAME", group = "for")]
    pub(crate) client: Option<String>,
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
        let arguments =
            Arguments::try_parse_from(["tidelog", "version", "--json", "--profile", "p"]).unwrap();
        assert!(arguments.json);
        assert_eq!(arguments.profile, Some(PathBuf::from("p")));
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed() {
        for (line, named) in [(vec!["tidelog", "up", "--dir", "d", "--nodes", "0"], "1..=15")] {
            let error = Arguments::try_parse_from(&line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{line:?}: {error}");
        }
    }
}
