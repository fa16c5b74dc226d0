//! What a fetching node asks for.
//!
//! | at | size | field        | meaning                                            |
//! |---:|-----:|--------------|----------------------------------------------------|
//! |  0 |    2 | `format`     | 1; every other value is refused                    |
//! |  2 |    2 | `kind`       | 1 manifest, 2 segment file                         |
//! |  4 |    4 | `partition`  | of the log; 0 for a manifest                       |
//! |  8 |    8 | `group`      | the group                                          |
//! | 16 |    8 | `digest`     | of the manifest that was offered                   |
//! | 24 |    8 | `generation` | of the log; 0 for a manifest                       |
//! | 32 |   48 | `file`       | the file as the manifest lists it; zero for a manifest |
//!
//! Little-endian, 80 bytes. A file is described in full, so that a node that never saw the manifest can tell whether
//! it has the same one. Only as many bytes of it are served as that says, and no path ever comes from a peer.

use bytes::Bytes;
use tidelog_wire::ids::{Chain, Generation, GroupId, LogId, Offset, Partition};

use super::manifest::SegmentFile;
use crate::entry::{FieldReader, FieldWriter, MalformedField};

const FORMAT: u16 = 1;
const KIND_MANIFEST: u16 = 1;
const KIND_FILE: u16 = 2;
const REQUEST_BYTES: usize = 80;
const NO_LOG: LogId = LogId { generation: Generation::ZERO, partition: Partition::ZERO };
const NO_FILE: SegmentFile = SegmentFile {
    base: Offset::ZERO,
    end: Offset::ZERO,
    length: 0,
    chain_start: Chain(0),
    chain_end: Chain(0),
    sealed: false,
};

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
        /// The segment, or the beginning of the active one.
        file: SegmentFile,
    },
}

impl SnapshotRequest {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (kind, log, file) = match self.part {
            SnapshotPart::Manifest => (KIND_MANIFEST, NO_LOG, NO_FILE),
            SnapshotPart::File { log, file } => (KIND_FILE, log, file),
        };
        let mut out = FieldWriter::with_capacity(REQUEST_BYTES);
        out.u16(FORMAT).u16(kind).u32(log.partition.get());
        out.u64(self.group.get()).u64(self.digest).u64(log.generation.get());
        file.write_to(&mut out);
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
        let file = SegmentFile::read_from(&mut fields)?;
        fields.end()?;
        let part = match kind {
            KIND_MANIFEST => SnapshotPart::Manifest,
            KIND_FILE => SnapshotPart::File { log, file },
            _ => return Err(MalformedField { field: "kind", problem: "not known to this release" }),
        };
        Ok(Self { group, digest, part })
    }
}
