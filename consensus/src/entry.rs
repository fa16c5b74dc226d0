//! What a raft entry carries: a [`Command`], in a format that outlives releases.
//!
//! An entry has two byte strings. `context` is small and is read by everyone on the entry's way; `data`
//! is the payload. A record batch is `data` as the client sent it, untouched, so that it is copied
//! and checked no more often than needed; every other command has its fields in `data`.
//!
//! Entries are kept on disk and read by other releases. So each begins with a version, every number is
//! little-endian, every length is checked before anything is allocated, nothing may follow the last
//! field, and golden bytes in `testdata/format-1/entry` pin all of it. A version or kind that this
//! release does not know is an **error that stops apply**: to skip an entry would make this replica
//! differ from the others for ever.
//!
//! Not here: what a command does ([`crate::apply`]) and what it answers ([`crate::outcome`]).

mod error;
mod fields;
mod kind;
mod meta;
mod record;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};
use tidelog_wire::ids::{Generation, GroupId, LogId, Offset, Partition, RaftIndex, Term, TimestampMs};

pub use error::EntryError;
pub use fields::MalformedField;
pub(crate) use fields::{FieldReader, FieldWriter};
use kind::Kind;
pub use meta::{MEMBERS_MAX, MetaCommand, NewChannel, Replication, Want};
pub use record::NodeRecord;

/// Version of the entry format that this release writes, and the only one it reads.
pub const ENTRY_VERSION: u16 = 1;
/// Most logs in one `OpenLogs`, most generations in one `CloseLogs` or report, most channels in one
/// creation or deletion.
pub const LOGS_PER_ENTRY_MAX: usize = 4096;
/// Longest text in an entry, in bytes: names, addresses, versions.
pub const TEXT_BYTES_MAX: usize = 255;

const CONTEXT_HEAD_BYTES: usize = 4;

/// Something that a group agrees on and then does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Append one record batch to a log. Data groups.
    Append {
        /// The log. Its generation is checked at apply.
        log: LogId,
        /// The leader's clock when it proposed; at apply it is lifted to the log's last append time.
        append_time: TimestampMs,
        /// One batch, as the client sent it.
        batch: Bytes,
    },
    /// Open logs that the catalogue placed on this group. Already open ones stay as they are. Data groups.
    OpenLogs {
        /// At most [`LOGS_PER_ENTRY_MAX`].
        logs: Vec<OpenLog>,
    },
    /// Close all logs of these generations for ever. Data groups.
    CloseLogs {
        /// At most [`LOGS_PER_ENTRY_MAX`].
        generations: Vec<Generation>,
    },
    /// Raise a log's start. A start at or below the present one changes nothing. Data groups.
    SetLogStart {
        /// The log.
        log: LogId,
        /// The new start, at most the log's end.
        start: Offset,
    },
    /// Forget idempotent producers whose last append is older. Data groups.
    ExpireProducers {
        /// The log.
        log: LogId,
        /// In the log's own time: append times, no clock.
        before: TimestampMs,
    },
    /// Keep a named position in a log, in place of an earlier one of that name. Data groups.
    SetCursor {
        /// The log. Its generation is checked at apply.
        log: LogId,
        /// Its name, by the rules of channel names.
        name: String,
        /// The position, at most the log's end.
        offset: Offset,
    },
    /// Forget a cursor. One that is not there is no error. Data groups.
    DeleteCursor {
        /// The log.
        log: LogId,
        /// Its name.
        name: String,
    },
    /// From this entry on the group applies by the rules of this version. Never goes back. All groups.
    RaiseApplyVersion {
        /// The version, which every member's node knows.
        version: u16,
    },
    /// A change of the catalogue. The meta group only.
    Meta(MetaCommand),
}

/// A log to open, with what is fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLog {
    /// The log.
    pub log: LogId,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// Added to the raft term to give the leader epoch; above the last epoch of the name's previous life.
    pub epoch_base: i32,
}

