//! A client's acknowledged append, on one node and on three, against the floors of its way: a client
//! echo, a peer echo (three nodes), and the raw write and sync of the same bytes, all taking turns.

use std::path::Path;

use tidelog_benches::cluster::Cluster;
use tidelog_benches::disk_floor::DiskFloor;
use tidelog_benches::echo::Echo;
use tidelog_benches::latency::{Latency, now, print_heading, print_ratio, print_row};
use tidelog_benches::{BATCH_BYTES, Failure, batches, is_trial};
use tidelog_client::{Client, ClientOptions, NewChannel, NewRecord, Producer, ProducerOptions, Profile};
use tidelog_tls::Protocol;

const CHANNEL: &str = "bench";
/// Bytes around a batch on disk.
const FRAME_BYTES: usize = 48;

fn main() -> Result<(), Failure> {
    let operations = if is_trial() { 10 } else { 1_500 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for nodes in [1, 3] {
        let under = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let cluster = Cluster::up(under, nodes)?;
        for bytes in BATCH_BYTES {
            runtime.block_on(run(&cluster, under, nodes, bytes, operations))?;
        }
    }
    runtime.shutdown_background();
    Ok(())
}

async fn run(
    cluster: &Cluster,
    under: &Path,
    nodes: usize,
    bytes: usize,
    operations: usize,
) -> Result<(), Failure> {
    let client = Client::new(Profile::load(&cluster.profile())?, ClientOptions::default())?;
    let channel = format!("{CHANNEL}-{bytes}");
    let new = NewChannel { name: channel.clone(), partitions: 1, replicas: None, segment_bytes: None };
    client.create_channel(new).await?;
    let producer = client.producer(&channel, ProducerOptions::default()).await?;
    let dir = tempfile::tempdir_in(under)?;
    let mut disk = DiskFloor::new(&dir.path().join("floor"), bytes + FRAME_BYTES, operations)?;
    let mut client_echo = Echo::start(Protocol::Native, bytes).await?;
    let mut peer_echo = Echo::start(Protocol::Peer, bytes).await?;

    let mut disk_floor = Latency::new("raw write + fdatasync, prefilled file")?;
    let mut client_floor = Latency::new("client echo")?;
    let mut peer_floor = Latency::new("peer echo")?;
    let mut acknowledged = Latency::new(format!("acknowledged append, {nodes} node(s), one in flight"))?;
    for _ in 0..20 {
        append(&producer, bytes).await?;
    }
    for _ in 0..operations {
        let began = now();
        disk.write()?;
        disk_floor.since(began);
        let began = now();
        client_echo.turn().await?;
        client_floor.since(began);
        let began = now();
        peer_echo.turn().await?;
        peer_floor.since(began);
        let began = now();
        append(&producer, bytes).await?;
        acknowledged.since(began);
    }
    print_heading(&format!("{nodes} node(s), batch of {bytes} bytes"));
    print_row(&disk_floor);
    print_row(&client_floor);
    print_row(&peer_floor);
    print_row(&acknowledged);
    if nodes > 1 {
        print_ratio(&acknowledged, &[&disk_floor, &client_floor, &peer_floor]);
    } else {
        print_ratio(&acknowledged, &[&disk_floor, &client_floor]);
    }
    client_echo.stop();
    peer_echo.stop();
    producer.close().await;
    client.close().await;
    Ok(())
}

async fn append(producer: &Producer, bytes: usize) -> Result<(), Failure> {
    let value = vec![b'v'; batches::value_bytes(bytes)];
    producer.send(NewRecord::value(value)).await?.delivered().await?;
    Ok(())
}
