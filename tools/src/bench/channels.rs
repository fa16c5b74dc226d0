//! `tidelog bench channels`: what many channels cost: how fast they are made, what nodes hold of them in memory, and what
//! processors do while nobody uses any.
//!
//! 1. A cluster in a temporary directory; memory of each node before.
//! 2. The channels are made, as many in a request as one takes, and timed until the logs of all are open.
//! 3. A pause, so that what follows a creation is done; then each node's processor time over some seconds without any request.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tidelog_client::NewChannel;
use tokio::time::Instant;

use crate::arguments::Server;
use crate::demo::{clear, interrupted_or};
use crate::error::CliError;
use crate::files;
use crate::local::{self, Layout, Shape};
use crate::local_commands::server_program;
use crate::online::{self, Patience};
use crate::output::{Answer, Output, table};

/// How long nodes are left alone before they count as idle.
const SETTLE: Duration = Duration::from_secs(5);
/// The kernel's unit of processor time towards programs, on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Channels {
    /// How many channels, of one partition each.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    channels: u32,
    /// Nodes of the cluster.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// Data groups that share out the channels; otherwise as many as `up` makes.
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u64).range(1..=64))]
    groups: Option<u64>,
    /// How long processors are watched.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle_seconds: u64,
    /// Keeps the directory of the cluster instead of removing it.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    server: Server,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    channels: u32,
    created: u64,
    refused: u64,
    create_s: f64,
    channels_per_s: f64,
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: u64,
    resident_kib_before: u64,
    resident_kib: u64,
    /// Of one processor.
    idle_cpu_percent: f64,
}

/// A process at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    resident_kib: u64,
    cpu_ticks: u64,
}

/// Measures, and stops what it started.
pub(crate) async fn run(channels: Channels, output: &Output) -> Result<(), CliError> {
    let dir = std::env::temp_dir().join(format!("tidelog-bench-{}", std::process::id()));
    let keep = channels.keep;
    let measured = interrupted_or(measure(&dir, channels)).await;
    let stopped = clear(&dir).await;
    if let Ok(report) = &measured {
        output.print(report);
    }
    if keep {
        eprintln!("the cluster's directory is kept: {}", dir.display());
    } else if stopped.is_ok() && files::exists(&dir) {
        files::remove_folder(&dir)?;
    }
    measured.map(|_| ()).and(stopped)
}

async fn measure(dir: &Path, channels: Channels) -> Result<Report, CliError> {
    let server = server_program(&channels.server)?;
    let shape = Shape { nodes: Some(channels.nodes), groups: channels.groups, ..Shape::default() };
    let layout = local::start(dir, shape, &server, channels.server.wait_seconds).await?.layout;
    let client = online::connect(Some(&layout.profile()), Patience::Work)?;
    let before = looks(&layout)?;
    let new = (0..channels.channels).map(|number| NewChannel {
        name: format!("bench-{number}"),
        partitions: 1,
        replicas: None,
        segment_bytes: None,
    });
    let begun = Instant::now();
    let made = client.create_channels(new.collect()).await?;
    let create_s = begun.elapsed().as_secs_f64();
    let refused = u64::try_from(made.iter().filter(|made| made.is_err()).count()).unwrap_or(u64::MAX);
    tokio::time::sleep(SETTLE).await;
    let (idle, watched) = (looks(&layout)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(channels.idle_seconds)).await;
    let after = looks(&layout)?;
    let idle_s = watched.elapsed().as_secs_f64();
    let nodes = before.iter().zip(&idle).zip(&after).map(|((before, idle), after)| {
        let ticks = after.1.cpu_ticks.saturating_sub(idle.1.cpu_ticks);
        NodeReport {
            node: before.0,
            resident_kib_before: before.1.resident_kib,
            resident_kib: idle.1.resident_kib,
            idle_cpu_percent: tenths(float(ticks) / float(TICKS_PER_SECOND) / idle_s * 100.0),
        }
    });
    let nodes = nodes.collect();
    let created = u64::from(channels.channels).saturating_sub(refused);
    Ok(Report {
        channels: channels.channels,
        created,
        refused,
        create_s: (create_s * 1000.0).round() / 1000.0,
        channels_per_s: tenths(float(created) / create_s.max(1e-9)),
        nodes,
    })
}

fn looks(layout: &Layout) -> Result<Vec<(u64, Look)>, CliError> {
    layout.nodes().map(|node| Ok((node, look(layout, node)?))).collect()
}

/// The process of `node`, as the kernel tells of it.
fn look(layout: &Layout, node: u64) -> Result<Look, CliError> {
    let process = layout.process(node);
    let pid = process.running()?.ok_or_else(|| process.ended())?.pid;
    let status = files::read(Path::new(&format!("/proc/{pid}/status")))?;
    let stat = files::read(Path::new(&format!("/proc/{pid}/stat")))?;
    Ok(Look { resident_kib: resident_kib(&status), cpu_ticks: cpu_ticks(&stat) })
}

fn resident_kib(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// User and system time: the 14th and 15th field, counted behind the name, which may hold anything.
fn cpu_ticks(stat: &str) -> u64 {
    let behind = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    behind.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Exact for what a run counts.
fn float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

impl Answer for Report {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|node| {
                vec![
                    node.node.to_string(),
                    (node.resident_kib_before / 1024).to_string(),
                    (node.resident_kib / 1024).to_string(),
                    format!("{:.1} %", node.idle_cpu_percent),
                ]
            })
            .collect();
        format!(
            "{} channels created in {:.2} s, {:.0} a second; {} refused\n{}",
            self.created,
            self.create_s,
            self.channels_per_s,
            self.refused,
            table(&["node", "resident MiB before", "resident MiB", "idle processor"], &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_read_from_what_the_kernel_tells() {
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t   20480 kB\nThreads: 1\n"), 20_480);
        let stat = "7 (a b) c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        assert_eq!(cpu_ticks(stat), 300);
        assert_eq!((resident_kib(""), cpu_ticks("")), (0, 0));
    }
}