/// The `context` and `data` of the entry that carries `command`.
///
/// Every context begins:
///
/// | at | size | field     | meaning                                              |
/// |---:|-----:|-----------|------------------------------------------------------|
/// |  0 |    2 | `version` | 1; a reader refuses every value it does not know     |
/// |  2 |    1 | `kind`    | which command                                        |
/// |  3 |    1 | reserved  | zero, enforced                                       |
///
/// An append (kind 1) goes on, and its `data` is the batch:
///
/// | at | size | field         | meaning                                          |
/// |---:|-----:|---------------|--------------------------------------------------|
/// |  4 |    8 | `generation`  | of the log                                       |
/// | 12 |    4 | `partition`   | of the log                                       |
/// | 16 |    8 | `append_time` | the leader's, in ms since 1970                   |
///
/// The others end there and have their fields in `data`, one after the other, where `log` is
/// generation (8) and partition (4), a text is its length (2) and its UTF-8 bytes, a list its
/// length (4) and its items, an optional value one byte 0 or 1 and then the value if 1:
///
/// | kind | command           | fields                                                               |
/// |-----:|-------------------|----------------------------------------------------------------------|
/// |    2 | `OpenLogs`        | list of: log, segment bytes (8), epoch base (4)                      |
/// |    3 | `CloseLogs`       | list of: generation (8)                                              |
/// |    4 | `SetLogStart`     | log, start (8)                                                       |
/// |    5 | `ExpireProducers` | log, before (8)                                                      |
/// |    6 | `SetCursor`       | log, text name, offset (8)                                           |
/// |    7 | `DeleteCursor`    | log, text name                                                       |
/// |    8 | `RaiseApplyVersion` | version (2)                                                        |
/// |   16 | `RegisterNode`    | node record: node (8), incarnation (16), boot epoch (8), session (8), texts: native, optional kafka, admin, peer, version; apply version max (2) |
/// |   17 | `CreateChannels`  | list of: text name, uuid (16), partitions (4), optional replicas (4), segment bytes (8) |
/// |   18 | `ReportLogs`      | group (8), list opened of: generation (8), list closed of: generation (8), last epoch (4) |
/// |   19 | `DeleteChannels`  | list of: generation (8)                                              |
/// |   20 | `ReportMembers`   | group (8), index (8), lists of replica (8): voters, outgoing, learners |
/// |   21 | `MintProducer`    | none                                                                 |
/// |   22 | `JoinNode`        | node record                                                          |
/// |   23 | `DrainNode`       | node (8)                                                             |
/// |   24 | `ForgetNode`      | node (8)                                                             |
/// |   25 | `CreateGroup`     | group (8), replication (4; 0 is auto), list of: node (8)             |
/// |   26 | `PlaceReplica`    | group (8), node (8), want (1)                                        |
/// |   27 | `RetireReplica`   | group (8), replica (8)                                               |
/// |   28 | `ReplaceReplica`  | group (8), lost replica (8)                                          |
///
/// # Panics
/// If a text is longer than [`TEXT_BYTES_MAX`] or a list than [`LOGS_PER_ENTRY_MAX`]: the proposer
/// checks them.
#[must_use]
pub fn encode(command: Command) -> (Vec<u8>, Bytes) {
    match command {
        Command::Append { log, append_time, batch } => {
            let mut context = context_head(Kind::Append, 20);
            context.log(log).i64(append_time.get());
            (context.into_bytes(), batch)
        }
        Command::OpenLogs { logs } => {
            let mut data = FieldWriter::new();
            data.list(&logs, LOGS_PER_ENTRY_MAX, |data, open| {
                data.log(open.log).u64(open.segment_bytes).i32(open.epoch_base);
            });
            whole(Kind::OpenLogs, data)
        }
        Command::CloseLogs { generations } => {
            let mut data = FieldWriter::new();
            data.list(&generations, LOGS_PER_ENTRY_MAX, |data, generation| {
                data.u64(generation.get());
            });
            whole(Kind::CloseLogs, data)
        }
        Command::SetLogStart { log, start } => {
            let mut data = FieldWriter::new();
            data.log(log).u64(start.get());
            whole(Kind::SetLogStart, data)
        }
        Command::ExpireProducers { log, before } => {
            let mut data = FieldWriter::new();
            data.log(log).i64(before.get());
            whole(Kind::ExpireProducers, data)
        }
        Command::SetCursor { log, name, offset } => {
            let mut data = FieldWriter::new();
            data.log(log).text(&name, TEXT_BYTES_MAX).u64(offset.get());
            whole(Kind::SetCursor, data)
        }
        Command::DeleteCursor { log, name } => {
            let mut data = FieldWriter::new();
            data.log(log).text(&name, TEXT_BYTES_MAX);
            whole(Kind::DeleteCursor, data)
        }
        Command::RaiseApplyVersion { version } => {
            let mut data = FieldWriter::new();
            data.u16(version);
            whole(Kind::RaiseApplyVersion, data)
        }
        Command::Meta(command) => {
            let mut data = FieldWriter::new();
            let kind = command.write(&mut data);
            whole(kind, data)
        }
    }
}

fn context_head(kind: Kind, more: usize) -> FieldWriter {
    let mut context = FieldWriter::with_capacity(CONTEXT_HEAD_BYTES.saturating_add(more));
    context.u16(ENTRY_VERSION).u8(kind.number()).u8(0);
    context
}

