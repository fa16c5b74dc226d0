//! `tidelog bench failover`: how long writes stand still when their leader dies, and when it hands over.
//!
//! 1. Three nodes in a temporary directory. One writer has the measured channel; others load the cluster beside it.
//! 2. A round: the leader of the measured channel dies by SIGKILL, and the next acknowledged write ends the round. Then the node
//!    is started again, and the next round begins when every replica of every group has caught up.
//! 3. Hand-overs: a window without any, one around a `transfer-leader`, one around a graceful stop of the leader; each as
//!    long as the others, so that their slowest writes may be compared.
//! 4. All that was acknowledged is read back.
//!
//! A failover is taken from the longest pause that ends after the kill (see `demo::timing`): an answer which the dying
//! leader had sent cannot shorten it.

mod report;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tidelog_client::{Client, NewChannel};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex};
use tidelog_wire::protocol::{GroupInfo, ReplicaRole};
use tokio::time::Instant;

use crate::arguments::Server;
use crate::demo::timing::AckTimes;
use crate::demo::{clear, interrupted_or};
use crate::error::CliError;
use crate::files;
use crate::local::{self, Ending, Layout, Shape};
use crate::local_commands::server_program;
use crate::online::{self, Patience};
use crate::output::Output;
use report::{Measured, Report};
use writer::{Verdict, Writer};

/// Nodes of the cluster.
const NODES: u64 = 3;
/// The channel whose leader dies.
const CHANNEL: &str = "measured";
/// The channel that loads the cluster.
const LOAD: &str = "load";
/// How long an election, or catching up, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Writes after a kill that are waited for: enough that the pause around it is surely the longest.
const WRITES_AFTER: u64 = 50;
/// How long writes are watched around a hand-over.
const WINDOW: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Failover {
    /// How many times the leader is killed.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many times leadership is handed over, by a transfer and by a graceful stop each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    hand_overs: u32,
    /// Writers beside the measured one, each with one record under way.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=64))]
    load: u32,
    /// Bytes of a record.
    #[arg(long, value_name = "B", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    record_bytes: u32,
    /// Keeps the directory of the cluster instead of removing it.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    server: Server,
}

/// Measures, stops what it started, and fails if a promise is broken.
pub(crate) async fn run(failover: Failover, output: &Output) -> Result<(), CliError> {
    let dir = std::env::temp_dir().join(format!("tidelog-bench-{}", std::process::id()));
    let keep = failover.keep;
    let measured = interrupted_or(measure(&dir, failover)).await;
    let stopped = clear(&dir).await;
    if let Ok(report) = &measured {
        output.print(report);
    }
    let kept = measured.and_then(|report| report.verdict());
    if keep || kept.is_err() {
        eprintln!("the cluster's directory is kept: {}", dir.display());
    } else if files::exists(&dir) {
        files::remove_folder(&dir)?;
    }
    kept.and(stopped)
}

async fn measure(dir: &Path, failover: Failover) -> Result<Report, CliError> {
    let server = server_program(&failover.server)?;
    let shape = Shape { nodes: Some(NODES), ..Shape::default() };
    let layout = local::start(dir, shape, &server, failover.server.wait_seconds).await?.layout;
    let client = online::connect(Some(&layout.profile()), Patience::Work)?;
    let look = online::connect(Some(&layout.profile()), Patience::Look)?;
    for (name, partitions) in [(CHANNEL, 1), (LOAD, failover.load.max(1))] {
        let name = name.to_owned();
        client.create_channel(NewChannel { name, partitions, replicas: None, segment_bytes: None }).await?;
    }
    let bytes = usize::try_from(failover.record_bytes).unwrap_or(usize::MAX);
    let mut load = Vec::new();
    for partition in 0..failover.load {
        load.push(Writer::start(&client, LOAD, partition, bytes).await?);
    }
    let measured = Writer::start(&client, CHANNEL, 0, bytes).await?;
    let group = group_of(&client).await?;
    let seconds = failover.server.wait_seconds;
    let stage = Stage { layout, server, seconds, client, look, group, writer: measured };
    let result = stage.rounds(failover.rounds, failover.hand_overs).await?;
    let mut verdict = Verdict::default();
    let Stage { client, writer, .. } = stage;
    for writer in load.into_iter().chain([writer]) {
        verdict.add(writer.finish(&client).await?);
    }
    Ok(Report::new(&result, verdict, failover.load))
}

/// The group that carries the measured channel.
async fn group_of(client: &Client) -> Result<GroupId, CliError> {
    let channel = client.channel(CHANNEL).await?;
    let partition = channel.partitions.first().ok_or(CliError::NoLeader { seconds: 0 })?;
    Ok(partition.group)
}

/// Everything that the rounds need.
struct Stage {
    layout: Layout,
    server: PathBuf,
    seconds: u64,
    client: Client,
    look: Client,
    group: GroupId,
    writer: Writer,
}

