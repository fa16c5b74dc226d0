//! A file as it would be: its own bytes, with some ranges taken from elsewhere. Nothing is written.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use crate::fields::{narrow, wide};
use crate::storage::{File, Position};

/// Where the bytes of a range come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Made anew.
    Bytes(Vec<u8>),
    /// The same range of another copy.
    Copy(Arc<dyn File>),
}

/// A file, patched in thought.
#[derive(Clone, Debug)]
pub(super) struct Patched {
    file: Arc<dyn File>,
    len: u64,
    /// By their first byte; they do not overlap.
    patches: BTreeMap<u64, (u64, Source)>,
}

impl Patched {
    pub(super) fn new(file: Arc<dyn File>, len: u64) -> Self {
        Self { file, len, patches: BTreeMap::new() }
    }

    /// Puts `source` over a range, which must not overlap another patch. The file grows if needed.
    pub(super) fn put(&mut self, bytes: &Range<u64>, source: Source) {
        if bytes.start < bytes.end {
            self.len = self.len.max(bytes.end);
            self.patches.insert(bytes.start, (bytes.end, source));
        }
    }

    pub(super) fn cut(&mut self, len: u64) {
        self.len = len;
    }
}

impl File for Patched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        let (from, until) = (position.get(), position.get().saturating_add(wide(buf.len())));
        if until > self.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let own_end = self.file.len()?.clamp(from, until);
        let own = narrow(own_end.saturating_sub(from));
        if let Some(own) = buf.get_mut(..own) {
            self.file.read_at(position, own)?;
        }
        for (start, (end, source)) in self.patches.range(..until) {
            let overlap = from.max(*start)..until.min(*end);
            if overlap.start >= overlap.end {
                continue;
            }
            let place = narrow(overlap.start.saturating_sub(from))..narrow(overlap.end.saturating_sub(from));
            let Some(part) = buf.get_mut(place) else { continue };
            match source {
                Source::Copy(copy) => copy.read_at(Position(overlap.start), part)?,
                Source::Bytes(bytes) => {
                    let within = narrow(overlap.start.saturating_sub(*start))
                        ..narrow(overlap.end.saturating_sub(*start));
                    part.copy_from_slice(bytes.get(within).ok_or(ErrorKind::UnexpectedEof)?);
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, _: Position, _: &[&[u8]]) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
}
