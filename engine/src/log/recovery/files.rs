//! The files of a log: which belong here, and those that lie below the mark.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{Chain, Offset};

use super::table::{Place, Seen, Verdict};
use super::{Recovery, failed};
use crate::fields::{narrow, wide};
use crate::locks::Arc;
use crate::log::error::LogError;
use crate::log::locate::{load_sealed, verified_summary};
use crate::log::recovery::report::Phase;
use crate::log::shared::SegmentFacts;
use crate::segment::footer::FooterFault;
use crate::segment::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader};
use crate::segment::header::{HeaderFault, SegmentHeader};
use crate::segment::salvage::{Salvage, is_refusal};
use crate::segment::state::SegmentState;
use crate::segment::summary::{FIRST_FRAME, Summary};
use crate::segment::walk::{Depth, Expected, Step, Walk};
use crate::segment::{self};
use crate::storage::{EntryKind, File, OpenMode, Position};

/// Bytes read, or written again, at once.
const STEP: u64 = 64 << 10;

/// A file that has the name of a segment. Nothing of it was read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
}

/// A segment file that belongs into this log by its name, and by its header if that verifies.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<Salvage>,
    pub(crate) len: u64,
    /// `None`: it does not verify, or another one was written over it.
    pub(crate) header: Option<SegmentHeader>,
    /// Where the first frame behind a header that was written over lies: no crash does that, so what lay
    /// before it was there once. Else zero.
    pub(crate) written_over: Position,
}

/// What became of a file whose header was looked at.
#[derive(Debug)]
pub(crate) enum Examined {
    /// It belongs here.
    Found(Found),
    /// The disk does not give it. It was judged; nothing was changed.
    Unread,
    /// It did not belong here and was set aside.
    Gone,
}

impl Found {
    /// What the system said where it refused the bytes of the frame at `position`, if it did.
    pub(crate) fn refused_at(&self, position: Position) -> Option<String> {
        let mut head = [0; FRAME_HEADER_BYTES];
        let stated = match self.file.read_at(position, &mut head) {
            Ok(()) => FrameHeader::decode(&head).map_or(0, |header| u64::from(header.frame_len)),
            Err(_) => 0,
        };
        let bytes = stated.clamp(wide(FRAME_HEADER_BYTES), FRAME_BYTES_MAX);
        self.file.refused(position.get()..position.get().saturating_add(bytes))
    }
}

