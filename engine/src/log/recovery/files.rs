//! The files of a log: which belong here, and those that lie below the mark.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{Chain, Offset};

use super::table::{Place, Seen, Verdict};
use super::{Recovery, facts, failed};
use crate::fields::narrow;
use crate::locks::Arc;
use crate::log::error::LogError;
use crate::log::locate::{load_sealed, verified_summary};
use crate::segment::header::{HeaderFault, SegmentHeader};
use crate::segment::state::SegmentState;
use crate::segment::walk::Expected;
use crate::segment::{self};
use crate::storage::{EntryKind, File, OpenMode, Position};

/// A segment file that belongs into this log by its name, and by its header if that verifies.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) len: u64,
    /// `None`: it does not verify.
    pub(crate) header: Option<SegmentHeader>,
}

impl Recovery<'_> {
    /// The log's segment files by base. What does not belong here is set aside; what another cluster
    /// or a newer release wrote refuses the log. `mark`: files with a lower base lie below the mark.
    pub(crate) fn list(&mut self, mark: Offset) -> Result<Vec<Found>, LogError> {
        let dir = self.core.log_dir(self.id);
        let entries = match self.core.storage.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(&dir, "list", source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = dir.join(&entry.name);
            let base = match (entry.kind, segment::parse_file_name(&entry.name)) {
                (EntryKind::File, Some(base)) => base,
                (EntryKind::File | EntryKind::Directory | EntryKind::Other, _) => {
                    self.judge(&path, Position::ZERO, Place::AboveMark, Seen::UnknownName);
                    self.core.set_aside_file(&path, "its name is not that of a segment")?;
                    continue;
                }
            };
            let place = if base < mark { Place::BelowMark } else { Place::AboveMark };
            found.extend(self.examine(base, path, place)?);
        }
        found.sort_by_key(|found| found.base);
        Ok(found)
    }

    /// Opens one file and holds its header against its name.
    fn examine(&mut self, base: Offset, path: PathBuf, place: Place) -> Result<Option<Found>, LogError> {
        let storage = &self.core.storage;
        let file =
            storage.open(&path, OpenMode::ReadWrite).map_err(|source| failed(&path, "open", source))?;
        let len = file.len().map_err(|source| failed(&path, "size", source))?;
        let header = segment::header_of(file.as_ref()).map_err(|source| failed(&path, "read", source))?;
        let expected = self.core.identity.cluster;
        match header {
            Ok(header) if header.cluster != expected => {
                self.judge(&path, Position::ZERO, place, Seen::ForeignCluster);
                Err(LogError::ForeignCluster { path, expected, found: header.cluster })
            }
            Ok(header) if header.log != self.id || header.base != base => {
                self.judge(&path, Position::ZERO, place, Seen::Misplaced);
                drop(file);
                self.core.set_aside_file(&path, "its header is that of another log or base offset")?;
                Ok(None)
            }
            Ok(header) => Ok(Some(Found { base, path, file, len, header: Some(header) })),
            Err(HeaderFault::UnknownFormat { found }) => {
                self.judge(&path, Position::ZERO, place, Seen::NewerFormat);
                Err(LogError::UnknownFormat { path, position: Position(8), found })
            }
            Err(
                HeaderFault::Short
                | HeaderFault::Magic
                | HeaderFault::Checksum { .. }
                | HeaderFault::Reserved,
            ) => Ok(Some(Found { base, path, file, len, header: None })),
        }
    }

    /// Takes in a segment below the mark whose successor begins at `next`. Returns the chain at its
    /// end where that is known.
    pub(crate) fn take_sealed(
        &mut self,
        found: &Found,
        next: Offset,
        chain_start: Option<Chain>,
    ) -> Result<Option<Chain>, LogError> {
        let path = &found.path;
        if found.header.is_none() {
            self.judge(path, Position::ZERO, Place::BelowMark, Seen::BrokenHeader);
        }
        let sealed = load_sealed(found.file.as_ref(), self.tag)
            .map_err(|source| failed(path, "read the footer of", source))?;
        if let Ok((footer, _)) = sealed {
            let end = footer.last_offset.plus(1);
            if end <= next {
                let known =
                    facts(SegmentState::Sealed, end, footer.index_position, Some(footer.max_timestamp));
                self.add_segment(found.base, path, known);
                if end < next {
                    self.judge(path, footer.index_position, Place::BelowMark, Seen::Missing);
                    self.mark(end, next);
                }
                return Ok(Some(footer.chain_end));
            }
        }
        self.seal_again(found, next, found.header.map(|header| header.chain_start).or(chain_start))
    }

    /// Writes index and footer of a segment again, if its frames are whole up to `next`.
    fn seal_again(
        &mut self,
        found: &Found,
        next: Offset,
        chain_start: Option<Chain>,
    ) -> Result<Option<Chain>, LogError> {
        let path = &found.path;
        self.judge(path, Position(found.len), Place::BelowMark, Seen::NoFooter);
        let expected = Expected { offset: found.base, chain: chain_start.unwrap_or_default() };
        let (summary, step) = verified_summary(found.file.as_ref(), self.tag, expected, found.len)
            .map_err(|source| failed(path, "walk", source))?;
        if summary.end == next {
            let io = |action| move |source| failed(path, action, source);
            found
                .file
                .write_at(summary.end_position, &[&summary.seal_bytes(self.tag)])
                .map_err(io("write the footer of"))?;
            found.file.truncate(summary.sealed_len()).map_err(io("cut to size"))?;
            found.file.sync().map_err(io("sync the footer of"))?;
            let known =
                facts(SegmentState::Sealed, summary.end, summary.end_position, Some(summary.max_timestamp));
            self.add_segment(found.base, path, known);
            return Ok(Some(summary.chain));
        }
        let seen = self.ended_on(path, summary.end_position, &step)?;
        if self.judge(path, summary.end_position, Place::BelowMark, seen) == Verdict::Corrupt {
            self.mark_holes(found, summary.end, summary.end_position, next)?;
        }
        self.add_segment(found.base, path, facts(SegmentState::Sealed, next, Position(found.len), None));
        Ok(None)
    }

    /// Marks what is damaged from `from` on: the offsets below `to` that no valid frame holds.
    pub(crate) fn mark_holes(
        &mut self,
        found: &Found,
        from: Offset,
        position: Position,
        to: Offset,
    ) -> Result<(), LogError> {
        use crate::segment::walk::{Depth, Step, Walk};
        let io = |source| failed(&found.path, "look behind damage in", source);
        let mut good_end = from;
        let mut walk = Walk::new(found.file.as_ref(), self.tag, Depth::Full, position, found.len, None);
        loop {
            let walked = match walk.step().map_err(io)? {
                Step::Frame(walked) => Some(walked),
                Step::End | Step::Fault(_) => walk.resync().map_err(io)?,
            };
            let Some(walked) = walked else { break };
            if let Some(batch) = walked.batch
                && batch.base_offset >= good_end
                && batch.end() <= to
            {
                self.mark(good_end, batch.base_offset);
                good_end = batch.end();
            }
        }
        self.mark(good_end, to);
        Ok(())
    }
}

/// Whether a file holds nothing but zeros from `position` up to `len`.
pub(crate) fn is_zeros(file: &dyn File, position: Position, len: u64) -> io::Result<bool> {
    const STEP: u64 = 64 << 10;
    let mut at = position.get();
    while at < len {
        let step = len.saturating_sub(at).min(STEP);
        let mut bytes = vec![0; narrow(step)];
        file.read_at(Position(at), &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at = at.saturating_add(step);
    }
    Ok(true)
}

/// The end of a file's records, where the next file or the log says so.
pub(crate) fn next_of(files: &[Found], at: usize, end: Offset) -> Offset {
    files.get(at.saturating_add(1)).map_or(end, |next| next.base.min(end))
}

/// A path for findings about a file that is not there.
pub(crate) fn missing_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(segment::file_name(base))
}
