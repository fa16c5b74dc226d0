//! `tidelog consume`: committed records, in the order of their partition.
//!
//! Without `--follow` each partition is read up to the high watermark that held at the start, one after the other. With it,
//! all partitions are read side by side, and records are written as they come. With `--node` one node's replica is read
//! and nothing else, so that replicas can be compared.
//!
//! Reading runs ahead of writing by [`ANSWERS_WAITING`] answers and no more.

pub(crate) mod format;

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use tidelog_client::{Client, Consumer, ConsumerOptions, Record};
use tidelog_wire::ids::{NodeId, Offset, Partition};
use tidelog_wire::protocol::OffsetSpec;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::arguments::Consume;
use crate::error::CliError;
use crate::output::Output;
use crate::values::Start;
use format::RecordLine;

/// Answers that were read and not yet written, of all partitions together.
const ANSWERS_WAITING: usize = 4;
/// How long one question may wait for records at the node.
const WAIT: Duration = Duration::from_millis(500);
/// Questions in a row that may bring nothing although records are known to be there.
const EMPTY_MAX: u32 = 60;

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the high watermark of the first answer.
    FirstWatermark,
    /// Never by itself.
    Never,
}

/// Records of one partition, in order.
pub(crate) struct Chunk {
    pub(crate) partition: Partition,
    pub(crate) records: Vec<Record>,
}

/// Writes what is asked for.
pub(crate) async fn run(consume: Consume, client: &Client, output: &Output) -> Result<(), CliError> {
    let name = consume.channel.as_str();
    let partitions: Vec<u32> = match consume.partition {
        Some(partition) => vec![partition],
        None => {
            client.channel(name).await?.partitions.iter().map(|found| found.log.partition.get()).collect()
        }
    };
    let options = ConsumerOptions { max_wait: WAIT, node: consume.node, ..ConsumerOptions::default() };
    let mut consumers = Vec::new();
    for partition in partitions {
        let start = match consume.node {
            Some(node) => on_node(client, name, partition, NodeId(node), consume.from).await?,
            None => consume.from.into(),
        };
        consumers.push(client.consumer(name, partition, start, options.clone()).await?);
    }
    output.set_answered();
    let mut writer = Writer::new(output.is_json(), consume.max);
    if consume.follow {
        return follow(consumers, &mut writer).await;
    }
    for consumer in consumers {
        if write_all(consumer, &mut writer).await? == Written::Enough {
            break;
        }
    }
    Ok(())
}

/// Where to begin on one node: it says itself what it has. Only a time is asked of the leader, which alone answers that;
/// the offset is the same everywhere.
async fn on_node(
    client: &Client,
    channel: &str,
    partition: u32,
    node: NodeId,
    from: Start,
) -> Result<tidelog_client::Start, CliError> {
    let log = client.log(channel, partition).await?;
    let offset = match from {
        Start::At(offset) => offset,
        Start::Time(time) => client.offset_at(channel, log, OffsetSpec::Time(time)).await?,
        Start::Earliest | Start::Latest => {
            let status = client.node_status(node, true).await?;
            let found =
                status.logs.iter().find(|found| found.log == log).ok_or(CliError::NoReplica { log, node })?;
            if from == Start::Earliest { found.log_start } else { found.end }
        }
    };
    Ok(tidelog_client::Start::Offset(offset))
}

async fn write_all(consumer: Consumer, writer: &mut Writer) -> Result<Written, CliError> {
    let (chunks, mut received) = mpsc::channel(ANSWERS_WAITING);
    let reading = tokio::spawn(Box::pin(read(consumer, End::FirstWatermark, chunks)));
    while let Some(chunk) = received.recv().await {
        if writer.write(&chunk)? == Written::Enough {
            reading.abort();
            return Ok(Written::Enough);
        }
    }
    joined(reading.await)?;
    Ok(Written::More)
}

async fn follow(consumers: Vec<Consumer>, writer: &mut Writer) -> Result<(), CliError> {
    let (chunks, mut received) = mpsc::channel(ANSWERS_WAITING);
    // Dropping the set ends what is in it.
    let mut readers = JoinSet::new();
    for consumer in consumers {
        readers.spawn(Box::pin(read(consumer, End::Never, chunks.clone())));
    }
    drop(chunks);
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map_err(|source| CliError::Runtime { source });
            }
            Some(ended) = readers.join_next() => match joined(ended) {
                Ok(()) => {}
                Err(error) => return before(&mut received, writer, error),
            },
            chunk = received.recv() => match chunk {
                Some(chunk) => if writer.write(&chunk)? == Written::Enough { return Ok(()) },
                None => return Ok(()),
            },
        }
    }
}

