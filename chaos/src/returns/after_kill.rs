//! A node with many gibibytes, killed and started again.

use std::path::PathBuf;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::Instant;

use super::{create, fill, mib, resident, segments};
use crate::cluster::{Begin, Cluster, How, Layout};
use crate::dice::Dice;
use crate::error::ChaosError;

/// Channels that the bytes are spread over.
const CHANNELS: u64 = 10;
/// As a node has it that nobody told anything.
const SETTINGS: &str = "segment_bytes = \"128MiB\"\n";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server program.
    pub server: PathBuf,
    /// A folder that does not exist yet.
    pub dir: PathBuf,
    /// How much the node holds.
    pub bytes: u64,
    /// How often it is killed.
    pub rounds: u64,
    /// Draws ports and records.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Restarts {
    /// Bytes of segments on the disk.
    pub segment_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// From the start of the process until it said that it serves, of each round. It is asked every 20 ms.
    pub ready_ms: Vec<u128>,
    /// Resident memory right after that.
    pub resident_bytes: Vec<u64>,
}

impl Restarts {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let resident: Vec<_> = self.resident_bytes.iter().map(|bytes| mib(*bytes)).collect();
        let (ready, held) = (&self.ready_ms, mib(self.segment_bytes));
        format!(
            "{held} MiB in {} segments; ready after {ready:?} ms, resident {resident:?} MiB",
            self.segments
        )
    }

    /// The slowest start.
    #[must_use]
    pub fn slowest_ms(&self) -> u128 {
        self.ready_ms.iter().copied().max().unwrap_or(u128::MAX)
    }
}

/// Does it.
///
/// # Errors
/// [`ChaosError`].
pub async fn run(plan: &Plan, progress: &ProgressBar) -> Result<Restarts, ChaosError> {
    let layout = Layout::direct(&plan.dir, 1, SETTINGS, &mut Dice::new(plan.seed))?;
    let mut cluster = Cluster::new(layout, &plan.server);
    cluster.start_all(&[0], Begin::Bootstrap).await?;
    let client = cluster.client()?;
    for number in 0..CHANNELS {
        progress.set_message(format!("writing {} MiB: channel {number} of {CHANNELS}", mib(plan.bytes)));
        let name = format!("held-{number}");
        create(&client, &name).await?;
        fill(&client, &name, plan.bytes / CHANNELS, number + 1).await?;
    }
    let mut restarts = Restarts::default();
    for round in 0..plan.rounds {
        progress.set_message(format!("killed and started again, {round} of {}", plan.rounds));
        // Something that no checkpoint has: the end of the log is to be found and applied again.
        fill(&client, "held-0", 8 << 20, 100 + round).await?;
        cluster.end(0, How::Kill).await?;
        let began = Instant::now();
        cluster.start_all(&[0], Begin::Resume).await?;
        restarts.ready_ms.push(began.elapsed().as_millis());
        restarts.resident_bytes.push(resident(cluster.process(0)));
    }
    let held = segments(&cluster.layout.data(0))?;
    restarts.segments = u64::try_from(held.len()).unwrap_or(u64::MAX);
    restarts.segment_bytes = held.values().copied().fold(0, u64::saturating_add);
    cluster.end(0, How::Kill).await?;
    Ok(restarts)
}
