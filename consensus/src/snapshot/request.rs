//! What a fetching node asks the offering one for, over the transport's bulk streams.
//!
//! | at | size | field        | meaning                                            |
//! |---:|-----:|--------------|----------------------------------------------------|
//! |  0 |    2 | `format`     | 1; every other value is refused                    |
//! |  2 |    2 | `kind`       | 1 manifest, 2 segment file                         |
//! |  4 |    4 | `partition`  | of the log; 0 for a manifest                       |
//! |  8 |    8 | `group`      | the group                                          |
//! | 16 |    8 | `digest`     | of the manifest that was offered                   |
//! | 24 |    8 | `generation` | of the log; 0 for a manifest                       |
//! | 32 |    8 | `base`       | of the segment; 0 for a manifest                   |
//!
//! Little-endian, 40 bytes. A file is served only if an offered manifest lists it, and only as many of
//! its bytes as that says: no path ever comes from a peer.

use bytes::Bytes;
use tidelog_wire::ids::{Generation, GroupId, LogId, Offset, Partition};

use crate::entry::{FieldReader, FieldWriter, MalformedField};

const FORMAT: u16 = 1;
const KIND_MANIFEST: u16 = 1;
const KIND_FILE: u16 = 2;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// The group.
    pub group: GroupId,
    /// Digest of the manifest.
    pub digest: u64,
    /// What of it.
    pub part: SnapshotPart,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// The manifest itself.
    Manifest,
    /// A segment file that it lists.
    File {
        /// The log.
        log: LogId,
        /// The segment.
        base: Offset,
    },
}

impl SnapshotRequest {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let none = LogId { generation: Generation::ZERO, partition: Partition::ZERO };
        let (kind, log, base) = match self.part {
            SnapshotPart::Manifest => (KIND_MANIFEST, none, Offset::ZERO),
            SnapshotPart::File { log, base } => (KIND_FILE, log, base),
        };
        let mut out = FieldWriter::with_capacity(40);
        out.u16(FORMAT).u16(kind).u32(log.partition.get());
        out.u64(self.group.get()).u64(self.digest).u64(log.generation.get()).u64(base.get());
        out.into_bytes().into()
    }

    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedField> {
        let mut fields = FieldReader::new(bytes);
        if fields.u16("format")? != FORMAT {
            return Err(MalformedField { field: "format", problem: "not known to this release" });
        }
        let kind = fields.u16("kind")?;
        let partition = Partition(fields.u32("partition")?);
        let group = GroupId(fields.u64("group")?);
        let digest = fields.u64("digest")?;
        let log = LogId { generation: Generation(fields.u64("generation")?), partition };
        let base = Offset(fields.u64("base")?);
        fields.end()?;
        let part = match kind {
            KIND_MANIFEST => SnapshotPart::Manifest,
            KIND_FILE => SnapshotPart::File { log, base },
            _ => return Err(MalformedField { field: "kind", problem: "not known to this release" }),
        };
        Ok(Self { group, digest, part })
    }
}
