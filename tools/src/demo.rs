//! `tidelog demo`: the promise, shown on real processes and measured.
//!
//! 1. Three nodes in a temporary directory, and the channel `flights`.
//! 2. The stream goes in. When a third of it is acknowledged, the leader of its partition dies by SIGKILL. Should the stream be
//!    short, its last third waits for that: the leader always dies in mid-stream.
//! 3. As soon as another node leads and acknowledges, the dead one is started again.
//! 4. When all replicas have everything, their chains are compared at the same offset, and each node's replica is read and
//!    compared with the input, byte for byte.
//! 5. Whatever came of it, what was started is stopped.
//!
//! Nothing that is printed is assumed: each number is counted or timed in this run.

mod comparison;
mod report;
mod source;
pub(crate) mod timing;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidelog_client::{Client, ConsumerOptions, NewChannel};
use tidelog_wire::ids::{NodeId, Offset};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::arguments::Demo;
use crate::consume::{self, End};
use crate::error::CliError;
use crate::files;
use crate::local::{self, Ending, Layout, Shape, Stopped};
use crate::local_commands::server_program;
use crate::online::{self, Patience};
use crate::output::Output;
use crate::produce::input::{KeyColumn, Line, Lines, read_ahead};
use crate::produce::{self, Chunks, Sent, interrupted};
use crate::status;
use comparison::Comparison;
use report::{NodeReport, Report};
use source::{Extent, Source};
use timing::AckTimes;

/// The channel of the demonstration.
const CHANNEL: &str = "flights";
/// Records of a batch, where the stream is long; a short one has smaller batches, so that the kill meets a stream.
const BATCH_RECORDS_MAX: u32 = 500;
/// Batches that a stream has at the least.
const BATCHES_MIN: u64 = 100;
/// The column with the carrier, the key of a flight.
const KEY: KeyColumn = KeyColumn { column: 10, delimiter: b',' };
/// How long an election, or catching up, may take before the demonstration gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long nodes may take to stop at the end.
const STOP_SECONDS: u64 = 30;

/// Shows it, stops what it started, and fails if a promise is broken.
pub(crate) async fn run(demo: Demo, output: &Output) -> Result<(), CliError> {
    let server = server_program(&demo.server)?;
    let source = Source::find(demo.data)?;
    let dir = std::env::temp_dir().join(format!("tidelog-demo-{}", std::process::id()));
    let stage = Stage { dir: dir.clone(), server, seconds: demo.server.wait_seconds, source };
    let shown = interrupted_or(stage.show()).await;
    let stopped = clear(&dir).await;
    if let Ok(report) = &shown {
        output.print(report);
    }
    let kept = shown.and_then(|report| report.verdict());
    // The directory stays where it can tell something.
    if demo.keep || kept.is_err() {
        eprintln!("the cluster's directory is kept: {}", dir.display());
    } else if files::exists(&dir) {
        files::remove_folder(&dir)?;
    }
    kept.and(stopped)
}

/// What `work` gives, unless somebody ends this process first.
pub(crate) async fn interrupted_or<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        done = Box::pin(work) => done,
        interrupted = interrupted() => interrupted.and(Err(CliError::Interrupted)),
    }
}

/// Stops every node of a cluster below a temporary directory, by force if need be.
pub(crate) async fn clear(dir: &Path) -> Result<(), CliError> {
    let stopped = match local::stop(dir, STOP_SECONDS, true).await {
        Err(CliError::NoCluster { .. }) => return Ok(()),
        stopped => stopped?,
    };
    let running = stopped.iter().filter(|(_, stopped)| *stopped == Stopped::StillRunning);
    let running: Vec<String> = running.map(|(node, _)| node.to_string()).collect();
    if running.is_empty() {
        return Ok(());
    }
    Err(CliError::StillRunning { seconds: STOP_SECONDS, nodes: running.join(", ") })
}

/// Everything that a run needs.
struct Stage {
    dir: PathBuf,
    server: PathBuf,
    seconds: u64,
    source: Source,
}

/// The leader's death.
struct Death {
    node: NodeId,
    /// Since the start of the stream.
    at: Duration,
    /// Records acknowledged until then.
    acknowledged: u64,
}

