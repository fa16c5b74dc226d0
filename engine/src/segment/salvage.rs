//! A segment file on a disk that does not give all of its bytes.
//!
//! A read that fails is made again in blocks. Blocks that the disk refuses are filled with a pattern, and
//! remembered. No frame, header or footer verifies over such bytes, unless they are what was written, so
//! whoever walks the file treats them as he treats any broken bytes: what lies around them is used, and
//! exactly what they held is lost. Whether it is lost to broken bytes or to bytes that the disk refuses,
//! [`Salvage::refused`] tells.
//!
//! A read beyond the end of the file, and an error that says nothing about the medium, fail as they do
//! without this.

use std::io::{self, ErrorKind};
use std::ops::Range;

use crate::fields::wide;
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError};
use crate::storage::{File, Position};

/// What is asked for again after a failed read: what a device can give or refuse.
const BLOCK: u64 = 4 << 10;

/// Most ranges remembered of one file; what lies between the last of them is then counted in.
const RANGES_MAX: usize = 1_024;

/// What stands where the disk gave nothing.
const PATTERN: u8 = 0xa5;

/// A file, read around the blocks that the disk refuses.
#[derive(Debug)]
pub(crate) struct Salvage {
    file: Arc<dyn File>,
    refused: Mutex<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    /// Rising; none touches another.
    ranges: Vec<Range<u64>>,
    error: Option<String>,
}

impl Salvage {
    pub(crate) fn new(file: Arc<dyn File>) -> Self {
        Self { file, refused: Mutex::default() }
    }

    /// What the system said about bytes of `range` that it refused; `None` if all that was read of it came.
    pub(crate) fn refused(&self, range: Range<u64>) -> Option<String> {
        let refused = self.state();
        let hit = refused.ranges.iter().any(|known| known.start < range.end && range.start < known.end);
        if hit { refused.error.clone() } else { None }
    }

    /// All ranges that were refused, rising.
    pub(crate) fn all_refused(&self) -> Vec<Range<u64>> {
        self.state().ranges.clone()
    }

    fn state(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_in_blocks(&self, position: Position, buf: &mut [u8]) {
        let mut at = position.get();
        let mut rest = buf;
        while !rest.is_empty() {
            let step = (BLOCK - at % BLOCK).min(wide(rest.len()));
            let (block, behind) = rest.split_at_mut(crate::fields::narrow(step));
            if let Err(error) = self.file.read_at(Position(at), block) {
                block.fill(PATTERN);
                self.state().add(at..at.saturating_add(step), error.to_string());
            }
            rest = behind;
            at = at.saturating_add(step);
        }
    }
}

impl Refused {
    fn add(&mut self, range: Range<u64>, error: String) {
        self.error.get_or_insert(error);
        let mut merged = range;
        self.ranges.retain(|known| {
            let apart = known.end < merged.start || merged.end < known.start;
            if !apart {
                merged = known.start.min(merged.start)..known.end.max(merged.end);
            }
            apart
        });
        let at = self.ranges.partition_point(|known| known.start < merged.start);
        self.ranges.insert(at, merged);
        if self.ranges.len() > RANGES_MAX
            && let Some(last) = self.ranges.pop()
            && let Some(before) = self.ranges.last_mut()
        {
            before.end = last.end;
        }
    }
}

/// Whether an error says that the medium does not give these bytes, and not that this process lacks
/// something or that there are no such bytes.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    const LACKING: [rustix::io::Errno; 6] = [
        rustix::io::Errno::MFILE,
        rustix::io::Errno::NFILE,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::ACCESS,
        rustix::io::Errno::PERM,
        rustix::io::Errno::BADF,
    ];
    let lacking = LACKING.iter().any(|lacking| error.raw_os_error() == Some(lacking.raw_os_error()));
    let none = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::NotFound | ErrorKind::Interrupted | ErrorKind::NotConnected
    );
    !lacking && !none
}

impl File for Salvage {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        match self.file.read_at(position, buf) {
            Err(error) if is_refusal(&error) => {
                self.read_in_blocks(position, buf);
                Ok(())
            }
            done => done,
        }
    }

    fn read(&self, position: Position, len: usize) -> io::Result<Vec<u8>> {
        match self.file.read(position, len) {
            Err(error) if is_refusal(&error) => {
                let mut bytes = vec![0; len];
                self.read_in_blocks(position, &mut bytes);
                Ok(bytes)
            }
            done => done,
        }
    }

    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(position, parts)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::OpenMode;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn only_the_blocks_that_the_disk_refuses_are_lost() {
        let disk = SimDisk::new(1);
        let path = Path::new("/file");
        let file = disk.storage().open(path, OpenMode::CreateNew).unwrap();
        file.write_at(Position::ZERO, &[&[7; 40_000]]).unwrap();
        file.sync().unwrap();
        disk.spoil(path, 9_000..9_001).unwrap();
        disk.spoil(path, 13_000..13_001).unwrap();
        let salvage = Salvage::new(file);
        let mut bytes = vec![0; 30_000];
        salvage.read_at(Position(1_000), &mut bytes).unwrap();
        let lost: usize = bytes.iter().filter(|byte| **byte != 7).count();
        assert_eq!(lost, 2 * 4_096, "a block each");
        assert_eq!(salvage.all_refused(), vec![8_192..16_384]);
        assert!(salvage.refused(0..8_192).is_none());
        assert!(salvage.refused(8_191..8_193).is_some());
        assert_eq!(
            salvage.read_at(Position(39_999), &mut [0; 2]).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
    }
}
