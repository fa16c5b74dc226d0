//! `cluster`: acknowledged appends to one node and to three, beside the floors of disk and network.
//!
//! Both clusters run all the time, in processes of their own on this machine, and are asked in turns by one client with one
//! batch in flight. An acknowledgement says that the batch is synced: on the one node, or on two of three, whose syncs
//! overlap. So the floor of one node is a sync and a client's echo, that of three a sync, a client's echo and a peer's echo.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidelog_client::{
    Client, ClientError, ClientOptions, Delivered, NewChannel, NewRecord, Producer, ProducerOptions,
    ProfileNode,
};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock;
use crate::echo::{CLIENT_ECHO, Echo, PEER_ECHO};
use crate::error::{BenchError, Doing as _};
use crate::floors::{SYNC, SyncFloor};
use crate::inside::Look;
use crate::nodes::{Nodes, Programs};
use crate::options::{Bench, Options};
use crate::payload::{Payload, SIZES};
use crate::report::{Report, Subject};
use crate::rounds::{Operation, Stop, measure};

/// Name of the operation in reports.
const ONE_NODE: &str = "one node, acknowledged append";
/// Name of the operation in reports.
const THREE_NODES: &str = "three nodes, acknowledged append";

const FLOORS: [&str; 3] = [SYNC, CLIENT_ECHO, PEER_ECHO];
const SUBJECTS: [Subject; 2] = [
    Subject { name: ONE_NODE, floors: &[SYNC, CLIENT_ECHO] },
    Subject { name: THREE_NODES, floors: &[SYNC, CLIENT_ECHO, PEER_ECHO] },
];

/// Builds and starts nodes, measures all operations for every size of batch, and stops the nodes, whatever happens.
///
/// # Errors
/// [`BenchError`]; nothing was measured then.
pub fn run(options: &Options, folder: &Path) -> Result<Report, BenchError> {
    let programs = match &options.programs {
        Some(programs) => Programs::in_folder(programs)?,
        None => Programs::build(folder.parent().unwrap_or(folder))?,
    };
    let (client, node) = (runtime("bench-client")?, runtime("bench-node")?);
    let stop = Stop::default();
    stop_at_signals(&client, &stop)?;
    let one = Target::start(&programs, folder, 1, client.handle())?;
    let three = Target::start(&programs, folder, 3, client.handle())?;
    let mut report = Report::new("cluster");
    for size in SIZES {
        let payload = Payload::of(size)?;
        let bytes = payload.batch.bytes();
        let floors =
            tempfile::Builder::new().prefix("bench-floors-").tempdir_in(folder).doing("make a folder")?;
        let mut sync = SyncFloor::prepare(floors.path(), bytes.clone())?;
        let mut client_echo = Echo::client(client.handle(), node.handle(), bytes)?;
        let mut peer_echo = Echo::peer(client.handle(), node.handle(), bytes)?;
        let mut append_to_one = one.append(ONE_NODE, &payload)?;
        let mut append_to_three = three.append(THREE_NODES, &payload)?;
        let before = [one.look(), three.look()];
        let operations: &mut [&mut dyn Operation] =
            &mut [&mut sync, &mut client_echo, &mut peer_echo, &mut append_to_one, &mut append_to_three];
        let measured = measure(operations, &options.plan(Bench::Cluster), &stop)?;
        let section = report.add(size, bytes.len(), &measured, &FLOORS, &SUBJECTS)?;
        let after = [one.look(), three.look()];
        section.notes = after.iter().zip(&before).flat_map(|(after, before)| after.since(before)).collect();
    }
    Ok(report)
}

/// A runtime as clients and nodes have one: a worker for each processor.
fn runtime(name: &str) -> Result<Runtime, BenchError> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name(name).build();
    built.doing("start a runtime")
}

/// From now on Ctrl-C and SIGTERM end the run instead of this process, so that nodes are stopped.
fn stop_at_signals(runtime: &Runtime, stop: &Stop) -> Result<(), BenchError> {
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).doing("listen for signals")?;
        let stop = stop.clone();
        runtime.spawn(async move {
            if signals.recv().await.is_some() {
                stop.raise();
            }
        });
    }
    Ok(())
}

/// A cluster and a client of it.
struct Target {
    client: Client,
    runtime: Handle,
    nodes: Vec<ProfileNode>,
    /// Stopped last.
    _nodes: Nodes,
}

impl Target {
    fn start(programs: &Programs, folder: &Path, count: u32, runtime: &Handle) -> Result<Self, BenchError> {
        eprintln!("starting {count} node(s)");
        let nodes = Nodes::start(programs, folder, count)?;
        let _inside = runtime.enter();
        let profile = nodes.profile()?;
        let addresses = profile.nodes.clone();
        let client = Client::new(profile, ClientOptions::default()).doing("make a client")?;
        Ok(Self { client, runtime: runtime.clone(), nodes: addresses, _nodes: nodes })
    }

    /// What its nodes know of their own times by now.
    fn look(&self) -> Look {
        Look::at(&self.nodes)
    }

    /// Appends to a new channel of this cluster.
    fn append(&self, name: &'static str, payload: &Payload) -> Result<Append, BenchError> {
        let channel = format!("bench-{}", payload.value.len());
        let new = NewChannel { name: channel.clone(), partitions: 1, replicas: None, segment_bytes: None };
        let options = ProducerOptions { in_flight: 1, batch_records: 1, ..ProducerOptions::default() };
        let producer = self.runtime.block_on(async {
            self.client.create_channel(new).await?;
            self.client.producer(&channel, options).await
        });
        let producer = producer.doing(&format!("make the channel {channel}"))?;
        Ok(Append { name, producer, value: payload.value.clone(), runtime: self.runtime.clone() })
    }
}

/// Appends the same record again and again, each as soon as the one before is acknowledged.
struct Append {
    name: &'static str,
    producer: Producer,
    value: Bytes,
    runtime: Handle,
}

impl Append {
    async fn append(&self) -> Result<Delivered, ClientError> {
        self.producer.send(NewRecord::value(self.value.clone())).await?.delivered().await
    }
}

impl Operation for Append {
    fn name(&self) -> &'static str {
        self.name
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let (appended, took) = clock::timed(|| self.runtime.block_on(self.append()));
        appended.doing(&format!("append ({})", self.name))?;
        Ok(took)
    }
}