impl Stage {
    async fn show(&self) -> Result<Report, CliError> {
        let extent = self.source.extent()?;
        say(&format!(
            "stream: {} records, {} bytes, from {}",
            extent.records,
            extent.bytes,
            self.source.path().display()
        ));
        let layout = self.up().await?;
        let profile = layout.profile();
        let client = online::connect(Some(&profile), Patience::Work)?;
        let channel =
            NewChannel { name: CHANNEL.to_owned(), partitions: 1, replicas: None, segment_bytes: None };
        client.create_channel(channel).await?;
        say("three nodes are ready; the stream begins");

        let (sent, times, death) = self.stream(&client, &layout, extent).await?;
        let records = sent.tally.records();
        say("the whole stream is acknowledged; waiting until every replica has it");
        let chains = agreed(&profile, records).await?;
        let mut nodes = Vec::new();
        for (node, chain) in chains {
            say(&format!("reading everything back from node {node}"));
            let verdict = self.read_back(&client, node).await?;
            nodes.push(NodeReport { node, chain, verdict });
        }
        Ok(Report {
            source: self.source.path().to_owned(),
            sent: extent,
            acknowledged: records,
            acknowledged_bytes: sent.tally.bytes(),
            retries: sent.retries,
            took: sent.took,
            killed: death.node,
            killed_at: death.acknowledged,
            failover: times.failover(death.at),
            nodes,
        })
    }

    /// Starts what does not run.
    async fn up(&self) -> Result<Layout, CliError> {
        let shape = Shape { nodes: Some(3), ..Shape::default() };
        Ok(local::start(&self.dir, shape, &self.server, self.seconds).await?.layout)
    }

    /// Streams everything in; on the way the leader dies and is started again.
    async fn stream(
        &self,
        client: &Client,
        layout: &Layout,
        extent: Extent,
    ) -> Result<(Sent, AckTimes, Death), CliError> {
        let batch_records =
            u32::try_from(extent.records / BATCHES_MIN).unwrap_or(u32::MAX).clamp(1, BATCH_RECORDS_MAX);
        let (acknowledged, watched) = watch::channel(0);
        let (killed, held) = watch::channel(false);
        let chunks = hold_back(self.source.lines(Some(KEY))?, batch_records, extent.records * 2 / 3, held)?;
        let times = Arc::new(Mutex::new(AckTimes::default()));
        let (bar, started) = (progress(extent.records), Instant::now());
        let counted = {
            let (times, bar) = (Arc::clone(&times), bar.clone());
            move |records| {
                times.lock().unwrap_or_else(PoisonError::into_inner).acknowledged(started.elapsed());
                bar.set_position(records);
                acknowledged.send_replace(records);
            }
        };
        let shape = produce::Shape { batch_records, partition: None };
        let sending = produce::send(client, CHANNEL, shape, chunks, counted);
        let dying = async {
            let acknowledged = watched.clone();
            let death =
                self.kill_leader(client, layout, extent.records / 3, started, acknowledged, &bar).await;
            // Whatever came of it, the rest of the stream need not wait any longer.
            killed.send_replace(true);
            let death = death?;
            self.revive(client, &death, watched, &bar).await?;
            Ok::<Death, CliError>(death)
        };
        let (sent, death) = tokio::join!(Box::pin(sending), Box::pin(dying));
        bar.finish_and_clear();
        let sent = sent?;
        if let Some(failure) = sent.failure {
            return Err(failure);
        }
        let death = death?;
        let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((sent, times, death))
    }

    /// Kills the leader when `records` are acknowledged; returns when its process is gone.
    async fn kill_leader(
        &self,
        client: &Client,
        layout: &Layout,
        records: u64,
        started: Instant,
        mut acknowledged: watch::Receiver<u64>,
        bar: &ProgressBar,
    ) -> Result<Death, CliError> {
        // The sender goes when the stream has ended, which here means that it failed: then its error is told, not this.
        if acknowledged.wait_for(|count| *count >= records).await.is_err() {
            return Err(CliError::Interrupted);
        }
        let node = leader(client).await?.ok_or(CliError::NoLeader { seconds: 0 })?;
        let process = layout.process(node.get());
        process.signal(Ending::Kill)?;
        let death = Death { node, at: started.elapsed(), acknowledged: *acknowledged.borrow() };
        if !process.ended_within(PATIENCE).await? {
            return Err(CliError::StillRunning { seconds: PATIENCE.as_secs(), nodes: node.to_string() });
        }
        bar.suspend(|| {
            say(&format!(
                "node {node}, the leader, is killed after {} acknowledged records",
                death.acknowledged
            ));
        });
        Ok(death)
    }