impl Recovery<'_> {
    /// The log's segment files by base. What has no name of a segment is set aside. `mark`: files with a
    /// lower base lie below the mark.
    pub(crate) fn list(&mut self, mark: Offset) -> Result<Vec<Listed>, LogError> {
        let dir = self.core.log_dir(self.id);
        let entries = match self.core.storage.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                let said = Some(source.to_string());
                self.judge_with(&dir, Position::ZERO, Place::BelowMark, Seen::Unlisted, said);
                return Err(failed(&dir, "list", source));
            }
        };
        let mut listed = Vec::new();
        for entry in entries {
            let path = dir.join(&entry.name);
            match (entry.kind, segment::parse_file_name(&entry.name)) {
                (EntryKind::File, Some(base)) => {
                    let place = if base < mark { Place::BelowMark } else { Place::AboveMark };
                    listed.push(Listed { base, path, place });
                }
                (EntryKind::File | EntryKind::Directory | EntryKind::Other, _) => {
                    let seen = Seen::UnknownName;
                    if self.judge(&path, Position::ZERO, Place::AboveMark, seen) == Verdict::SetAside {
                        self.set_aside(&path, "its name is not that of a segment")?;
                    }
                }
            }
        }
        listed.sort_by_key(|listed| listed.base);
        Ok(listed)
    }

    /// Opens one file and holds its header against its name. What belongs to another log is set aside;
    /// what another cluster or a newer release wrote refuses the log.
    pub(crate) fn examine(&mut self, listed: &Listed) -> Result<Examined, LogError> {
        if let Some(examined) = self.identify(listed)? {
            return Ok(examined);
        }
        self.set_misplaced_aside(listed)?;
        Ok(Examined::Gone)
    }

    /// Sets aside a file in which nothing is of this log.
    pub(crate) fn set_misplaced_aside(&mut self, listed: &Listed) -> Result<(), LogError> {
        let (path, place) = (&listed.path, listed.place);
        if self.judge(path, Position::ZERO, place, Seen::Misplaced) == Verdict::SetAside {
            self.core.open_files.close((self.id, listed.base));
            self.set_aside(path, "its header is that of another log or base offset")?;
        }
        Ok(())
    }

    /// As [`Recovery::examine`], but nothing is done yet about a file that another log's header, or one of
    /// another base offset, begins and that holds no frame of its name: that is `None`.
    pub(crate) fn identify(&mut self, listed: &Listed) -> Result<Option<Examined>, LogError> {
        let (path, place) = (&listed.path, listed.place);
        let opened = self.core.storage.open(path, OpenMode::ReadWrite);
        let file = match opened.and_then(|file| file.len().map(|len| (Arc::new(Salvage::new(file)), len))) {
            Ok(opened) => Ok(opened),
            Err(source) if is_refusal(&source) => {
                let said = Some(source.to_string());
                self.judge_with(path, Position::ZERO, place, Seen::Unreadable, said);
                return Ok(Some(Examined::Unread));
            }
            Err(source) => Err(failed(path, "open", source)),
        };
        let (file, len) = file?;
        if len == 0 && self.judge(path, Position::ZERO, place, Seen::Empty) == Verdict::SetAside {
            self.set_aside(path, "a file of no bytes: a segment that was begun")?;
            return Ok(Some(Examined::Gone));
        }
        let header =
            segment::header_of(file.as_ref()).map_err(|source| failed(path, "read the header of", source))?;
        let expected = self.core.identity.cluster;
        let mut written_over = Position::ZERO;
        let header = match header {
            Ok(header) if header.cluster != expected => {
                self.judge(path, Position::ZERO, place, Seen::ForeignCluster);
                let path = path.clone();
                return Err(LogError::ForeignCluster { path, expected, found: header.cluster });
            }
            Ok(header) if header.log != self.id || header.base != listed.base => {
                let behind = self.first_behind(file.as_ref(), len, listed.base, &header);
                match behind.map_err(|source| failed(path, "look behind the header of", source))? {
                    Some(position) => written_over = position,
                    None => return Ok(None),
                }
                None
            }
            Ok(header) => Some(header),
            Err(HeaderFault::UnknownFormat { found }) => {
                self.judge(path, Position(8), place, Seen::NewerFormat);
                return Err(LogError::UnknownFormat { path: path.clone(), position: Position(8), found });
            }
            Err(
                HeaderFault::Short
                | HeaderFault::Magic
                | HeaderFault::Checksum { .. }
                | HeaderFault::Reserved,
            ) => None,
        };
        let (base, path) = (listed.base, path.clone());
        Ok(Some(Examined::Found(Found { base, path, file, len, header, written_over })))
    }

    /// Where the first frame lies that belongs into the segment at `base` and not to the one whose `header`
    /// stands in its place.
    fn first_behind(
        &self,
        file: &dyn File,
        len: u64,
        base: Offset,
        header: &SegmentHeader,
    ) -> io::Result<Option<Position>> {
        let other = (header.log == self.id && header.base > base).then_some(header.base);
        let mut walk = Walk::new(file, self.tag, Depth::Full, FIRST_FRAME, len, None);
        loop {
            let walked = match walk.step()? {
                Step::Frame(walked) => Some(walked),
                Step::End | Step::Fault(_) => walk.resync()?,
            };
            let Some(walked) = walked else { return Ok(None) };
            let begins = walked.begins();
            if begins >= base && other.is_none_or(|other| begins < other) {
                return Ok(Some(walked.position));
            }
        }
    }

    /// Takes in a segment below the mark whose successor begins at `next`. Returns the chain at its
    /// end where that is known.
    pub(crate) fn take_sealed(
        &mut self,
        listed: &Listed,
        next: Offset,
        chain_start: Option<Chain>,
    ) -> Result<Option<Chain>, LogError> {
        let before = self.stopwatch.enter(Phase::Below);
        let taken = match self.examine(listed)? {
            Examined::Found(found) => self.take_examined(&found, next, chain_start),
            Examined::Unread => {
                self.mark_unread(listed.base, next);
                self.segments
                    .add(listed.base, SegmentFacts::known(SegmentState::Sealed, next, FIRST_FRAME, None));
                Ok(None)
            }
            Examined::Gone => {
                self.lost(&listed.path, listed.base, next);
                Ok(None)
            }
        };
        self.stopwatch.enter(before);
        taken
    }

    /// A segment that should be there is not.
    pub(crate) fn lost(&mut self, path: &Path, from: Offset, to: Offset) {
        if self.judge(path, Position::ZERO, Place::BelowMark, Seen::Missing) == Verdict::Corrupt {
            self.mark(from, to);
        }
    }

    fn take_examined(
        &mut self,
        found: &Found,
        next: Offset,
        chain_start: Option<Chain>,
    ) -> Result<Option<Chain>, LogError> {
        let (path, place) = (&found.path, Place::BelowMark);
        let sealed =
            |end, end_position, time| SegmentFacts::known(SegmentState::Sealed, end, end_position, time);
        if found.len == 0 {
            self.mark(found.base, next);
            self.segments.add(found.base, sealed(next, Position::ZERO, None));
            return Ok(None);
        }
        match &found.header {
            None => {
                self.judge(path, Position::ZERO, place, Seen::BrokenHeader);
            }
            Some(header) if chain_start.is_some_and(|chain| chain != header.chain_start) => {
                if self.judge(path, Position::ZERO, place, Seen::OtherHistory) == Verdict::Corrupt {
                    self.mark(found.base, next);
                    self.segments.add(found.base, sealed(next, Position(found.len), None));
                    return Ok(None);
                }
            }
            Some(_) => {}
        }
        let footer = load_sealed(found.file.as_ref(), self.tag)
            .map_err(|source| failed(path, "read the footer of", source))?;
        match footer {
            Ok((footer, _)) => {
                let end = footer.last_offset.plus(1);
                let time = Some(footer.max_timestamp);
                self.segments.add(found.base, sealed(end.min(next), footer.index_position, time));
                if end < next {
                    let seen = Seen::FooterShort;
                    if self.judge(path, footer.index_position, place, seen) == Verdict::Corrupt {
                        self.mark(end, next);
                    }
                    return Ok(None);
                }
                if end > next {
                    self.judge(path, footer.index_position, place, Seen::FooterContradicts);
                    return Ok(None);
                }
                Ok(Some(footer.chain_end))
            }
            Err(FooterFault::UnknownFormat { found: format }) => {
                let position = Position(found.len.saturating_sub(wide(segment::footer::FOOTER_BYTES)));
                self.judge(path, position, place, Seen::NewerFormat);
                Err(LogError::UnknownFormat { path: path.clone(), position, found: format })
            }
            Err(FooterFault::Absent | FooterFault::Bad) => {
                self.judge(path, Position(found.len), place, Seen::NoFooter);
                self.seal_again(found, next, found.header.map(|header| header.chain_start).or(chain_start))
            }
        }
    }

    /// Writes index and footer of a segment again, if its frames are whole up to `next`.
    fn seal_again(
        &mut self,
        found: &Found,
        next: Offset,
        chain_start: Option<Chain>,
    ) -> Result<Option<Chain>, LogError> {
        let path = &found.path;
        let expected = Expected { offset: found.base, chain: chain_start.unwrap_or_default() };
        let (summary, step) = verified_summary(found.file.as_ref(), self.tag, expected, found.len)
            .map_err(|source| failed(path, "walk", source))?;
        if summary.end == next {
            if let Err(error) = self.write_seal(found, &summary) {
                tracing::warn!(path = %path.display(), %error, "cannot seal it now; its frames are used, and the next start tries again");
            }
            let time = Some(summary.max_timestamp);
            let known = SegmentFacts::known(SegmentState::Sealed, summary.end, summary.end_position, time);
            self.segments.add(found.base, known);
            return Ok(Some(summary.chain));
        }
        let known = SegmentFacts::known(SegmentState::Sealed, next, Position(found.len), None);
        self.segments.add(found.base, known);
        if summary.end > next {
            self.judge(path, summary.end_position, Place::BelowMark, Seen::FooterContradicts);
            return Ok(None);
        }
        let seen = self.ended_on(found, summary.end_position, Place::BelowMark, &step, found.len)?;
        let said = found.refused_at(summary.end_position);
        match self.judge_with(path, summary.end_position, Place::BelowMark, seen, said) {
            Verdict::Corrupt | Verdict::Unread => {
                self.mark_holes(found, summary.end, summary.end_position, next)?;
            }
            Verdict::Intact
            | Verdict::TornTail
            | Verdict::SealAgain
            | Verdict::FramesOnly
            | Verdict::SetAside
            | Verdict::Unlink
            | Verdict::ReadOnly
            | Verdict::Refuse => {}
        }
        Ok(None)
    }

    /// Index and footer go behind the frames. What lay there, unless it was zeros, goes to quarantine first.
    fn write_seal(&mut self, found: &Found, summary: &Summary) -> Result<(), LogError> {
        let position = summary.end_position;
        self.keep_copy(found, position, found.len, "an index or footer that does not verify")?;
        let bytes = summary.seal_bytes(self.tag);
        let io = |action| move |source| failed(&found.path, action, source);
        let write = || found.file.write_at(position, &[&bytes]);
        self.core.with_reserve(write, crate::log::error::is_full).map_err(io("write the footer of"))?;
        found.file.truncate(summary.sealed_len()).map_err(io("cut to size"))?;
        found.file.sync().map_err(io("sync the footer of"))?;
        self.report.sealed_again = self.report.sealed_again.saturating_add(1);
        self.report.sealed_bytes = self.report.sealed_bytes.saturating_add(wide(bytes.len()));
        Ok(())
    }

    /// Marks what is lost from `from` on, which would begin at `position`: the offsets below `to` that no
    /// valid frame holds. Each hole is damage, or not given by the disk, as its bytes are.
    pub(crate) fn mark_holes(
        &mut self,
        found: &Found,
        from: Offset,
        position: Position,
        to: Offset,
    ) -> Result<(), LogError> {
        let io = |source| failed(&found.path, "look behind damage in", source);
        let mut good = (from, position);
        let mut walk = Walk::new(found.file.as_ref(), self.tag, Depth::Full, position, found.len, None);
        loop {
            let walked = match walk.step().map_err(io)? {
                Step::Frame(walked) => Some(walked),
                Step::End | Step::Fault(_) => walk.resync().map_err(io)?,
            };
            let Some(walked) = walked else { break };
            if let Some(batch) = walked.batch
                && batch.base_offset >= good.0
                && batch.end() <= to
            {
                self.mark_hole(found, good, (batch.base_offset, walked.position));
                good = (batch.end(), walked.end());
            }
        }
        self.mark_hole(found, good, (to, Position(found.len)));
        Ok(())
    }

    pub(crate) fn mark_hole(&mut self, found: &Found, from: (Offset, Position), to: (Offset, Position)) {
        if found.file.refused(from.1.get()..to.1.get()).is_some() {
            self.mark_unread(from.0, to.0);
        } else {
            self.mark(from.0, to.0);
        }
    }
}

