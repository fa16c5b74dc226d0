//! A writer that has one record under way at a time, numbers its records, and remembers when each was acknowledged.
//!
//! One partition has one writer. So the numbers found in a partition must rise, each acknowledged number must be there once,
//! and a record that stands twice was appended twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidelog_client::{Client, ConsumerOptions, NewRecord, Producer, ProducerOptions, Start};
use tidelog_wire::ids::Offset;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::CliError;

/// Pause after a write that failed for good.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// What came of one write; its number is its place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// On a quorum's disks.
    Acknowledged { begun: Instant, ended: Instant, offset: Offset },
    /// No answer told: it may be there or not.
    Unknown,
}

/// What reading everything back found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
}

impl Verdict {
    pub(crate) const fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

/// A writer at work.
pub(crate) struct Writer {
    channel: String,
    partition: u32,
    history: Arc<Mutex<Vec<Write>>>,
    acknowledged: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Begins to write records of `record_bytes` to one partition of a channel.
    pub(crate) async fn start(
        client: &Client,
        channel: &str,
        partition: u32,
        record_bytes: usize,
    ) -> Result<Self, CliError> {
        let producer = client.producer(channel, ProducerOptions::default()).await?;
        let history = Arc::new(Mutex::new(Vec::new()));
        let (counted, acknowledged) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let work = Work { producer, partition, record_bytes, history: Arc::clone(&history), counted };
        let task = tokio::spawn(work.run(stopped));
        Ok(Self { channel: channel.to_owned(), partition, history, acknowledged, stop, task })
    }

    /// Waits until `count` more writes are acknowledged than are now.
    ///
    /// # Errors
    /// [`CliError::NoLeader`] if that takes longer than `patience`.
    pub(crate) async fn acknowledged(&self, count: u64, patience: Duration) -> Result<(), CliError> {
        let mut acknowledged = self.acknowledged.clone();
        let until = *acknowledged.borrow_and_update() + count;
        let more = acknowledged.wait_for(|found| *found >= until);
        match tokio::time::timeout(patience, more).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CliError::NoLeader { seconds: patience.as_secs() }),
        }
    }

    /// When writes were acknowledged, and how long each took, among those under way between two moments.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<(Instant, Duration)> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let times = history.iter().filter_map(|write| match write {
            Write::Acknowledged { begun, ended, .. } if *ended > from && *begun < to => {
                Some((*ended, ended.saturating_duration_since(*begun)))
            }
            Write::Acknowledged { .. } | Write::Unknown => None,
        });
        times.collect()
    }

    /// Ends writing, reads the partition back and compares.
    pub(crate) async fn finish(self, client: &Client) -> Result<Verdict, CliError> {
        self.stop.send_replace(true);
        // A task that panicked has its history up to then, which is compared all the same.
        drop(self.task.await);
        let history = std::mem::take(&mut *self.history.lock().unwrap_or_else(PoisonError::into_inner));
        let found = read_back(client, &self.channel, self.partition).await?;
        Ok(compare(&history, &found))
    }
}

struct Work {
    producer: Producer,
    partition: u32,
    record_bytes: usize,
    history: Arc<Mutex<Vec<Write>>>,
    counted: watch::Sender<u64>,
}

impl Work {
    async fn run(self, stopped: watch::Receiver<bool>) {
        for number in 0_u64.. {
            if *stopped.borrow() {
                break;
            }
            let begun = Instant::now();
            let write = match self.write(number).await {
                Ok(offset) => Write::Acknowledged { begun, ended: Instant::now(), offset },
                Err(_) => Write::Unknown,
            };
            self.history.lock().unwrap_or_else(PoisonError::into_inner).push(write);
            match write {
                Write::Acknowledged { .. } => self.counted.send_modify(|count| *count += 1),
                Write::Unknown => tokio::time::sleep(AFTER_FAILURE).await,
            }
        }
        self.producer.close().await;
    }