/// What was read before a reader failed is written first; if that is as much as was asked for, what lies ahead of it is
/// nobody's affair.
fn before(
    received: &mut mpsc::Receiver<Chunk>,
    writer: &mut Writer,
    error: CliError,
) -> Result<(), CliError> {
    // Other readers may go on sending: only what is there now.
    for _ in 0..received.len() {
        if let Ok(chunk) = received.try_recv()
            && writer.write(&chunk)? == Written::Enough
        {
            return Ok(());
        }
    }
    Err(error)
}

/// The result of a task of ours. One that panicked has a bug and takes the command with it.
pub(crate) fn joined(ended: Result<Result<(), CliError>, tokio::task::JoinError>) -> Result<(), CliError> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_cancelled) => Ok(()),
    }
}

/// Hands on what `consumer` reads, until `end` or until nobody listens.
pub(crate) async fn read(
    mut consumer: Consumer,
    end: End,
    chunks: mpsc::Sender<Chunk>,
) -> Result<(), CliError> {
    let partition = consumer.log().partition;
    let (mut end_offset, mut empty) = (None, 0);
    loop {
        let mut fetched = consumer.poll().await?;
        let end_offset = *end_offset.get_or_insert(match end {
            End::FirstWatermark => fetched.high_watermark,
            End::Never => Offset(u64::MAX),
        });
        fetched.records.retain(|record| record.offset < end_offset);
        let records = fetched.records;
        empty = if records.is_empty() { empty + 1 } else { 0 };
        if !records.is_empty() && chunks.send(Chunk { partition, records }).await.is_err() {
            return Ok(());
        }
        if consumer.position() >= end_offset {
            return Ok(());
        }
        if empty > EMPTY_MAX && end == End::FirstWatermark {
            return Err(CliError::Stalled {
                log: consumer.log(),
                offset: consumer.position(),
                end: end_offset,
            });
        }
    }
}

impl From<Start> for tidelog_client::Start {
    fn from(start: Start) -> Self {
        match start {
            Start::Earliest => Self::Earliest,
            Start::Latest => Self::Latest,
            Start::At(offset) => Self::Offset(offset),
            Start::Time(time) => Self::Time(time),
        }
    }
}

/// Whether more may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    More,
    /// As many as were asked for, or nobody reads any more.
    Enough,
}

/// Writes records to standard output.
struct Writer {
    out: BufWriter<io::Stdout>,
    json: bool,
    left: Option<u64>,
}

impl Writer {
    fn new(json: bool, max: Option<u64>) -> Self {
        Self { out: BufWriter::with_capacity(256 << 10, io::stdout()), json, left: max }
    }

    fn write(&mut self, chunk: &Chunk) -> Result<Written, CliError> {
        match self.write_records(chunk) {
            Ok(written) => Ok(written),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Enough),
            Err(source) => {
                Err(CliError::File { path: "standard output".into(), action: "write to it", source })
            }
        }
    }

    fn write_records(&mut self, chunk: &Chunk) -> io::Result<Written> {
        for record in &chunk.records {
            if self.left == Some(0) {
                break;
            }
            if self.json {
                serde_json::to_writer(&mut self.out, &line(chunk.partition, record))?;
            } else {
                self.out.write_all(record.value.as_deref().unwrap_or_default())?;
            }
            self.out.write_all(b"\n")?;
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        self.out.flush()?;
        Ok(if self.left == Some(0) { Written::Enough } else { Written::More })
    }
}

fn line(partition: Partition, record: &Record) -> RecordLine<'_> {
    RecordLine {
        partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: record.headers.iter().map(|header| (&*header.key, header.value.as_deref())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidelog_wire::ids::{Generation, LogId, TimestampMs};

    use super::*;

    /// `consume --max` that follows reads ahead. Where that met damage, the error came before the records that had been read
    /// already, and the command failed though it had all that it was asked for.
    #[tokio::test]
    async fn what_was_read_before_damage_is_written_before_it_is_told() {
        let stalled = || CliError::NoReplica {
            log: LogId { generation: Generation(1), partition: Partition(0) },
            node: NodeId(0),
        };
        let record = |offset| Record {
            offset: Offset(offset),
            timestamp: TimestampMs(0),
            key: None,
            value: Some(Bytes::from_static(b"x")),
            headers: Vec::new(),
        };
        for (max, is_enough) in [(3, true), (4, false)] {
            let (chunks, mut received) = mpsc::channel(ANSWERS_WAITING);
            for records in [vec![record(0), record(1)], vec![record(2)]] {
                let sent = chunks.send(Chunk { partition: Partition(0), records }).await;
                assert!(sent.is_ok());
            }
            let mut writer = Writer::new(false, Some(max));
            assert_eq!(before(&mut received, &mut writer, stalled()).is_ok(), is_enough);
            assert_eq!(writer.left, Some(max - 3));
        }
    }
}
