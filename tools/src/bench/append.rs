//! `tidelog bench append`: how long an acknowledged append takes, and how many there are in a second, beside the floors of this
//! machine, measured in the same run.
//!
//! 1. One node or three in a temporary directory, or the cluster that --profile names. Its checkpoints come often enough that
//!    some fall into the run.
//! 2. Clients append one record a batch, each as soon as one of its own is acknowledged. All of them share one connection to
//!    a node, as the tasks of a program do, unless --connections says otherwise.
//! 3. Floors are measured in between, while nothing is under way: see `floors`. With one append under way they take turns one by
//!    one, else after each fifth of a second of load.
//! 4. Histograms, rates and ratios: see `report`.
//!
//! The measuring runs on one thread: handing work to another one costs as much here as a tenth of an append.

mod floors;
mod load;
mod pages;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tidelog_client::{Client, ClientOptions, NewChannel, Profile};
use tidelog_wire::ids::NodeId;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::arguments::Server;
use crate::demo::{clear, interrupted_or};
use crate::error::CliError;
use crate::files;
use crate::local::{self, Shape};
use crate::local_commands::server_program;
use crate::output::Output;
use floors::Floors;
use load::Load;
use pages::Watch;
use report::Report;

/// Appends with one under way between two looks at the floors.
const FLOORS_EVERY: Duration = Duration::from_millis(200);
/// Samples of each floor after a stretch of load.
const FLOORS_AT_ONCE: u32 = 8;
/// Channels that are made, and producers that are opened, at a time.
const OPENED_AT_ONCE: usize = 64;
/// A pause after each operation with one under way: the slowest of three nodes still writes when two have acknowledged, and the
/// next operation should not pay for that.
const PAUSE: Duration = Duration::from_millis(1);

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Append {
    /// Clients that append at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: u32,
    /// Appends that each client has under way.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,
    /// Connections that the clients share.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) connections: u32,
    /// Channels that are written in turns, of one partition each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) channels: u32,
    /// Bytes of a record; a batch has one.
    #[arg(long, value_name = "B", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) record_bytes: u32,
    /// How long to measure, floors included.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Nodes of the cluster that is made.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    pub(crate) nodes: u64,
    /// Time between two checkpoints of a group of that cluster. Otherwise a third of the run.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) checkpoint_seconds: Option<u64>,
    /// Keeps the directory of the cluster instead of removing it.
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

impl Append {
    /// Appends under way at a time.
    fn slots(&self) -> u32 {
        self.clients.saturating_mul(self.in_flight)
    }
}

/// Measures on the cluster of `profile`, or else on one of its own, which it stops again.
pub(crate) async fn run(append: Append, profile: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let dir = std::env::temp_dir().join(format!("tidelog-bench-{}", std::process::id()));
    let keep = append.keep;
    let (measured, stopped) = match profile {
        Some(profile) => {
            files::create_folder(&dir)?;
            (interrupted_or(measure(&dir, profile.to_owned(), append)).await, Ok(()))
        }
        None => {
            let measured = interrupted_or(async {
                let server = server_program(&append.server)?;
                let checkpoints = append.checkpoint_seconds.unwrap_or_else(|| (append.seconds / 3).max(1));
                let shape = Shape {
                    nodes: Some(append.nodes),
                    checkpoint_seconds: Some(checkpoints),
                    ..Shape::default()
                };
                let brought = local::start(&dir, shape, &server, append.server.wait_seconds).await?;
                measure(&dir, brought.layout.profile(), append).await
            })
            .await;
            (measured, clear(&dir).await)
        }
    };
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

/// Measures on a thread of its own.
async fn measure(dir: &Path, profile: PathBuf, append: Append) -> Result<Report, CliError> {
    let (tell, told) = oneshot::channel();
    let floor = dir.join("sync-floor");
    let measuring = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let measured = runtime
            .map_err(|source| CliError::Runtime { source })
            .and_then(|runtime| runtime.block_on(Box::pin(measured(&floor, &profile, append))));
        // Nobody listens any more once the command was interrupted.
        drop(tell.send(measured));
    };
    let thread = std::thread::Builder::new().name("bench".to_owned()).spawn(measuring);
    thread.map_err(|source| CliError::Runtime { source })?;
    told.await.unwrap_or(Err(CliError::Interrupted))
}

async fn measured(floor: &Path, profile: &Path, append: Append) -> Result<Report, CliError> {
    let profile = Profile::load(profile)?;
    let nodes = profile.nodes.clone();
    let mut clients = Vec::new();
    for _ in 0..append.connections {
        clients.push(Client::new(profile.clone(), ClientOptions::default())?);
    }
    let client = clients.first().cloned().ok_or(CliError::Interrupted)?;
    let prefix = format!("bench-{}", std::process::id());
    let channels: Vec<String> = (0..append.channels).map(|number| format!("{prefix}-{number}")).collect();
    create(&client, &channels).await?;
    let mut load = Load::open(&clients, &channels, &append).await?;
    let leader = leader(&client, channels.first()).await?;
    let peer = nodes.iter().map(|node| node.id).find(|node| *node != leader);
    let mut floors = Floors::prepare(floor, client.clone(), (leader, peer), load.batch().await?)?;
    load.warm_up().await?;
    floors.warm_up().await?;

    let mut watch = Watch::start(&nodes, append.slots() > 1).await;
    let begun = Instant::now();
    let end = begun + Duration::from_secs(append.seconds);
    let bar = progress(append.seconds);
    while Instant::now() < end {
        bar.set_position(begun.elapsed().as_secs());
        if append.slots() == 1 {
            floors.sample_around(PAUSE, load.once()).await?;
        } else {
            load.stretch(FLOORS_EVERY).await?;
            for _ in 0..FLOORS_AT_ONCE {
                floors.sample().await?;
            }
        }
    }
    bar.finish_and_clear();
    let seen = watch.finish(&nodes).await;
    let report = Report::new(&append, nodes.len(), &load.finish().await, &floors, &seen)?;
    delete(&client, channels).await?;
    Ok(report)
}

/// The node that leads the first channel.
async fn leader(client: &Client, channel: Option<&String>) -> Result<NodeId, CliError> {
    let channel = client.channel(channel.map_or("", String::as_str)).await?;
    let leader = channel.partitions.first().and_then(|partition| partition.leader);
    leader.ok_or(CliError::NoLeader { seconds: 0 })
}

async fn create(client: &Client, channels: &[String]) -> Result<(), CliError> {
    each(channels.to_vec(), |name| {
        let client = client.clone();
        async move {
            let new = NewChannel { name, partitions: 1, replicas: None, segment_bytes: None };
            client.create_channel(new).await.map(|_| ())
        }
    })
    .await
}

async fn delete(client: &Client, channels: Vec<String>) -> Result<(), CliError> {
    each(channels, |name| {
        let client = client.clone();
        async move { client.delete_channel(&name, None).await.map(|_| ()) }
    })
    .await
}

/// Does something with each name, some at a time.
async fn each<F>(names: Vec<String>, act: impl Fn(String) -> F) -> Result<(), CliError>
where
    F: Future<Output = Result<(), tidelog_client::ClientError>> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    for name in names {
        if under_way.len() >= OPENED_AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            done.map_err(|_| CliError::Interrupted)??;
        }
        under_way.spawn(act(name));
    }
    while let Some(done) = under_way.join_next().await {
        done.map_err(|_| CliError::Interrupted)??;
    }
    Ok(())
}

/// A record's value, whose bytes do not compress.
fn value(bytes: u32) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

fn progress(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} s") {
        bar.set_style(style);
    }
    bar
}
