//! What of a snapshot's file lies here already, and what becomes of it in staging.
//!
//! In this order, the cheapest way that is safe:
//! 1. it lies in staging, whole: verified when it was put there, verified again after a restart;
//! 2. it lies in the log already, sealed, with the same length, header and footer: it is synced, and used
//!    where it is;
//! 3. its beginning lies in staging, or in the log: the longer of the two is kept or copied, so that of an active
//!    segment only the tail is fetched that the follower lacks;
//! 4. nothing is here.
//!
//! A beginning is believed for now: the whole file is verified by its chain before it counts.

use std::sync::Arc;

use tidelog_engine::storage::{File, OpenMode, Position};

use super::error::{SnapshotError, io, unsynced};
use super::manifest::SegmentFile;
use super::staging::{Kind, Staging};
use super::verify::{Owner, begins_as, is_same_sealed, verified_prefix, verify};

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 * 1024;

/// What is here of a file.
pub(super) enum Found {
    /// All of it, in staging.
    Staged,
    /// All of it, in its log.
    InPlace,
    /// A beginning, perhaps empty, in staging.
    Part(Part),
}

/// The file on its way.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<dyn File>,
    pub(super) length: u64,
}

/// What of a file that is here may be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    /// The one in the log.
    pub(super) own: bool,
    /// The one on its way in staging.
    pub(super) part: bool,
}

/// Finds what is here of `wanted`, and makes a beginning of it in staging unless all of it is here.
pub(super) fn look(
    staging: &Staging,
    owner: Owner,
    wanted: &SegmentFile,
    trust: Trust,
) -> Result<Found, SnapshotError> {
    let whole = staging.path(owner.log, wanted.base, Kind::Whole);
    let part = staging.path(owner.log, wanted.base, Kind::Part);
    if let Some(file) = staging.open(&whole, OpenMode::Read)? {
        if verify(&*file, &whole, owner, wanted).is_ok() {
            return Ok(Found::Staged);
        }
        // Of an older manifest: shorter, perhaps. It is continued, and verified at the end.
        drop(file);
        staging.rename(&whole, &part)?;
    }
    let in_place = staging.open(&staging.place(owner.log, wanted.base), OpenMode::Read)?;
    if trust.own
        && let Some(held) = &in_place
        && is_same_sealed(&**held, owner, wanted)
    {
        // Segments are synced by checkpoints only, and no checkpoint of ours may have reached this one.
        staging.sync_in_place(owner.log, wanted.base)?;
        return Ok(Found::InPlace);
    }
    let own = in_place.filter(|held| trust.own && begins_as(&**held, owner, wanted));
    let own_length =
        own.as_ref().map_or(Ok(0), |held| held.len()).map_err(io(&part, "ask for the length"))?;
    if let Some(file) = staging.open(&part, OpenMode::ReadWrite)? {
        let length = file.len().map_err(io(&part, "ask for the length"))?;
        if trust.part && length <= wanted.length && length >= own_length.min(wanted.length) {
            return Ok(Found::Part(Part { file, length }));
        }
        drop(file);
        staging.remove(&part)?;
    }
    let file = staging.storage.open(&part, OpenMode::CreateNew).map_err(io(&part, "create the file"))?;
    let length = match own {
        Some(held) => copy(&*held, &*file, wanted.length).map_err(io(&part, "copy the beginning"))?,
        None => 0,
    };
    Ok(Found::Part(Part { file, length }))
}

/// Cuts a file that does not verify back to the beginning that does, so that only the rest is fetched again.
pub(super) fn cut_back(staging: &Staging, owner: Owner, wanted: &SegmentFile) -> Result<(), SnapshotError> {
    let part = staging.path(owner.log, wanted.base, Kind::Part);
    let Some(file) = staging.open(&part, OpenMode::ReadWrite)? else { return Ok(()) };
    let good = verified_prefix(&*file, &part, owner, wanted).map_err(io(&part, "read it again"))?;
    file.truncate(good).map_err(io(&part, "cut it back"))
}

/// Copies what `from` has, at most `bytes_max`.
fn copy(from: &dyn File, to: &dyn File, bytes_max: u64) -> std::io::Result<u64> {
    let end = from.len()?.min(bytes_max);
    let mut at = 0u64;
    let mut buffer = vec![0; COPY_BYTES];
    while at < end {
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(COPY_BYTES);
        let Some(piece) = buffer.get_mut(..left) else { break };
        from.read_at(Position(at), piece)?;
        to.write_at(Position(at), &[piece])?;
        at = at.saturating_add(wide(left));
    }
    Ok(at)
}

/// Verifies a file that has its full length, and makes it count.
pub(super) fn complete(staging: &Staging, owner: Owner, wanted: &SegmentFile) -> Result<(), SnapshotError> {
    let part = staging.path(owner.log, wanted.base, Kind::Part);
    let file = staging.storage.open(&part, OpenMode::ReadWrite).map_err(io(&part, "open the file"))?;
    verify(&*file, &part, owner, wanted)?;
    file.sync().map_err(unsynced(&part))?;
    drop(file);
    staging.rename(&part, &staging.path(owner.log, wanted.base, Kind::Whole))
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
