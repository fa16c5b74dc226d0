//! A follower that was away for a long time.
//!
//! 1. Three nodes; a log is filled a little, and channels get some records. Everybody has everything.
//! 2. One node is killed. A gibibyte is written, and each of the channels is deleted, created again and written to.
//! 3. The node starts. Until it has everything, memory of all three is watched.
//! 4. All stop, and every segment is compared byte by byte.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tidelog_client::Client;
use tidelog_wire::ids::{LogId, NodeId, Offset};
use tokio::time::Instant;

use super::{create, fill, lacking, mib, resident, segments};
use crate::check::Checked;
use crate::cluster::{Begin, Cluster, How, Layout};
use crate::dice::Dice;
use crate::error::ChaosError;

const NODES: [u64; 3] = [0, 1, 2];
const AWAY: u64 = 2;
/// The log that most is written to.
const LARGE: &str = "large";
/// What it has before.
const BEFORE_BYTES: u64 = 160 << 20;
/// What each recreated channel gets, before and after.
const SMALL_BYTES: u64 = 1 << 20;
/// Checkpoints so often that the raft log soon forgets what the follower lacks.
const SETTINGS: &str = "segment_bytes = \"128MiB\"\n[checkpoint]\nbytes = \"32MiB\"\nseconds = 5\n";
/// How long the follower may take.
const CATCH_UP: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server program.
    pub server: PathBuf,
    /// A folder that does not exist yet.
    pub dir: PathBuf,
    /// Written while the follower is away.
    pub bytes: u64,
    /// Channels deleted and created again meanwhile.
    pub channels: u64,
    /// Draws ports and records.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CaughtUp {
    /// Bytes of segments that the follower lacked when it came back.
    pub lacked_bytes: u64,
    /// Bytes of snapshots that it fetched.
    pub fetched_bytes: u64,
    /// Bytes of snapshots that it had.
    pub reused_bytes: u64,
    /// Snapshots that it switched to.
    pub snapshots: u64,
    /// From its start until it had everything.
    pub seconds: f64,
    /// Resident memory of each node before the follower came back; 0 for that one.
    pub resident_before: Vec<u64>,
    /// The most of each node until it had everything.
    pub resident_most: Vec<u64>,
    /// Segment files compared with another replica's.
    pub files: u64,
    /// Differences.
    pub violations: Vec<String>,
}

impl CaughtUp {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let nodes =
            |bytes: &[u64]| bytes.iter().map(|bytes| mib(*bytes).to_string()).collect::<Vec<_>>().join(", ");
        let (before, most) = (nodes(&self.resident_before), nodes(&self.resident_most));
        format!(
            "identical again after {:.1} s: {} segments compared, {} differ\nlacked {} MiB, fetched {} MiB in {} snapshots, \
             {} MiB of them were there\nresident memory of nodes 0, 1, 2 in MiB: {before} before, at most {most}",
            self.seconds,
            self.files,
            self.violations.len(),
            mib(self.lacked_bytes),
            mib(self.fetched_bytes),
            self.snapshots,
            mib(self.reused_bytes),
        )
    }
}

/// Does it.
///
/// # Errors
/// [`ChaosError`].
pub async fn run(plan: &Plan, progress: &ProgressBar) -> Result<CaughtUp, ChaosError> {
    let mut dice = Dice::new(plan.seed);
    let layout = Layout::direct(&plan.dir, 3, SETTINGS, &mut dice)?;
    let mut cluster = Cluster::new(layout, &plan.server);
    progress.set_message("starting three nodes");
    cluster.start_all(&NODES, Begin::Bootstrap).await?;
    let client = cluster.client()?;
    let names: Vec<String> = (0..plan.channels).map(|number| format!("reborn-{number}")).collect();

    progress.set_message("before: everybody has everything");
    let mut logs = vec![(create(&client, LARGE).await?, fill(&client, LARGE, BEFORE_BYTES, 1).await?)];
    for name in &names {
        logs.push((create(&client, name).await?, fill(&client, name, SMALL_BYTES, 2).await?));
    }
    have(&cluster, &client, AWAY, &logs, &mut []).await?;

    progress.set_message("away: writing, deleting, creating again");
    cluster.end(AWAY, How::Kill).await?;
    logs.clear();
    for name in &names {
        client.delete_channel(name, None).await?;
        logs.push((create(&client, name).await?, fill(&client, name, SMALL_BYTES, 3).await?));
    }
    let end = fill(&client, LARGE, plan.bytes, 4).await?;
    logs.push((super::log_of(client.channel(LARGE).await?.generation), end));

    progress.set_message("back: catching up");
    let data = |node| cluster.layout.data(node);
    let mut caught = CaughtUp {
        lacked_bytes: lacking(&segments(&data(AWAY))?, &segments(&data(0))?),
        ..CaughtUp::default()
    };
    caught.resident_before = watch(&cluster);
    caught.resident_most = caught.resident_before.clone();
    let began = Instant::now();
    cluster.start(AWAY, Begin::Resume)?;
    have(&cluster, &client, AWAY, &logs, &mut caught.resident_most).await?;
    caught.seconds = began.elapsed().as_secs_f64();
    counts(&cluster, &mut caught).await;

    progress.set_message("comparing every segment");
    let mut checked = Checked::default();
    let kept = Checked::kept(&client).await?;
    cluster.stop_all().await?;
    let layout = &cluster.layout;
    checked.files(&kept, |node| layout.data(node))?;
    caught.files = checked.files;
    caught.violations = checked.violations;
    Ok(caught)
}

fn watch(cluster: &Cluster) -> Vec<u64> {
    NODES.iter().map(|node| resident(cluster.process(*node))).collect()
}

/// Waits until `node` has all of `logs`, with the chains that another node has; keeps the most memory of each.
async fn have(
    cluster: &Cluster,
    client: &Client,
    node: u64,
    logs: &[(LogId, Offset)],
    most: &mut [u64],
) -> Result<(), ChaosError> {
    let deadline = Instant::now() + CATCH_UP;
    for (log, end) in logs {
        loop {
            for (most, now) in most.iter_mut().zip(watch(cluster)) {
                *most = now.max(*most);
            }
            let theirs = client.chain_at(NodeId(0), *log, *end).await.ok();
            let ours = client.chain_at(NodeId(node), *log, *end).await.ok();
            if ours.is_some() && ours == theirs {
                break;
            }
            if Instant::now() > deadline {
                let what = format!("node {node} has log {log} up to {end}");
                return Err(ChaosError::Late { what, seconds: CATCH_UP.as_secs() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

async fn counts(cluster: &Cluster, caught: &mut CaughtUp) {
    let count = async |name: &str| cluster.count(AWAY, name).await.unwrap_or(0);
    caught.fetched_bytes = count("tidelog_snapshot_fetched_bytes_total").await;
    caught.reused_bytes = count("tidelog_snapshot_reused_bytes_total").await;
    caught.snapshots = count("tidelog_snapshots_installed_total").await;
}

/// Whether the folder of a run may go: nothing in it tells more than the report does.
#[must_use]
pub fn is_good(caught: &CaughtUp) -> bool {
    caught.violations.is_empty() && caught.files > 0 && caught.snapshots > 0
}

/// Removes the folder of a run.
///
/// # Errors
/// [`ChaosError::File`].
pub fn remove(dir: &Path) -> Result<(), ChaosError> {
    let failed = |source| ChaosError::File { path: dir.to_owned(), action: "removed", source };
    std::fs::remove_dir_all(dir).map_err(failed)
}
