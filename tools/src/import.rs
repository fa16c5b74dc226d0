//! `tidelog import`: takes a log into a partition of a channel.
//!
//! **From a data directory** of an embedded engine (or a copy of any): batches go over as they are, byte for byte. The chain
//! of a log depends on nothing but its batches and their offsets, so what the channel's chain must be after each batch is
//! computed from the source, and compared with what the node answers. At the end every replica is asked for its chain. If the
//! source was trimmed, its first record kept becomes offset 0.
//!
//! **From a stream**, as `produce` reads: a line is a record. There is no chain to compare with; of a file, every record is
//! read back and compared instead.
//!
//! Both may be interrupted anywhere and called again: what the channel holds already must be the beginning of the source, which
//! is checked (by chain, or record by record), and importing goes on behind it. The partition must have no other writer: another
//! record in it is noticed, and ends the import before anything is appended behind it.

mod directory;
mod stream;

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;
use tidelog_client::{Client, ClientError};
use tidelog_wire::ids::{Chain, LogId, NodeId, Offset};
use tidelog_wire::protocol::OffsetSpec;
use tokio::time::{Duration, Instant};

use crate::error::CliError;
use crate::output::{Answer, Output};
use crate::status::view::shown;
use crate::values::{ChannelName, Delimiter};

/// How long replicas may take to have everything, when the last record was acknowledged.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at a replica that is behind.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to import, and where to.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The channel. It must exist.
    channel: ChannelName,
    /// The partition, which nobody else writes to meanwhile.
    #[arg(long, value_name = "P", default_value_t = 0)]
    partition: u32,
    /// Data directory of an embedded engine, not in use by a process; or a copy of one.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "file")]
    data_dir: Option<PathBuf>,
    /// Which log of the directory, as GENERATION/PARTITION. Needed if there are several.
    #[arg(long, value_name = "LOG", requires = "data_dir")]
    log: Option<String>,
    /// File of records, one a line; `-` or nothing is standard input.
    #[arg(long, value_name = "F", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Column of a line whose text is the record's key, from 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "data_dir")]
    key_column: Option<u32>,
    /// What separates columns: one byte, or `\t`.
    #[arg(long, value_name = "C", default_value = ",", requires = "key_column")]
    delimiter: Delimiter,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Imported {
    channel: String,
    log: String,
    /// Records that were there already, from an import that was interrupted.
    resumed_at: u64,
    /// Records appended by this call.
    appended: u64,
    /// All records of the partition now.
    records: u64,
    /// The chain that source and all replicas have; none for a stream.
    chain: Option<String>,
    /// Nodes whose replica was compared.
    compared: Vec<NodeId>,
    /// How equality was proved.
    proof: &'static str,
}

impl Answer for Imported {
    fn text(&self) -> String {
        let nodes: Vec<String> = self.compared.iter().map(ToString::to_string).collect();
        let proof = match &self.chain {
            Some(chain) => format!("chain {chain} on source and on nodes {}", nodes.join(", ")),
            None => self.proof.to_owned(),
        };
        format!(
            "channel {} ({}): {} records, {} appended now, {} were there; equal: {proof}",
            self.channel, self.log, self.records, self.appended, self.resumed_at
        )
    }
}

/// Does what is asked for.
pub(crate) async fn run(import: Import, client: &Client, output: &Output) -> Result<(), CliError> {
    let channel = import.channel.as_str().to_owned();
    let log = client.log(&channel, import.partition).await?;
    let target = Target { client: client.clone(), channel, log };
    let imported = match import.data_dir {
        Some(dir) => directory::import(&target, &dir, import.log.as_deref()).await?,
        None => {
            let key = import.key_column.map(|column| (column, import.delimiter));
            Box::pin(stream::import(&target, import.file.as_deref(), key)).await?
        }
    };
    output.print(&imported);
    Ok(())
}

/// Which replicas are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    All,
    Leader,
}

/// The partition that is written.
#[derive(Clone)]
struct Target {
    client: Client,
    channel: String,
    log: LogId,
}

impl Target {
    /// Where the log ends, when everything that was ever sent to it was carried out or never will be.
    ///
    /// A trim to where the log begins changes nothing, but goes through the group's raft log: when it is answered, so is
    /// whatever stood there before it.
    async fn settled_end(&self) -> Result<Offset, CliError> {
        let start = self.client.offset_at(&self.channel, self.log, OffsetSpec::Earliest).await?;
        self.client.trim(&self.channel, self.log, start).await?;
        Ok(self.client.offset_at(&self.channel, self.log, OffsetSpec::Latest).await?)
    }

    /// Waits until replicas have `end` records; all chains there must be `chain`. Gives the nodes that were compared: a node
    /// that does not answer is none of them.
    async fn prove(&self, end: Offset, chain: Chain, of: Of) -> Result<Vec<NodeId>, CliError> {
        let deadline = Instant::now() + PATIENCE;
        let mut compared = Vec::new();
        loop {
            let info = self.client.channel(&self.channel).await?;
            let partition = info.partitions.iter().find(|partition| partition.log == self.log);
            let nodes = partition.map(|partition| match of {
                Of::All => partition.replicas.clone(),
                Of::Leader => partition.leader.into_iter().collect(),
            });
            let mut behind = false;
            for node in nodes.unwrap_or_default() {
                if compared.contains(&node) {
                    continue;
                }
                match self.client.chain_at(node, self.log, end).await {
                    Ok(found) if found == chain => compared.push(node),
                    Ok(found) => return Err(self.other(end, chain, found, node)),
                    Err(ClientError::Refused { .. }) => behind = true,
                    Err(ClientError::Timeout { .. } | ClientError::Unreachable { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !behind && !compared.is_empty() {
                return Ok(compared);
            }
            if Instant::now() >= deadline {
                return Err(CliError::NotCaughtUp { seconds: PATIENCE.as_secs(), records: end.get() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn other(&self, offset: Offset, expected: Chain, found: Chain, node: NodeId) -> CliError {
        CliError::NotTheSource {
            log: self.log,
            offset,
            why: format!("the source's chain is {}, on node {node} it is {}", shown(expected), shown(found)),
        }
    }
}
