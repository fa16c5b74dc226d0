//! `tidelog produce`: lines in, acknowledgements counted.
//!
//! Two tasks: one hands lines to the client's producer, which batches, pipelines and repeats; the other takes the
//! acknowledgements in order and counts them. The first failure ends sending. Whatever ends it (the input, a failure,
//! Ctrl-C), the acknowledgements that are still to come are waited for, within a limit, and the summary counts those
//! that came: a record that it counts is on a quorum's disks, one that it does not count may be there or not.

pub(crate) mod input;
mod summary;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidelog_client::{Client, Delivery, NewRecord, Producer, ProducerOptions};
use tidelog_wire::ids::Partition;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::arguments::Produce;
use crate::error::CliError;
use crate::files;
use crate::output::Output;
use input::{InputError, KeyColumn, Line, Lines, read_ahead};
pub(crate) use summary::Tally;

/// Acknowledgements that are waited for at a time.
const PENDING_MAX: usize = 64 * 1024;
/// How long acknowledgements are waited for after Ctrl-C.
const AFTER_INTERRUPT: Duration = Duration::from_secs(3);

/// Lines as they come from the input.
pub(crate) type Chunks = mpsc::Receiver<Result<Vec<Line>, InputError>>;

/// How lines become records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) batch_records: u32,
    pub(crate) partition: Option<u32>,
}

/// What came of a stream.
pub(crate) struct Sent {
    pub(crate) tally: Tally,
    pub(crate) retries: u64,
    pub(crate) took: Duration,
    /// Why not everything was acknowledged.
    pub(crate) failure: Option<CliError>,
}

/// Sends what is asked for, and prints what was acknowledged whatever came of it.
pub(crate) async fn run(produce: Produce, client: &Client, output: &Output) -> Result<(), CliError> {
    let key = produce.key_column.map(|column| KeyColumn { column, delimiter: produce.delimiter.0 });
    let records_max = usize::try_from(produce.batch_records).unwrap_or(usize::MAX);
    let shape = Shape { batch_records: produce.batch_records, partition: produce.partition };
    let bar = progress(produce.file.as_deref());
    let started = Instant::now();
    let sent = async {
        let lines = lines(produce.file.as_deref(), key)?;
        let chunks = read_ahead(lines, records_max).map_err(|source| CliError::Runtime { source })?;
        let counted = |records| bar.set_position(records);
        Ok(send(client, produce.channel.as_str(), shape, chunks, counted).await)
    };
    let sent = Box::pin(sent).await.and_then(|sent| sent).unwrap_or_else(|failure| Sent {
        tally: Tally::default(),
        retries: 0,
        took: started.elapsed(),
        failure: Some(failure),
    });
    bar.finish_and_clear();
    let error = sent.failure.as_ref().map(ToString::to_string);
    output.print(&sent.tally.summary(sent.retries, sent.took, error));
    sent.failure.map_or(Ok(()), Err)
}

/// Sends `chunks` to a channel; calls `acknowledged` with the number of records that are durable on a
/// quorum, each time it has grown.
///
/// # Errors
/// Only what keeps it from beginning. Everything later is in [`Sent::failure`], beside what was acknowledged.
pub(crate) async fn send(
    client: &Client,
    channel: &str,
    shape: Shape,
    chunks: Chunks,
    acknowledged: impl FnMut(u64),
) -> Result<Sent, CliError> {
    let options = ProducerOptions { batch_records: shape.batch_records, ..ProducerOptions::default() };
    let producer = client.producer(channel, options).await?;
    let started = Instant::now();
    let (pending, deliveries) = mpsc::channel(PENDING_MAX);
    let mut tally = Tally::default();
    let mut collecting = Box::pin(collect(&mut tally, deliveries, acknowledged));
    let feeding = Box::pin(feed(&producer, shape.partition, chunks, pending));
    let failure = tokio::select! {
        fed = feeding => {
            let limit = if matches!(fed, Err(CliError::Interrupted)) { AFTER_INTERRUPT } else { Duration::MAX };
            let undelivered = tokio::time::timeout(limit, &mut collecting).await.unwrap_or(None);
            fed.err().or(undelivered)
        },
        // Ends by itself only after a failure: feeding would wait for input that nobody needs any more.
        undelivered = &mut collecting => undelivered,
    };
    drop(collecting);
    let retries = producer.summary().retries();
    Ok(Sent { tally, retries, took: started.elapsed(), failure })
}

/// A record that was handed to the producer.
struct Pending {
    delivery: Delivery,
    bytes: u64,
}

/// Hands lines to the producer until the input ends, sending fails, or somebody interrupts.
async fn feed(
    producer: &Producer,
    partition: Option<u32>,
    mut chunks: Chunks,
    pending: mpsc::Sender<Pending>,
) -> Result<(), CliError> {
    let feeding = async {
        while let Some(chunk) = chunks.recv().await {
            for line in chunk? {
                let bytes = u64::try_from(line.value.len()).unwrap_or(u64::MAX);
                let delivery = producer.send(record(line, partition)).await?;
                if pending.send(Pending { delivery, bytes }).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        fed = feeding => fed,
        interrupted = interrupted() => interrupted.and(Err(CliError::Interrupted)),
    }
}

fn record(line: Line, partition: Option<u32>) -> NewRecord {
    NewRecord { key: line.key, partition, ..NewRecord::value(line.value) }
}

/// Ends when somebody asks this process to end.
pub(crate) async fn interrupted() -> Result<(), CliError> {
    let failed = |source| CliError::Runtime { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {},
        _ = interrupt.recv() => {},
    }
    Ok(())
}

/// Counts acknowledgements until all records that were sent have their answer; the first failure is kept.
async fn collect(
    tally: &mut Tally,
    mut deliveries: mpsc::Receiver<Pending>,
    mut acknowledged: impl FnMut(u64),
) -> Option<CliError> {
    let mut failure = None;
    while let Some(pending) = deliveries.recv().await {
        match pending.delivery.delivered().await {
            Ok(delivered) => {
                tally.acknowledged(
                    Partition(delivered.partition),
                    1,
                    pending.bytes,
                    delivered.offset,
                    delivered.offset,
                );
                acknowledged(tally.records());
            }
            Err(error) => {
                // Nothing more is taken; what is on its way is still counted.
                deliveries.close();
                failure = failure.or(Some(CliError::from(error)));
            }
        }
    }
    failure
}

/// The lines of a file, or of standard input.
pub(crate) fn lines(
    file: Option<&Path>,
    key: Option<KeyColumn>,
) -> Result<Lines<Box<dyn io::Read + Send>>, CliError> {
    let input: Box<dyn io::Read + Send> = match file {
        Some(path) if path != Path::new("-") => Box::new(files::open(path)?),
        Some(_) | None => Box::new(io::stdin()),
    };
    Ok(Lines::new(input, key))
}

/// Counts acknowledged records on a terminal; stays away where standard input is one, since people type there.
fn progress(file: Option<&Path>) -> ProgressBar {
    if file.is_none() && io::stdin().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {human_pos} records acknowledged, {per_sec} {elapsed}")
    {
        bar.set_style(style);
    }
    bar
}