/// Whether a file holds nothing but zeros from `position` up to `len`.
pub(crate) fn is_zeros(file: &dyn File, position: Position, len: u64) -> io::Result<bool> {
    // Compared as a whole, which is many times faster than byte by byte: a prefill is a mebibyte.
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = position.get();
    while at < len {
        let step = len.saturating_sub(at).min(STEP);
        let mut bytes = vec![0; narrow(step)];
        file.read_at(Position(at), &mut bytes)?;
        if ZEROS.get(..bytes.len()) != Some(bytes.as_slice()) {
            return Ok(false);
        }
        at = at.saturating_add(step);
    }
    Ok(true)
}

/// Writes what a file shows between two positions to the same place once more. What the disk refuses stays
/// as it is: what stands in for it in memory must never get there.
pub(crate) fn write_again(file: &Salvage, from: Position, to: Position) -> io::Result<()> {
    let mut at = from.get();
    while at < to.get() {
        let step = to.get().saturating_sub(at).min(STEP);
        let mut bytes = vec![0; narrow(step)];
        file.read_at(Position(at), &mut bytes)?;
        let range = at..at.saturating_add(step);
        if file.refused(range).is_none() {
            file.write_at(Position(at), &[&bytes])?;
        }
        at = at.saturating_add(step);
    }
    Ok(())
}

/// The end of a file's records, where the next file or the log says so.
pub(crate) fn next_of(files: &[Listed], at: usize, end: Offset) -> Offset {
    files.get(at.saturating_add(1)).map_or(end, |next| next.base.min(end))
}

/// A path for findings about a file that is not there.
pub(crate) fn missing_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(segment::file_name(base))
}
