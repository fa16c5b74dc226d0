//! What raft-engine is about to cut while it opens: a torn tail, or bytes that were synced once.
//!
//! raft-engine takes whatever does not verify in its newest file for a torn tail, and cuts there. A bit that flipped in
//! the middle of that file would take acknowledged entries with it, without a word. What a crash can leave tells
//! the two apart:
//! - Batches with entries are written one at a time, each synced before the next is written (`super::engine_log`
//!   holds its turn meanwhile). So when a **second** batch with entries stands behind some bytes, the first one was
//!   synced before it was written, and with it all that stands before them. A crash takes only what was not synced:
//!   such bytes are intact, or something else has damaged them.
//! - One batch with entries behind bad bytes proves nothing: it may have been on its way together with smaller batches
//!   before it, which nobody syncs, and pages reach the disk in any order.
//! - raft-engine syncs a file before it makes the next. So in any file but the newest nothing is torn.
//!
//! Old batches behind the end of a recycled file do not count: each is signed with the number of its file. Files of
//! the rewrite queue are not judged: several of their batches share a sync, and what they lose shows as a hole.
//!
//! What stays hidden: a flip in the last batch with entries, or in what stands before it and behind the last but one.

use crc_fast::CrcAlgorithm;
use tidelog_wire::limits::MIB;

/// Bytes of a batch before its entries: length and compression, then where its items begin. Big-endian.
const HEAD: usize = 16;
/// Bytes of the checksum that ends a batch.
const CHECKSUM: usize = 4;
/// Most bytes of a tail that are looked at: several files of the usual size.
pub(super) const TAIL_BYTES_MAX: usize = 256 * MIB;
/// Zeros are skipped so many at a time.
const ZEROS: [u8; 4096] = [0; 4096];
/// How many batches with entries behind bad bytes prove that those were synced.
const PROOF: usize = 2;

/// A file of raft-engine's append queue, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileNumber(pub(super) u64);

impl FileNumber {
    /// `None` for a file of another kind.
    pub(super) fn of(name: &str) -> Option<Self> {
        let number = name.strip_suffix(".raftlog")?;
        number.parse().ok().map(Self)
    }

    /// What a batch of this file is signed with.
    fn signature(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Whether a file that ends with `tail`, which begins with bytes that do not verify, has lost synced bytes.
pub(super) fn was_synced(tail: &[u8], file: FileNumber) -> bool {
    let mut found = 0;
    let mut at = 0;
    // Checksums are over the items of a batch, which are few. Bytes made to look like batches cost no more than this.
    let mut budget = tail.len().saturating_mul(4).saturating_add(MIB);
    while let Some(rest) = tail.get(at..).filter(|rest| rest.len() > HEAD) {
        match Batch::at(rest, file, &mut budget) {
            Some(batch) => {
                found += usize::from(batch.has_entries);
                at = at.saturating_add(batch.length);
            }
            None => at = at.saturating_add(to_next(rest)),
        }
        if found == PROOF {
            return true;
        }
    }
    false
}

/// Bytes to the next place where a batch may begin: a length that fits begins with a zero, but is none.
fn to_next(rest: &[u8]) -> usize {
    let whole = rest.chunks_exact(ZEROS.len()).take_while(|chunk| **chunk == ZEROS).count();
    // A head may begin with the last zeros before the first other byte.
    whole.saturating_mul(ZEROS.len()).saturating_sub(HEAD).max(1)
}

struct Batch {
    length: usize,
    has_entries: bool,
}

impl Batch {
    /// The batch at the beginning of `bytes`, if there is one that was written into this file.
    fn at(bytes: &[u8], file: FileNumber, budget: &mut usize) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (items_at, _) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_be_bytes(*head) >> 8).ok()?;
        let items_at = usize::try_from(u64::from_be_bytes(*items_at)).ok()?;
        if items_at < HEAD || length <= items_at.checked_add(CHECKSUM)? {
            return None;
        }
        let items = bytes.get(items_at..length)?;
        let (items, checksum) = items.split_last_chunk::<CHECKSUM>()?;
        *budget = budget.checked_sub(items.len())?;
        let found = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, items);
        let expected = u32::from_le_bytes(*checksum) ^ file.signature();
        (found == u64::from(expected)).then_some(Self { length, has_entries: items_at > HEAD })
    }
}
