//! Bytes a second: appends that are not synced beside the same writes, and warm reads beside the same reads.
//!
//! - A thousand records of 1 KiB are appended as one batch; as a thousand batches handed over together; and as a thousand
//!   batches one by one. Beside each the bytes of the batches are written to a file, with as many calls as the engine makes.
//!   Both files grow and are not synced; no segment of the engine ends meanwhile, which would be synced.
//! - A log is read from front to back in chunks, warm, each batch verified. Beside it chunks of the same size are read from
//!   the same file, into the same memory again and again, a third of a file away: what one has read is not in the processor's
//!   caches for the other. And beside that, another third away, the same with one CRC32C of all of it: the least that a reader does who verifies.

#![expect(clippy::disallowed_methods, reason = "owns the files that writing and reading are measured with")]

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crc_fast::crc32_iscsi;
use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::LogReader;
use tidelog_engine::os::OsStorage;
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::Offset;
use tidelog_wire::limits::{KIB, MIB};

use super::ours;
use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::payload::Payload;
use crate::report::Rate;
use crate::rounds::{Operation, Plan, Stop, measure};

/// Records in one operation.
const RECORDS: usize = 1000;
/// More than is appended.
const SEGMENT_BYTES: u64 = 1 << 30;
/// A log that is read, and the file beside it.
const READ_BYTES: u64 = 192 << 20;
/// Parts that the engine hands to the system in one call, two for each batch.
const BATCHES_A_CALL: usize = 512;

/// Measures appends, then reads. Data goes to `folder`.
pub(super) fn measure_all(folder: &Path, rounds: u64, stop: &Stop) -> Result<Vec<Rate>, BenchError> {
    let plan = Plan { samples: rounds, time_max: Duration::from_secs(120), pause: false };
    let one = Payload::of_records(RECORDS, KIB)?.batch;
    let small = Payload::of(KIB)?.batch;
    let mut rates = Vec::new();
    let shapes = [
        (["append: 1 batch of 1000 x 1 KiB", "raw write 1"], vec![one.clone()], RECORDS),
        (
            ["append: 1000 batches of 1 KiB, together", "raw write 2"],
            vec![small.clone(); RECORDS],
            BATCHES_A_CALL,
        ),
        (["append: 1000 batches of 1 KiB, one by one", "raw write 3"], vec![small.clone(); RECORDS], 1),
    ];
    for (at, (names, batches, batches_a_call)) in shapes.into_iter().enumerate() {
        let mut ours = Appends::open(&folder.join(format!("bulk-{at}")), names[0], &batches, batches_a_call)?;
        let mut raw = RawWrites::open(&folder.join(format!("raw-{at}")), names[1], &batches, batches_a_call)?;
        let series = measure(&mut [&mut ours, &mut raw], &plan, stop)?;
        rates.push(Rate::of(&series, ours.bytes, ours.bytes)?);
    }
    let chunks = [
        (["read: batches of 1000 KiB, 1 MiB at once", "raw read 1"], &one, MIB),
        (["read: batches of 1 KiB, 1 MiB at once", "raw read 2"], &small, MIB),
        (["read: batches of 1 KiB, 64 KiB at once", "raw read 3"], &small, 64 * KIB),
    ];
    for (at, (names, batch, chunk)) in chunks.into_iter().enumerate() {
        let dir = folder.join(format!("read-{at}"));
        let mut ours = Reads::open(&dir, names[0], batch, chunk)?;
        let segment = segment_path(&dir);
        let mut raw = RawReads::open(&segment, names[1], chunk, 1)?;
        let mut checked =
            RawReads { checked: true, ..RawReads::open(&segment, "raw read, checked", chunk, 2)? };
        let chunks = u64::try_from(MIB / chunk).unwrap_or(1);
        let plan = Plan { samples: rounds.saturating_mul(chunks), ..plan };
        let series = measure(&mut [&mut ours, &mut raw, &mut checked], &plan, stop)?;
        rates.push(Rate::of(&series, ours.bytes / ours.reads, wide_float(chunk))?);
    }
    Ok(rates)
}

fn segment_path(dir: &Path) -> PathBuf {
    dir.join("logs/1/0").join(format!("{:020}.seg", 0))
}

/// Appends without a sync.
struct Appends {
    name: &'static str,
    log: SharedLog,
    batches: Vec<Batch>,
    one_by_one: bool,
    /// Of all batches of one operation.
    bytes: f64,
}

