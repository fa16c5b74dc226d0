//! What a simulated process holds of the disk: open files and locks.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::fault::{Failure, Operation, Struck, Written};
use super::names::Ino;
use super::{SimDisk, State, dead};
use crate::locks::MutexGuard;
use crate::storage::{DirectoryLock, File, OpenMode, Position};

/// An open file. Dead once the disk has crashed.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) session: u64,
    pub(super) ino: Ino,
    pub(super) path: PathBuf,
    pub(super) mode: OpenMode,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.session == self.session {
            Ok(state)
        } else {
            Err(dead("the file was opened before the crash"))
        }
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.mode {
            OpenMode::Read => Err(rustix::io::Errno::BADF.into()),
            OpenMode::ReadWrite | OpenMode::CreateNew => self.state(),
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state()
            && let Some(count) = state.open.get_mut(&self.ino)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.open.remove(&self.ino);
            }
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        state.attempt(Operation::Size, &self.path)?;
        Ok(state.names.contents(self.ino)?.cached().len())
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let struck = state.begin(Operation::Read, &self.path, position.get())?;
        state.faults.note_range(position, buf.len());
        if let Some(struck) = struck {
            return Err(struck.failure.error());
        }
        let contents = state.names.contents(self.ino)?;
        let image = contents.cached();
        let end = u64::try_from(buf.len()).ok().and_then(|len| position.get().checked_add(len));
        if buf.is_empty() {
            return Ok(());
        }
        let Some(end) = end.filter(|end| *end <= image.len()) else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        if !contents.is_readable(position.get(), end) {
            return Err(Failure::Io.error());
        }
        image.read(position.get(), buf);
        Ok(())
    }

    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = parts.concat();
        let mut state = self.writable()?;
        let detail = xxh3_64_with_seed(&bytes, position.get());
        let struck = state.begin(Operation::Write, &self.path, detail)?;
        state.faults.note_range(position, bytes.len());
        let Some(Struck { failure, written }) = struck else {
            return state.write(self.ino, position.get(), &bytes);
        };
        match failure {
            Failure::Io | Failure::NoSpace | Failure::NoHandles | Failure::Short => {
                let part = match written {
                    Written::ByChance => state.part_of(bytes.len()),
                    Written::Nothing => 0,
                    Written::Half => bytes.len() / 2,
                    Written::All => bytes.len(),
                };
                state.write(self.ino, position.get(), bytes.get(..part).unwrap_or(&[]))?;
                Err(failure.error())
            }
            Failure::Lost => state.lose(self.ino, position.get(), &bytes),
            Failure::Misdirected { path, position: elsewhere } => {
                state.lose(self.ino, position.get(), &bytes)?;
                match state.names.find(&path) {
                    Ok(other) => state.names.contents_mut(other)?.write_stray(elsewhere.get(), &bytes),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                Ok(())
            }
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        if let Some(struck) = state.begin(Operation::Truncate, &self.path, len)? {
            return Err(struck.failure.error());
        }
        let before = state.names.contents(self.ino)?.cached().len();
        state.grow(before, len)?;
        state.names.contents_mut(self.ino)?.truncate(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let struck = state.begin(Operation::Sync, &self.path, 0)?;
        let contents = state.names.contents_mut(self.ino)?;
        if let Some(struck) = struck {
            contents.fail_sync();
            return Err(struck.failure.error());
        }
        contents.sync();
        Ok(())
    }
}

/// A held lock. A crash has released it already when its guard is dropped later.
#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) number: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.locks.get(&self.path) == Some(&self.number) {
            state.locks.remove(&self.path);
        }
    }
}

impl DirectoryLock for SimLock {}