fn whole(kind: Kind, data: FieldWriter) -> (Vec<u8>, Bytes) {
    (context_head(kind, 0).into_bytes(), Bytes::from(data.into_bytes()))
}

/// The command in `entry`; `None` if it carries none: a new leader's empty entry, or a change of the
/// group's members, which the core deals with. The batch of an append shares the entry's bytes.
///
/// # Errors
/// Each of [`EntryError`]; apply must stop at the entry, never skip it.
pub fn decode(group: GroupId, entry: &Entry) -> Result<Option<Command>, EntryError> {
    if entry.get_entry_type() != EntryType::EntryNormal {
        return Ok(None);
    }
    let (context, data) = (&entry.context, &entry.data);
    if context.is_empty() && data.is_empty() {
        return Ok(None);
    }
    let (index, term) = (RaftIndex(entry.get_index()), Term(entry.get_term()));
    let malformed = |what| EntryError::Malformed { group, index, term, what };
    let mut head = FieldReader::new(context);
    let version = head.u16("version").map_err(malformed)?;
    if version != ENTRY_VERSION {
        return Err(EntryError::UnknownVersion {
            group,
            index,
            term,
            found: version,
            expected: ENTRY_VERSION,
        });
    }
    let number = head.u8("kind").map_err(malformed)?;
    head.zero("reserved").map_err(malformed)?;
    let kind =
        Kind::from_number(number).ok_or(EntryError::UnknownKind { group, index, term, found: number })?;
    read_command(kind, head, data).map(Some).map_err(malformed)
}

fn read_command(kind: Kind, mut head: FieldReader<'_>, data: &Bytes) -> Result<Command, MalformedField> {
    if kind == Kind::Append {
        let log = head.log()?;
        let append_time = TimestampMs(head.i64("append_time")?);
        head.end()?;
        return Ok(Command::Append { log, append_time, batch: data.clone() });
    }
    head.end()?;
    let mut data = FieldReader::new(data);
    let command = match kind {
        Kind::Append => return Err(MalformedField { field: "kind", problem: "an append with fields" }),
        Kind::OpenLogs => Command::OpenLogs {
            logs: data.list("logs", LOGS_PER_ENTRY_MAX, 24, |data| {
                Ok(OpenLog {
                    log: data.log()?,
                    segment_bytes: data.u64("segment_bytes")?,
                    epoch_base: data.i32("epoch_base")?,
                })
            })?,
        },
        Kind::CloseLogs => Command::CloseLogs {
            generations: data
                .list("generations", LOGS_PER_ENTRY_MAX, 8, |data| data.u64("generation").map(Generation))?,
        },
        Kind::SetLogStart => Command::SetLogStart { log: data.log()?, start: Offset(data.u64("start")?) },
        Kind::ExpireProducers => {
            Command::ExpireProducers { log: data.log()?, before: TimestampMs(data.i64("before")?) }
        }
        Kind::SetCursor => Command::SetCursor {
            log: data.log()?,
            name: data.text("name", TEXT_BYTES_MAX)?,
            offset: Offset(data.u64("offset")?),
        },
        Kind::DeleteCursor => {
            Command::DeleteCursor { log: data.log()?, name: data.text("name", TEXT_BYTES_MAX)? }
        }
        Kind::RaiseApplyVersion => Command::RaiseApplyVersion { version: data.u16("version")? },
        Kind::Meta(kind) => Command::Meta(MetaCommand::read(kind, &mut data)?),
    };
    data.end()?;
    Ok(command)
}

/// The log that a context routes to, if it is that of an append; for whoever needs no more than that.
#[must_use]
pub fn routed_log(context: &[u8]) -> Option<LogId> {
    let mut head = FieldReader::new(context);
    let known = head.u16("version").ok()? == ENTRY_VERSION && head.u8("kind").ok()? == Kind::Append.number();
    head.zero("reserved").ok()?;
    known.then(|| head.log().ok()).flatten()
}

impl FieldReader<'_> {
    pub(crate) fn log(&mut self) -> Result<LogId, MalformedField> {
        Ok(LogId { generation: self.generation()?, partition: Partition(self.u32("partition")?) })
    }

    pub(crate) fn generation(&mut self) -> Result<Generation, MalformedField> {
        self.u64("generation").map(Generation)
    }
}

impl FieldWriter {
    pub(crate) fn log(&mut self, log: LogId) -> &mut Self {
        self.u64(log.generation.get()).u32(log.partition.get())
    }
}