impl Appends {
    fn open(dir: &Path, name: &'static str, batches: &[Batch], a_call: usize) -> Result<Self, BenchError> {
        let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
        let logs = ours::embedded(dir, Arc::new(OsStorage), config, 1)?;
        let log = logs.into_iter().next().ok_or("there is none").doing("open a log")?;
        let bytes = batches.iter().map(|batch| wide_float(batch.bytes().len())).sum();
        Ok(Self { name, log, batches: batches.to_vec(), one_by_one: a_call == 1, bytes })
    }
}

impl Operation for Appends {
    fn name(&self) -> &'static str {
        self.name
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let now = clock::wall();
        let (appended, took) = clock::timed(|| {
            if self.one_by_one {
                return self
                    .batches
                    .iter()
                    .try_for_each(|batch| self.log.append(batch, now).doing("append").map(drop));
            }
            self.log.append_many(&self.batches, now).doing("append").map(drop)
        });
        appended?;
        Ok(took)
    }
}

/// Writes the same bytes with as many calls.
struct RawWrites {
    name: &'static str,
    file: File,
    calls: Vec<Bytes>,
    position: u64,
}

impl RawWrites {
    fn open(path: &Path, name: &'static str, batches: &[Batch], a_call: usize) -> Result<Self, BenchError> {
        let mut options = OpenOptions::new();
        let file = options.create_new(true).write(true).open(path).doing("make a file")?;
        let joined = |batches: &[Batch]| {
            batches.iter().flat_map(|batch| batch.bytes().iter().copied()).collect::<Bytes>()
        };
        let calls = batches.chunks(a_call).map(joined).collect();
        Ok(Self { name, file, calls, position: 0 })
    }

    fn write(&mut self) -> io::Result<()> {
        for bytes in &self.calls {
            self.file.write_all_at(bytes, self.position)?;
            self.position += wide(bytes.len());
        }
        Ok(())
    }
}

impl Operation for RawWrites {
    fn name(&self) -> &'static str {
        self.name
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let (written, took) = clock::timed(|| self.write());
        written.doing("write")?;
        Ok(took)
    }
}

/// Reads a log from front to back.
struct Reads {
    name: &'static str,
    reader: LogReader,
    next: Offset,
    chunk: usize,
    /// Of all batches read, warm-up and all.
    bytes: f64,
    reads: f64,
}

impl Reads {
    fn open(dir: &Path, name: &'static str, batch: &Batch, chunk: usize) -> Result<Self, BenchError> {
        let logs = ours::embedded(dir, Arc::new(OsStorage), LogConfig::default(), 1)?;
        let log = logs.first().ok_or("there is none").doing("open a log")?;
        let some = vec![batch.clone(); (MIB / batch.bytes().len()).max(1)];
        let mut written = 0;
        while written < READ_BYTES {
            log.append_many(&some, clock::wall()).doing("append")?;
            written += some.iter().map(|batch| wide(batch.bytes().len())).sum::<u64>();
        }
        log.sync().doing("sync")?;
        Ok(Self { name, reader: log.reader(), next: Offset::ZERO, chunk, bytes: 0.0, reads: 0.0 })
    }
}

impl Operation for Reads {
    fn name(&self) -> &'static str {
        self.name
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        if self.next >= self.reader.end() {
            self.next = Offset::ZERO;
        }
        let (read, took) = clock::timed(|| self.reader.read(self.next, self.chunk));
        let read = read.doing("read")?;
        self.next = read.next;
        self.bytes += read.batches.iter().map(|batch| wide_float(batch.len())).sum::<f64>();
        self.reads += 1.0;
        Ok(took)
    }
}

/// Reads the log's file.
struct RawReads {
    name: &'static str,
    file: File,
    buffer: Vec<u8>,
    position: u64,
    /// Whether what was read is summed up.
    checked: bool,
}

impl RawReads {
    /// Begins so many thirds behind the start.
    fn open(path: &Path, name: &'static str, chunk: usize, thirds: u64) -> Result<Self, BenchError> {
        let file = File::open(path).doing("open a segment")?;
        let position = READ_BYTES / 3 * thirds;
        Ok(Self { name, file, buffer: vec![0; chunk], position, checked: false })
    }
}

impl Operation for RawReads {
    fn name(&self) -> &'static str {
        self.name
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let len = wide(self.buffer.len());
        if self.position + len > READ_BYTES {
            self.position = 0;
        }
        let (read, took) = clock::timed(|| {
            self.file.read_exact_at(&mut self.buffer, self.position)?;
            // Not left out by the compiler, since nobody else looks at it.
            black_box(if self.checked { crc32_iscsi(&self.buffer) } else { 0 });
            io::Result::Ok(())
        });
        read.doing("read a segment")?;
        self.position += len;
        Ok(took)
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn wide_float(len: usize) -> f64 {
    u32::try_from(len).map_or(f64::INFINITY, f64::from)
}
