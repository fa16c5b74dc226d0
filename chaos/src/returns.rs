//! How nodes come back, measured on real processes.
//!
//! - [`catch_up`]: a follower that was away while a gibibyte was written and channels were deleted and created again. What
//!   it fetched stands beside what it lacked, and the memory that all nodes took meanwhile beside what they had before.
//! - [`after_kill`]: a node with many gibibytes, killed. How long until it says that it serves.
//!
//! Here is what both need: writing many bytes, and looking at processes and folders.

#![expect(
    clippy::disallowed_methods,
    reason = "looks at the folders and processes of the clusters that it makes"
)]

pub mod after_kill;
pub mod catch_up;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidelog_client::{Client, ClientError, NewChannel, NewRecord, ProducerOptions};
use tidelog_wire::ids::{Generation, LogId, Offset, Partition};

use crate::error::ChaosError;

/// Bytes of a record that is written to fill a log.
const RECORD_BYTES: usize = 16 << 10;
/// Records whose outcome is waited for together.
const ROUND: u64 = 1024;

/// Makes a channel of one partition.
async fn create(client: &Client, name: &str) -> Result<LogId, ClientError> {
    let new = NewChannel { name: name.to_owned(), partitions: 1, replicas: None, segment_bytes: None };
    let (generation, _) = client.create_channel(new).await?;
    Ok(log_of(generation))
}

const fn log_of(generation: Generation) -> LogId {
    LogId { generation, partition: Partition(0) }
}

/// Appends about `bytes` of records that nothing compresses; returns the offset behind the last.
async fn fill(client: &Client, channel: &str, bytes: u64, seed: u64) -> Result<Offset, ClientError> {
    let producer = client.producer(channel, ProducerOptions::default()).await?;
    let mut noise = Noise(seed | 1);
    let mut left = bytes.div_ceil(u64::try_from(RECORD_BYTES).unwrap_or(1));
    let mut end = Offset::ZERO;
    while left > 0 {
        let round = left.min(ROUND);
        let mut under_way = Vec::new();
        for _ in 0..round {
            under_way.push(producer.send(NewRecord::value(noise.bytes(RECORD_BYTES))).await?);
        }
        for delivery in under_way {
            let delivered = delivery.delivered().await?;
            end = end.max(Offset(delivered.offset.get().saturating_add(1)));
        }
        left = left.saturating_sub(round);
    }
    producer.close().await;
    Ok(end)
}

/// Bytes without a pattern: xorshift.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Bytes {
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            out.extend_from_slice(&self.0.to_le_bytes());
        }
        out.truncate(count);
        out.into()
    }
}

/// Memory of a process that is resident now, in bytes; 0 if it is gone.
fn resident(process: Option<u32>) -> u64 {
    let Some(process) = process else { return 0 };
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The segments below a data directory, by their place below `logs`, and how long each is.
fn segments(data: &Path) -> Result<BTreeMap<PathBuf, u64>, ChaosError> {
    let root = data.join("logs");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let failed = |source| ChaosError::File { path: folder.clone(), action: "listed", source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            // Files come and go while nodes run.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "seg")
                && let Ok(place) = path.strip_prefix(&root)
            {
                found.insert(place.to_owned(), metadata.len());
            }
        }
    }
    Ok(found)
}

/// Bytes of `theirs` that `ours` does not have: what a follower has to get whose segments are `ours`.
fn lacking(ours: &BTreeMap<PathBuf, u64>, theirs: &BTreeMap<PathBuf, u64>) -> u64 {
    let lacks =
        theirs.iter().map(|(place, length)| length.saturating_sub(ours.get(place).copied().unwrap_or(0)));
    lacks.fold(0, u64::saturating_add)
}

/// Whole mebibytes.
const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_are_missing_files_and_missing_tails() {
        let files = |files: &[(&str, u64)]| {
            files.iter().map(|(name, length)| (PathBuf::from(name), *length)).collect()
        };
        let ours = files(&[("1/0/a.seg", 100), ("1/0/b.seg", 40), ("2/0/a.seg", 7)]);
        let theirs = files(&[("1/0/a.seg", 100), ("1/0/b.seg", 100), ("3/0/a.seg", 5)]);
        assert_eq!(lacking(&ours, &theirs), 65);
    }

    #[test]
    fn noise_does_not_repeat_itself() {
        let mut noise = Noise(7);
        assert_ne!(noise.bytes(64), noise.bytes(64));
    }
}
