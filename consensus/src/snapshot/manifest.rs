//! The manifest of a snapshot: the checkpoint itself, and every segment file that it needs.
//!
//! | at | size | field              | meaning                                                     |
//! |---:|-----:|--------------------|-------------------------------------------------------------|
//! |  0 |    8 | magic              | `TIDEMANI`                                                  |
//! |  8 |    2 | `format`           | 1; every other value is refused                             |
//! | 10 |    2 | reserved           | zero, enforced                                              |
//! | 12 |    4 | crc32c             | of bytes 16 to the end                                      |
//! | 16 |   16 | `cluster`          | cluster id                                                  |
//! | 32 |    8 | `group`            | the group                                                   |
//! | 40 |    8 | `index`            | last entry contained                                        |
//! | 48 |    8 | `term`             | its term                                                    |
//! | 56 |    4 | `checkpoint_bytes` | length of the checkpoint                                    |
//! | 60 |    4 | `logs`             | how many logs follow                                        |
//! | 64 |   .. | logs, each         | `generation` (8), `partition` (4), `files` (4), the files   |
//! | .. |   48 | files, each        | `base` (8), `end` (8), `length` (8), `chain_start` (8), `chain_end` (8), `sealed` (1), zero (7) |
//! | .. |   .. | checkpoint         | as the engine encodes it                                    |
//!
//! Little-endian. Logs rise by id, files of a log join without gaps. Two replicas that applied the same
//! entry make the same manifest, byte for byte: what is true of one replica only (which entry its raft
//! log had durable, which ranges its disk damaged) is not in it. The xxh3-64 of all bytes is the
//! snapshot's digest, by which raft names it.

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint};
use tidelog_wire::ids::{Chain, ClusterId, Generation, GroupId, LogId, Offset, Partition, RaftIndex, Term};
use xxhash_rust::xxh3::xxh3_64;

use crate::entry::{FieldReader, FieldWriter, MalformedField};

const MAGIC: &[u8; 8] = b"TIDEMANI";
const FORMAT: u16 = 1;
const CHECKED_FROM: usize = 16;
/// Most logs of a group.
const LOGS_MAX: usize = 1 << 20;
/// Most files of a log.
const FILES_MAX: usize = 1 << 20;
/// Bytes of a file in a manifest, or in a request.
pub(super) const FILE_BYTES: usize = 48;
/// Longest segment that is believed.
const SEGMENT_BYTES_MAX: u64 = 16 << 30;

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// The last entry contained.
    pub snapshot: EntryId,
    /// The group's logs that have files, rising by id.
    pub logs: Vec<LogFiles>,
    /// The checkpoint, encoded.
    pub checkpoint: Bytes,
}

/// The files of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Which.
    pub log: LogId,
    /// Without gaps, rising.
    pub files: Vec<SegmentFile>,
}

/// One segment file, or the beginning of the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// First offset, which names it.
    pub base: Offset,
    /// Offset behind its last record.
    pub end: Offset,
    /// How many of its bytes belong to the snapshot.
    pub length: u64,
    /// Chain before `base`.
    pub chain_start: Chain,
    /// Chain at `end`.
    pub chain_end: Chain,
    /// Whether it ends in a footer.
    pub sealed: bool,
}

impl SegmentFile {
    /// The 48 bytes of a file, as the table above has them.
    pub(super) fn write_to(&self, out: &mut FieldWriter) {
        out.u64(self.base.get()).u64(self.end.get()).u64(self.length);
        out.u64(self.chain_start.get()).u64(self.chain_end.get());
        out.u64(u64::from(self.sealed));
    }

    pub(super) fn read_from(fields: &mut FieldReader<'_>) -> Result<Self, MalformedField> {
        Ok(Self {
            base: Offset(fields.u64("base")?),
            end: Offset(fields.u64("end")?),
            length: fields.u64("length")?,
            chain_start: Chain(fields.u64("chain_start")?),
            chain_end: Chain(fields.u64("chain_end")?),
            sealed: match fields.u64("sealed")? {
                0 => false,
                1 => true,
                _ => return Err(MalformedField { field: "sealed", problem: "neither 0 nor 1" }),
            },
        })
    }
}

/// Why bytes are not a manifest to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// A field does not decode.
    #[error("{0}")]
    Field(MalformedField),
    /// The checksum does not match.
    #[error("checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// What it says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// A valid manifest of a format that this release does not know.
    #[error("manifest format {found}, this release reads {FORMAT}")]
    UnknownFormat {
        /// What it says.
        found: u16,
    },
    /// Its parts do not fit together.
    #[error("{0}")]
    Inconsistent(&'static str),
}

impl From<MalformedField> for ManifestFault {
    fn from(field: MalformedField) -> Self {
        Self::Field(field)
    }
}

/// The hash by which raft and staging name a manifest.
#[must_use]
pub fn digest(manifest: &[u8]) -> u64 {
    xxh3_64(manifest)
}