    async fn write(&self, number: u64) -> Result<Offset, tidelog_client::ClientError> {
        let mut value = number.to_le_bytes().to_vec();
        value.resize(self.record_bytes.max(value.len()), b'.');
        let record = NewRecord { partition: Some(self.partition), ..NewRecord::value(value) };
        Ok(self.producer.send(record).await?.delivered().await?.offset)
    }
}

/// The numbers in a partition, with their offsets, up to its high watermark.
async fn read_back(client: &Client, channel: &str, partition: u32) -> Result<Vec<(u64, Offset)>, CliError> {
    let mut consumer =
        client.consumer(channel, partition, Start::Earliest, ConsumerOptions::default()).await?;
    let mut found = Vec::new();
    let mut end = None;
    loop {
        let fetched = consumer.poll().await?;
        let end = *end.get_or_insert(fetched.high_watermark);
        for record in &fetched.records {
            let number = record.value.as_deref().and_then(|value| value.first_chunk::<8>());
            // What is none of ours counts as a number that nobody wrote, and shows as a change of order.
            found.push((number.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes)), record.offset));
        }
        if consumer.position() >= end {
            return Ok(found);
        }
        if fetched.records.is_empty() {
            let log = client.log(channel, partition).await?;
            return Err(CliError::Stalled { log, offset: consumer.position(), end });
        }
    }
}

fn compare(history: &[Write], found: &[(u64, Offset)]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut times = vec![0_u64; history.len()];
    let mut at = vec![None; history.len()];
    let mut last = None;
    for (number, offset) in found {
        let place = usize::try_from(*number).unwrap_or(usize::MAX);
        let known = times.get_mut(place).map(|times| {
            *times += 1;
            *times
        });
        if known.is_some_and(|times| times > 1) {
            verdict.duplicated += 1;
            continue;
        }
        if known.is_none() || last.is_some_and(|last| last >= *number) {
            verdict.reordered += 1;
        }
        last = Some(*number);
        if let Some(at) = at.get_mut(place) {
            *at = Some(*offset);
        }
    }
    for (write, found) in history.iter().zip(at) {
        if let Write::Acknowledged { offset, .. } = write {
            verdict.acknowledged += 1;
            match found {
                None => verdict.lost += 1,
                Some(found) if found != *offset => verdict.reordered += 1,
                Some(_) => {}
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(offsets: &[Option<u64>]) -> Vec<Write> {
        let now = Instant::now();
        let write = |offset: &Option<u64>| match offset {
            Some(offset) => Write::Acknowledged { begun: now, ended: now, offset: Offset(*offset) },
            None => Write::Unknown,
        };
        offsets.iter().map(write).collect()
    }

    fn found(pairs: &[(u64, u64)]) -> Vec<(u64, Offset)> {
        pairs.iter().map(|(number, offset)| (*number, Offset(*offset))).collect()
    }

    #[tokio::test]
    async fn what_was_acknowledged_and_is_missing_twice_or_elsewhere_is_counted() {
        let verdict = |history: &[Write], pairs: &[(u64, u64)]| {
            let Verdict { lost, duplicated, reordered, .. } = compare(history, &found(pairs));
            (lost, duplicated, reordered)
        };
        let three = history(&[Some(0), Some(1), Some(2)]);
        assert_eq!(verdict(&three, &[(0, 0), (1, 1), (2, 2)]), (0, 0, 0));
        assert_eq!(verdict(&three, &[(0, 0), (1, 1)]), (1, 0, 0));
        assert_eq!(verdict(&three, &[(0, 0), (1, 1), (2, 2), (1, 3)]), (0, 1, 0));
        assert_eq!(verdict(&three, &[(0, 0), (2, 1), (1, 2)]), (0, 0, 3), "two moved, one falls");
        assert_eq!(verdict(&three, &[(0, 0), (1, 1), (2, 2), (77, 3)]), (0, 0, 1), "nobody wrote 77");
        let unknown = history(&[Some(0), None]);
        assert_eq!(verdict(&unknown, &[(0, 0)]), (0, 0, 0), "it may be missing");
        assert_eq!(verdict(&unknown, &[(0, 0), (1, 1)]), (0, 0, 0), "or be there");
    }
}