impl Stage {
    async fn rounds(&self, kills: u32, hand_overs: u32) -> Result<Measured, CliError> {
        let started = Instant::now();
        let bar = ProgressBar::new(u64::from(kills + 2 * hand_overs)).with_message("rounds");
        let mut failovers = Vec::new();
        for _ in 0..kills {
            self.settled().await?;
            failovers.push(self.kill().await?);
            bar.inc(1);
        }
        let [mut quiet, mut transfer, mut stop] = [Duration::ZERO; 3];
        for _ in 0..hand_overs {
            self.settled().await?;
            quiet = quiet.max(self.watched(async |_| Ok(())).await?);
            transfer = transfer.max(self.watched(async |leader| self.transfer(leader).await).await?);
            bar.inc(1);
            self.settled().await?;
            stop = stop.max(self.watched(async |leader| self.end(leader, Ending::Graceful).await).await?);
            self.revive().await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Measured {
            failovers,
            hand_overs: usize::try_from(hand_overs).unwrap_or(usize::MAX),
            quiet_slowest: quiet,
            transfer_slowest: transfer,
            stop_slowest: stop,
            took: started.elapsed(),
        })
    }

    /// One round: from the kill to the next acknowledged write.
    async fn kill(&self) -> Result<Duration, CliError> {
        let leader = self.leader().await?;
        let from = Instant::now();
        self.writer.acknowledged(WRITES_AFTER, PATIENCE).await?;
        let killed = Instant::now();
        self.end(leader, Ending::Kill).await?;
        self.writer.acknowledged(WRITES_AFTER, PATIENCE).await?;
        let mut times = AckTimes::default();
        for (ended, _) in self.writer.between(from, Instant::now()) {
            times.acknowledged(ended.saturating_duration_since(from));
        }
        let failover = times.failover(killed.saturating_duration_since(from));
        self.revive().await?;
        failover.map(|failover| failover.since_kill).ok_or(CliError::NoLeader { seconds: 0 })
    }

    /// The slowest write of a window in which `disturb` is done to the leader.
    async fn watched(
        &self,
        disturb: impl AsyncFnOnce(NodeId) -> Result<(), CliError>,
    ) -> Result<Duration, CliError> {
        let leader = self.leader().await?;
        let from = Instant::now();
        disturb(leader).await?;
        tokio::time::sleep_until(from + WINDOW).await;
        // The window is over when what was under way in it has its answer.
        self.writer.acknowledged(1, PATIENCE).await?;
        let writes = self.writer.between(from, from + WINDOW);
        Ok(writes.into_iter().map(|(_, took)| took).max().unwrap_or_default())
    }

    async fn transfer(&self, leader: NodeId) -> Result<(), CliError> {
        let to = NodeId((leader.get() + 1) % NODES);
        Ok(self.client.transfer_leader(self.group, to).await?)
    }

    async fn end(&self, node: NodeId, ending: Ending) -> Result<(), CliError> {
        let process = self.layout.process(node.get());
        process.signal(ending)?;
        if process.ended_within(PATIENCE).await? {
            return Ok(());
        }
        Err(CliError::StillRunning { seconds: PATIENCE.as_secs(), nodes: node.to_string() })
    }

    /// Starts what does not run, and waits until it serves.
    async fn revive(&self) -> Result<(), CliError> {
        local::start(self.layout.dir(), Shape::default(), &self.server, self.seconds).await.map(|_| ())
    }

    /// The node that leads the measured channel, by its own word.
    async fn leader(&self) -> Result<NodeId, CliError> {
        let found = async {
            loop {
                for node in self.layout.nodes().map(NodeId) {
                    let groups = self.look.node_status(node, false).await.map(|status| status.groups);
                    let leads =
                        |group: &GroupInfo| group.group == self.group && group.role == ReplicaRole::Leader;
                    if groups.is_ok_and(|groups| groups.iter().any(leads)) {
                        return node;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let limit = CliError::NoLeader { seconds: PATIENCE.as_secs() };
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| limit)
    }

    /// Waits until every group has a leader whose followers have all that is committed now.
    async fn settled(&self) -> Result<(), CliError> {
        let mut goals: std::collections::BTreeMap<GroupId, RaftIndex> = std::collections::BTreeMap::new();
        let settling = async {
            loop {
                let mut settled = 0;
                for node in self.layout.nodes().map(NodeId) {
                    let Ok(status) = self.look.node_status(node, false).await else { continue };
                    for group in status.groups.iter().filter(|group| group.role == ReplicaRole::Leader) {
                        let goal = *goals.entry(group.group).or_insert(group.committed);
                        let follows = group.peers.iter().all(|peer| peer.active && peer.match_index >= goal);
                        settled += usize::from(follows && group.peers.len() > 1);
                    }
                }
                if settled > 0 && settled >= goals.len() {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let limit = CliError::NotCaughtUp { seconds: PATIENCE.as_secs(), records: 0 };
        tokio::time::timeout(PATIENCE, settling).await.map_err(|_| limit)
    }
}
