//! A run: two clusters, one after the other, each under load and faults, each checked at its end.
//!
//! | phase | data directories | between the nodes | faults |
//! |---|---|---|---|
//! | processes | plain folders | a proxy | processes, network, wiped directories |
//! | disks | disks whose power can be cut | a good network | power cuts, slow and full disks |
//!
//! The second is apart from the first because such a disk takes a part of the processor for itself: faults of the network
//! and of processes are to meet the programs as fast as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::check::Checked;
use crate::cluster::{Begin, Cluster, Layout};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::error::ChaosError;
use crate::faults::{Deck, Fault};
use crate::load::Load;
use crate::network::Proxy;
use crate::report::Report;
use crate::stage::Stage;

/// Nodes of a cluster.
const NODES: u64 = 3;
/// Between two faults, in milliseconds: so long the cluster is well.
const CALM_MS: (u64, u64) = (500, 2500);
/// Least time of a run of which every kind of fault is demanded.
const ALL_DEMANDED: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is left open.
    pub seed: u64,
    /// How long faults are done, over both phases.
    pub time: Duration,
    /// `tidelogd`.
    pub server: PathBuf,
    /// Everything lies below it; it must be empty or not there.
    pub dir: PathBuf,
    /// Records of each writer every 20 ms.
    pub burst: u64,
    /// Disks lie about syncs once the cluster stands: the run must not be good.
    pub skip_syncs: bool,
    /// Kinds of faults that are left out.
    pub without: Vec<Fault>,
    /// Say nothing of single faults.
    pub quiet: bool,
}

impl Plan {
    /// Removes everything that a run left.
    ///
    /// # Errors
    /// [`ChaosError::File`].
    #[expect(clippy::disallowed_methods, reason = "removes the folder that this run made")]
    pub fn remove(&self) -> Result<(), ChaosError> {
        let failed = |source| ChaosError::File { path: self.dir.clone(), action: "removed", source };
        std::fs::remove_dir_all(&self.dir).map_err(failed)
    }
}

/// Which kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Processes,
    Disks,
}

impl Phase {
    const fn folder(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Disks => "disks",
        }
    }

    /// Of the time of a run: there are twice as many kinds of the first sort, and each takes about as long.
    fn share(self, time: Duration) -> Duration {
        match self {
            Self::Processes => time * 2 / 3,
            Self::Disks => time / 3,
        }
    }

    /// Nodes that may join.
    const fn spare(self) -> u64 {
        match self {
            Self::Processes => 2,
            Self::Disks => 0,
        }
    }

    fn kinds(self, plan: &Plan) -> Vec<Fault> {
        let kinds: &[Fault] = match self {
            Self::Processes => &Fault::ON_PROCESSES,
            Self::Disks => &Fault::ON_DISKS,
        };
        kinds.iter().copied().filter(|fault| !plan.without.contains(fault)).collect()
    }
}

/// Does what `plan` says. What went wrong with the cluster is in the report.
///
/// # Errors
/// [`ChaosError`] if this machine does not let it be done.
pub async fn run(plan: &Plan, progress: &ProgressBar) -> Result<Report, ChaosError> {
    let began = Instant::now();
    let kinds = [Phase::Processes.kinds(plan), Phase::Disks.kinds(plan)].concat();
    let mut report = Report::new(plan.seed, &kinds);
    report.all_demanded = plan.time >= ALL_DEMANDED;
    let mut dice = Dice::new(plan.seed);
    for phase in [Phase::Processes, Phase::Disks] {
        let outcome = phase_of(plan, phase, dice.split(), &mut report, progress).await;
        match outcome {
            Err(error) if error.is_finding() => report.checked.violations.push(error.to_string()),
            outcome => outcome?,
        }
        if !report.checked.violations.is_empty() {
            report.kept = Some(plan.dir.clone());
            break;
        }
    }
    report.seconds = began.elapsed().as_secs();
    Ok(report)
}