    /// Starts the dead node again once another leads and acknowledges.
    async fn revive(
        &self,
        client: &Client,
        death: &Death,
        mut acknowledged: watch::Receiver<u64>,
        bar: &ProgressBar,
    ) -> Result<(), CliError> {
        let followed = async {
            while leader(client).await?.is_none_or(|node| node == death.node) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok::<(), CliError>(())
        };
        let limit = CliError::NoLeader { seconds: PATIENCE.as_secs() };
        tokio::time::timeout(PATIENCE, followed).await.unwrap_or(Err(limit))?;
        // If the stream has ended already, with or without success, there is nothing more to wait for.
        let seen = *acknowledged.borrow_and_update();
        drop(acknowledged.wait_for(|count| *count > seen).await);
        self.up().await?;
        bar.suspend(|| say(&format!("node {} is back", death.node)));
        Ok(())
    }

    /// Compares what `node` has with the input.
    async fn read_back(&self, client: &Client, node: NodeId) -> Result<comparison::Verdict, CliError> {
        let options = ConsumerOptions { node: Some(node.get()), ..ConsumerOptions::default() };
        // Nothing is ever trimmed here, so the log begins at 0; replicas that do not lead answer only for offsets.
        let start = tidelog_client::Start::Offset(Offset::ZERO);
        let consumer = client.consumer(CHANNEL, 0, start, options).await?;
        let (chunks, mut received) = mpsc::channel(4);
        let reading = tokio::spawn(Box::pin(consume::read(consumer, End::FirstWatermark, chunks)));
        let mut comparison = Comparison::new(self.source.lines(None)?);
        while let Some(chunk) = received.recv().await {
            for record in &chunk.records {
                comparison.value(record.value.as_deref().unwrap_or_default())?;
            }
        }
        consume::joined(reading.await)?;
        Ok(comparison.finish()?)
    }
}

/// Lines in chunks; those beyond `open` wait until `killed` is true.
fn hold_back(
    lines: Lines<Box<dyn std::io::Read + Send>>,
    batch_records: u32,
    open: u64,
    mut killed: watch::Receiver<bool>,
) -> Result<Chunks, CliError> {
    let records_max = usize::try_from(batch_records).unwrap_or(usize::MAX);
    let mut chunks = read_ahead(lines, records_max).map_err(|source| CliError::Runtime { source })?;
    let (sender, held) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut passed = 0;
        while let Some(chunk) = chunks.recv().await {
            passed += chunk.as_ref().map_or(0, |lines: &Vec<Line>| u64::try_from(lines.len()).unwrap_or(0));
            if passed > open && killed.wait_for(|killed| *killed).await.is_err() {
                return;
            }
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    });
    Ok(held)
}

/// The node that leads the only partition, as the nodes know.
async fn leader(client: &Client) -> Result<Option<NodeId>, CliError> {
    let channel = client.channel(CHANNEL).await?;
    Ok(channel.partitions.first().and_then(|partition| partition.leader))
}

/// Waits until all replicas have `records` records, and gives their chains there.
async fn agreed(
    profile: &Path,
    records: u64,
) -> Result<Vec<(NodeId, Option<tidelog_wire::ids::Chain>)>, CliError> {
    let client = online::connect(Some(profile), Patience::Look)?;
    let caught_up = async {
        loop {
            let channel = status::channel(&client, CHANNEL).await?;
            let replicas = channel.partitions.first().map(|partition| partition.replicas.as_slice());
            let replicas = replicas.unwrap_or_default();
            if replicas.len() == 3 && replicas.iter().all(|replica| replica.offset.get() >= records) {
                return Ok(replicas.iter().map(|replica| (replica.node, replica.chain)).collect());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let limit = CliError::NotCaughtUp { seconds: PATIENCE.as_secs(), records };
    tokio::time::timeout(PATIENCE, caught_up).await.unwrap_or(Err(limit))
}

fn progress(records: u64) -> ProgressBar {
    let bar = ProgressBar::new(records);
    let shape = "{wide_bar} {human_pos} of {human_len} records acknowledged, {per_sec}";
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
    bar
}

/// What is going on, for whoever watches.
fn say(line: &str) {
    eprintln!("{line}");
}
