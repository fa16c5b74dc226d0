//! What the process and its directory weigh when nothing is open, and whether that grows.
//!
//! The rule: the first fifth of the samples is left out, as warming up. Of the rest the median of the second half may be
//! above that of the first half by a tenth and a stated number more, and no further. Medians, because one sample
//! may fall into a moment of the allocator or of a file being removed; a leak moves them all.

#![expect(clippy::disallowed_methods, reason = "looks at the process and its files, from outside the engine")]

use std::fs;
use std::path::Path;

use serde::Serialize;

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) descriptors: u64,
    pub(crate) resident_kib: u64,
    pub(crate) threads: u64,
    pub(crate) disk_kib: u64,
}

/// What became of one quantity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trend {
    pub(crate) what: &'static str,
    pub(crate) first_half: u64,
    pub(crate) second_half: u64,
    pub(crate) allowed: u64,
    pub(crate) grows: bool,
}

/// One quantity of a sample.
type Of = fn(&Sample) -> u64;

/// Fewer samples than these are not judged.
pub(crate) const SAMPLES_MIN: usize = 10;

/// How much more than a tenth a median may rise.
const SLACK: [(&str, Of, u64); 4] = [
    ("open descriptors", |sample| sample.descriptors, 2),
    ("resident KiB", |sample| sample.resident_kib, 4 << 10),
    ("threads", |sample| sample.threads, 1),
    ("KiB on disk", |sample| sample.disk_kib, 8 << 10),
];

impl Sample {
    /// Looks.
    pub(crate) fn take(dir: &Path) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self {
            descriptors: fs::read_dir("/proc/self/fd")
                .map_or(0, |entries| u64::try_from(entries.count()).unwrap_or(0)),
            resident_kib: of("VmRSS:"),
            threads: of("Threads:"),
            disk_kib: bytes_below(dir) >> 10,
        }
    }
}

/// Bytes of all files below `dir`, by their lengths.
fn bytes_below(dir: &Path) -> u64 {
    let mut open = vec![dir.to_path_buf()];
    let mut bytes = 0;
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => open.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Judges the samples by the rule; nothing if there are fewer than [`SAMPLES_MIN`].
pub(crate) fn trends(samples: &[Sample]) -> Vec<Trend> {
    if samples.len() < SAMPLES_MIN {
        return Vec::new();
    }
    let warm = samples.get(samples.len() / 5..).unwrap_or_default();
    let (first, second) = warm.split_at(warm.len() / 2);
    SLACK
        .iter()
        .map(|(what, of, slack)| {
            let (first_half, second_half) = (median(first, *of), median(second, *of));
            let allowed = first_half + first_half / 10 + slack;
            Trend { what, first_half, second_half, allowed, grows: second_half > allowed }
        })
        .collect()
}

fn median(samples: &[Sample], of: Of) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