impl Manifest {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = FieldWriter::new();
        out.u128(self.cluster.0).u64(self.group.get());
        out.u64(self.snapshot.index.get()).u64(self.snapshot.term.get());
        out.u32(u32::try_from(self.checkpoint.len()).unwrap_or(u32::MAX));
        out.list(&self.logs, LOGS_MAX, |out, log| {
            out.u64(log.log.generation.get()).u32(log.log.partition.get());
            out.list(&log.files, FILES_MAX, |out, file| file.write_to(out));
        });
        let mut body = out.into_bytes();
        body.extend_from_slice(&self.checkpoint);
        let mut head = FieldWriter::with_capacity(CHECKED_FROM.saturating_add(body.len()));
        head.u64(u64::from_le_bytes(*MAGIC)).u16(FORMAT).u16(0).u32(crc32c::crc32c(&body));
        let mut bytes = head.into_bytes();
        bytes.append(&mut body);
        bytes.into()
    }

    /// Reads a manifest, believing nothing before its checksum, and checks that its parts fit together.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, ManifestFault> {
        let (head, body) = bytes
            .split_at_checked(CHECKED_FROM)
            .ok_or(ManifestFault::Inconsistent("it ends inside its head"))?;
        let mut fields = FieldReader::new(head);
        if fields.u64("magic")? != u64::from_le_bytes(*MAGIC) {
            return Err(ManifestFault::Inconsistent("it does not begin as a manifest does"));
        }
        let format = fields.u16("format")?;
        let reserved = fields.u16("reserved")?;
        let expected = fields.u32("crc32c")?;
        let found = crc32c::crc32c(body);
        if expected != found {
            return Err(ManifestFault::Checksum { expected, found });
        }
        if format != FORMAT {
            return Err(ManifestFault::UnknownFormat { found: format });
        }
        if reserved != 0 {
            return Err(ManifestFault::Inconsistent("reserved bytes are not zero"));
        }
        let mut fields = FieldReader::new(body);
        let cluster = ClusterId(fields.u128("cluster")?);
        let group = GroupId(fields.u64("group")?);
        let index = RaftIndex(fields.u64("index")?);
        let term = Term(fields.u64("term")?);
        let checkpoint_bytes = usize::try_from(fields.u32("checkpoint_bytes")?).unwrap_or(usize::MAX);
        let logs = fields.list("logs", LOGS_MAX, 16, read_log)?;
        let checkpoint_at = bytes
            .len()
            .checked_sub(checkpoint_bytes)
            .filter(|_| fields.left() == checkpoint_bytes)
            .ok_or(ManifestFault::Inconsistent("the checkpoint has another length than it says"))?;
        let snapshot = EntryId { index, term };
        let manifest = Self { cluster, group, snapshot, logs, checkpoint: bytes.slice(checkpoint_at..) };
        manifest.check_files()?;
        Ok(manifest)
    }

    /// The checkpoint inside, once it agrees with the manifest around it.
    ///
    /// # Errors
    /// What does not fit.
    pub fn checkpoint(&self) -> Result<Checkpoint, ManifestFault> {
        let checkpoint = Checkpoint::decode(&self.checkpoint)
            .map_err(|_| ManifestFault::Inconsistent("its checkpoint does not decode"))?;
        if checkpoint.group != self.group
            || checkpoint.applied != self.snapshot
            || checkpoint.last_durable != self.snapshot
        {
            return Err(ManifestFault::Inconsistent("its checkpoint is one of another group or entry"));
        }
        let mut files = self.logs.iter().peekable();
        for log in &checkpoint.logs {
            let held = files.next_if(|files| files.log == log.log);
            check_log(log, held.map_or(&[], |files| &files.files))?;
        }
        match files.next() {
            None => Ok(checkpoint),
            Some(_) => Err(ManifestFault::Inconsistent("it lists files of a log that its checkpoint lacks")),
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let files = self.logs.iter().flat_map(|log| &log.files);
        files.map(|file| file.length).fold(0, u64::saturating_add)
    }

    /// Every file with its log.
    pub fn files(&self) -> impl Iterator<Item = (LogId, SegmentFile)> + '_ {
        self.logs.iter().flat_map(|log| log.files.iter().map(|file| (log.log, *file)))
    }

    fn check_files(&self) -> Result<(), ManifestFault> {
        if !self.logs.is_sorted_by(|one, next| one.log < next.log) {
            return Err(ManifestFault::Inconsistent("its logs do not rise"));
        }
        for log in &self.logs {
            let Some((last, before)) = log.files.split_last() else {
                return Err(ManifestFault::Inconsistent("a log without files is listed"));
            };
            let sane =
                |file: &SegmentFile| file.base < file.end && (80..=SEGMENT_BYTES_MAX).contains(&file.length);
            if !sane(last) || !before.iter().all(|file| sane(file) && file.sealed) {
                return Err(ManifestFault::Inconsistent("a file has an impossible length, or is not sealed"));
            }
            let joined =
                log.files.is_sorted_by(|one, next| one.end == next.base && one.chain_end == next.chain_start);
            if !joined {
                return Err(ManifestFault::Inconsistent("the files of a log do not join"));
            }
        }
        Ok(())
    }
}

fn read_log(fields: &mut FieldReader<'_>) -> Result<LogFiles, MalformedField> {
    let generation = Generation(fields.u64("generation")?);
    let partition = Partition(fields.u32("partition")?);
    let files = fields.list("files", FILES_MAX, FILE_BYTES, SegmentFile::read_from)?;
    Ok(LogFiles { log: LogId { generation, partition }, files })
}

/// The files of a log must be those that its state speaks of.
fn check_log(log: &LogCheckpoint, files: &[SegmentFile]) -> Result<(), ManifestFault> {
    let state = &log.state;
    let has_active = state.active_position.get() > 0;
    if !log.damage.is_empty() {
        return Err(ManifestFault::Inconsistent("its checkpoint speaks of damage on one disk"));
    }
    let Some(last) = files.last() else {
        let empty = state.start == state.end && !has_active;
        return if empty { Ok(()) } else { Err(ManifestFault::Inconsistent("a log lacks its files")) };
    };
    let reaches = last.end == state.end && last.chain_end == state.chain;
    let begins = files.first().is_some_and(|first| first.base <= state.start);
    let active = if has_active {
        !last.sealed && last.base == state.active_base && last.length == state.active_position.get()
    } else {
        last.sealed
    };
    if reaches && begins && active {
        Ok(())
    } else {
        Err(ManifestFault::Inconsistent("the files of a log are not those that its state speaks of"))
    }
}