async fn phase_of(
    plan: &Plan,
    phase: Phase,
    mut dice: Dice,
    report: &mut Report,
    progress: &ProgressBar,
) -> Result<(), ChaosError> {
    progress.set_message(format!("{}: starting {NODES} nodes", phase.folder()));
    let mut stage = set(plan, phase, &mut dice).await?;
    let outcome = play(&mut stage, plan, phase, dice, report, progress).await;
    // What was acknowledged is checked whatever else went wrong.
    let kept = finish(&mut stage, phase, report, progress).await;
    if !report.checked.violations.is_empty() || outcome.is_err() || kept.is_err() {
        for disk in stage.disks.values() {
            let copied = disk.copy_out();
            copied.map_err(|source| ChaosError::File {
                path: plan.dir.clone(),
                action: "copied out",
                source,
            })?;
        }
    }
    outcome.and(kept)
}

/// A new cluster under load.
async fn set(plan: &Plan, phase: Phase, dice: &mut Dice) -> Result<Stage, ChaosError> {
    let dir: &Path = &plan.dir.join(phase.folder());
    let layout = Layout::make(dir, NODES, phase.spare(), dice)?;
    let nodes: Vec<u64> = (0..NODES).collect();
    let mut disks = BTreeMap::new();
    if phase == Phase::Disks {
        for node in &nodes {
            disks.insert(*node, Disk::mount(&layout.data(*node), dice.draw())?);
        }
    }
    let proxy = Proxy::start(layout.ends(), dice.split()).await.map_err(ChaosError::Proxy)?;
    let mut cluster = Cluster::new(layout, &plan.server);
    cluster.start_all(&nodes, Begin::Bootstrap).await?;
    let client = cluster.client()?;
    let load = Load::start(cluster.client()?, plan.burst, dice.split()).await?;
    if plan.skip_syncs {
        disks.values().for_each(Disk::skip_syncs);
    }
    Ok(Stage { cluster, nodes, proxy, disks, disks_that_lost: 0, client, load, dice: dice.split() })
}

async fn play(
    stage: &mut Stage,
    plan: &Plan,
    phase: Phase,
    mut dice: Dice,
    report: &mut Report,
    progress: &ProgressBar,
) -> Result<(), ChaosError> {
    let mut deck = Deck::new(&phase.kinds(plan), dice.split());
    stage.progress().await?;
    let until = Instant::now() + phase.share(plan.time);
    while Instant::now() < until {
        tokio::time::sleep(dice.between_ms(CALM_MS.0, CALM_MS.1)).await;
        let Some(fault) = deck.draw() else { break };
        let acknowledged = stage.load.ledger().counts().0;
        progress.set_message(format!("{}: {fault:?}, {acknowledged} acknowledged", phase.folder()));
        let began = Instant::now();
        stage.load.forget_pauses();
        stage.suffer(fault).await?;
        let (took, pause) = (began.elapsed(), stage.load.longest_pause());
        report.done(fault, took, pause);
        if !plan.quiet {
            let (took, pause) = (took.as_millis(), pause.as_millis());
            progress
                .suspend(|| eprintln!("{fault:?}: whole after {took} ms, longest pause of a log {pause} ms"));
        }
    }
    Ok(())
}

/// Ends the load and holds the cluster to what was acknowledged.
async fn finish(
    stage: &mut Stage,
    phase: Phase,
    report: &mut Report,
    progress: &ProgressBar,
) -> Result<(), ChaosError> {
    progress.set_message(format!("{}: reading everything back", phase.folder()));
    stage.load.stop().await;
    let mut checked = Checked::default();
    checked.violations.extend(stage.cluster.ended().iter().cloned());
    let outcome = check(stage, &mut checked).await;
    let ledger = stage.load.ledger();
    let (acknowledged, refused, unknown) = ledger.counts();
    report.records.acknowledged += acknowledged;
    report.records.refused += refused;
    report.records.unknown += unknown;
    report.disks_that_lost += stage.disks_that_lost;
    report.recreated += stage.load.recreated().saturating_sub(1);
    let (sent_on, lost) = stage.proxy.counts();
    report.datagrams = (report.datagrams.0 + sent_on, report.datagrams.1 + lost);
    report.checked.add(checked);
    outcome
}

async fn check(stage: &mut Stage, checked: &mut Checked) -> Result<(), ChaosError> {
    let ledger = stage.load.ledger().clone();
    let kept = checked.read_back(&stage.client, &ledger).await?;
    stage.cluster.stop_all().await?;
    let layout = stage.cluster.layout.clone();
    checked.files(&kept, |node| layout.data(node))
}
