//! Where recovery puts what it takes out of use: `DATA/quarantine`.
//!
//! Nothing is cut or displaced before a copy of it lies here, synced, with a note that says where it
//! was and why. Each piece is `<number>-<ms since 1970>-<origin>.piece`, its note the same with `.note`.
//! Numbers only rise, so the oldest piece is the lowest.
//!
//! The directory is capped in bytes and in age. What has to go for that, oldest first and never what this
//! start has set aside itself, is returned, so that the caller says so in its log. Logs are opened on several
//! threads, so one lock is held over all of it: nobody removes what another has not finished, nor does a
//! number go out twice.
//!
//! Not here: cutting itself, and the decision to (`recovery`).

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidelog_wire::ids::TimestampMs;

use crate::locks::{Mutex, MutexGuard, PoisonError};
use crate::segment::salvage::Salvage;
use crate::storage::{
    EntryKind, File, OpenMode, Position, Storage, create_dir_durably, parent, replace_file,
};

/// Bytes of all pieces, unless told otherwise.
const BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// How long a piece is kept, unless told otherwise: 30 days.
const AGE_MS_MAX_DEFAULT: u64 = 30 * 24 * 3_600_000;

/// How much may lie in quarantine, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all pieces together. What one start sets aside is kept until the next, also if it is more.
    pub bytes_max: u64,
    /// Milliseconds that a piece is kept.
    pub age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: BYTES_MAX_DEFAULT, age_ms_max: AGE_MS_MAX_DEFAULT }
    }
}

/// Why a piece had to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionCause {
    /// The pieces together were too large.
    Bytes,
    /// It was too old.
    Age,
}

/// A piece that was removed to stay within the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Why it went.
    pub cause: EvictionCause,
}

/// What was set aside, and what had to go for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "evictions are to be logged: nothing leaves quarantine silently"]
pub struct SetAside {
    /// Where the piece lies now.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Older pieces that were removed.
    pub evicted: Vec<Evicted>,
}

/// A file operation failed while setting aside. The original is untouched, or already moved whole.
#[derive(Debug, thiserror::Error)]
#[error(
    "E0209 {path}: cannot {action} in quarantine: {source}: nothing was cut; check the disk and its free \
     space, then start again"
)]
pub struct QuarantineError {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> QuarantineError {
    move |source| QuarantineError { path: path.to_path_buf(), action, source }
}

/// Bytes copied at a time.
const STEP: u64 = 256 << 10;
/// Names shown of an origin; longer ones lose their beginning.
const ORIGIN_CHARS_MAX: usize = 120;
/// Directories walked to size or remove one piece.
const DIRECTORIES_MAX: usize = 100_000;

/// The quarantine of one data directory.
#[derive(Debug)]
pub struct Quarantine {
    data_dir: PathBuf,
    dir: PathBuf,
    limits: Limits,
    /// Held while pieces are made or removed.
    own: Mutex<Own>,
}

/// What was set aside through this [`Quarantine`]: by the present start.
#[derive(Debug, Default)]
struct Own {
    /// The number of the first piece. Those behind it have higher ones.
    first: Option<u64>,
}

/// A piece as its name tells it.
struct Piece {
    number: u64,
    at: i64,
    path: PathBuf,
    kind: EntryKind,
}

impl Quarantine {
    /// The quarantine of `data_dir`. Touches nothing yet.
    #[must_use]
    pub fn new(data_dir: &Path, limits: Limits) -> Self {
        Self {
            data_dir: data_dir.to_path_buf(),
            dir: data_dir.join("quarantine"),
            limits,
            own: Mutex::default(),
        }
    }

    /// Copies the bytes `from..to` of the file at `path` here, with a note that says `why`.
    ///
    /// On return copy and note are durable, so the caller may cut. The file itself is unchanged. A
    /// range that reaches beyond the end of the file is copied up to the end. Blocks that the disk does not
    /// give are filled with a pattern, and the note names them.
    ///
    /// # Errors
    /// [`QuarantineError`]: nothing may be cut. A half-written piece may be left and counts like others.
    pub fn set_aside_range(
        &self,
        storage: &dyn Storage,
        path: &Path,
        from: Position,
        to: Position,
        why: &str,
        now: TimestampMs,
    ) -> Result<SetAside, QuarantineError> {
        let mut own = self.own();
        let source = Salvage::new(storage.open(path, OpenMode::Read).map_err(failed(path, "read"))?);
        let end = source.len().map_err(failed(path, "read"))?.min(to.get());
        let bytes = end.saturating_sub(from.get());
        let target = self.next_path(storage, path, now, &mut own)?;
        let what = format!("bytes {}..{} of {}", from, end, path.display());
        self.write_note(storage, &target, &what, why)?;
        let copy = storage.open(&target, OpenMode::CreateNew).map_err(failed(&target, "create a copy"))?;
        copy_range(&source, from.get(), end, copy.as_ref()).map_err(failed(&target, "write a copy"))?;
        copy.sync().map_err(failed(&target, "sync a copy"))?;
        let refused = source.all_refused();
        if !refused.is_empty() {
            let what =
                format!("{what}; the disk did not give {refused:?} of that file, the copy is filled there");
            self.write_note(storage, &target, &what, why)?;
        }
        storage.sync_dir(&self.dir).map_err(failed(&self.dir, "sync the directory"))?;
        let evicted = self.evict_logged(storage, &own, now);
        Ok(SetAside { path: target, bytes, evicted })
    }

    /// Moves the file or directory at `path` here, with a note that says `why`.
    ///
    /// On return the move is durable in both directories.
    ///
    /// # Errors
    /// [`QuarantineError`]: the original is where it was, or has been moved whole.
    pub fn set_aside_file(
        &self,
        storage: &dyn Storage,
        path: &Path,
        why: &str,
        now: TimestampMs,
    ) -> Result<SetAside, QuarantineError> {
        let mut own = self.own();
        let target = self.next_path(storage, path, now, &mut own)?;
        self.write_note(storage, &target, &format!("moved whole from {}", path.display()), why)?;
        storage.rename(path, &target).map_err(failed(path, "move a file"))?;
        storage.sync_dir(&self.dir).map_err(failed(&self.dir, "sync the directory"))?;
        let holder = parent(path);
        storage.sync_dir(holder).map_err(failed(holder, "sync the directory"))?;
        let bytes = self.pieces(storage).map_or(0, |pieces| {
            let moved = pieces.iter().find(|piece| piece.path == target);
            moved.map_or(0, |piece| size(storage, piece))
        });
        let evicted = self.evict_logged(storage, &own, now);
        Ok(SetAside { path: target, bytes, evicted })
    }

    /// Enforces the limits once a piece is durable. That it lies here counts, so an error is logged only.
    fn evict_logged(&self, storage: &dyn Storage, own: &Own, now: TimestampMs) -> Vec<Evicted> {
        self.evict(storage, own, now).unwrap_or_else(|error| {
            tracing::warn!(%error, "the limits of the quarantine are not enforced; trying again with the next piece");
            Vec::new()
        })
    }

    /// Removes what is too old or too much, oldest first, and returns it. What was set aside through this
    /// quarantine stays in any case: it is the copy of what has just been cut. A piece that cannot be removed
    /// is logged and stays; the others do not wait for it.
    ///
    /// # Errors
    /// [`QuarantineError`]: the pieces cannot be listed. Nothing was removed.
    pub fn enforce_limits(
        &self,
        storage: &dyn Storage,
        now: TimestampMs,
    ) -> Result<Vec<Evicted>, QuarantineError> {
        self.evict(storage, &self.own(), now)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evict(
        &self,
        storage: &dyn Storage,
        own: &Own,
        now: TimestampMs,
    ) -> Result<Vec<Evicted>, QuarantineError> {
        let mut pieces = Vec::new();
        let mut total: u64 = 0;
        for piece in self.pieces(storage)? {
            let bytes = size(storage, &piece);
            total = total.saturating_add(bytes);
            pieces.push((piece, bytes));
        }
        let mut evicted = Vec::new();
        for (piece, bytes) in pieces {
            let age = u64::try_from(now.get().saturating_sub(piece.at)).unwrap_or(0);
            let cause = if age > self.limits.age_ms_max {
                EvictionCause::Age
            } else if total > self.limits.bytes_max {
                EvictionCause::Bytes
            } else {
                continue;
            };
            if own.first.is_some_and(|first| piece.number >= first) {
                continue;
            }
            let removed = remove_tree(storage, &piece.path, piece.kind)
                .and_then(|()| remove_if_there(storage, &note_of(&piece.path)));
            if let Err(error) = removed {
                tracing::warn!(path = %piece.path.display(), %error, "cannot remove a piece from quarantine");
                continue;
            }
            total = total.saturating_sub(bytes);
            evicted.push(Evicted { path: piece.path, bytes, cause });
        }
        if !evicted.is_empty()
            && let Err(error) = storage.sync_dir(&self.dir)
        {
            tracing::warn!(%error, "removed pieces may come back to quarantine after a crash");
        }
        Ok(evicted)
    }

    /// The pieces, oldest first. Files that are not named as pieces are left alone.
    fn pieces(&self, storage: &dyn Storage) -> Result<Vec<Piece>, QuarantineError> {
        let entries = match storage.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&self.dir, "list the directory")(error)),
        };
        let mut pieces = Vec::new();
        for entry in entries {
            let mut parts = entry.name.splitn(3, '-');
            let number = parts.next().and_then(|number| number.parse().ok());
            let at = parts.next().and_then(|at| at.parse().ok());
            if let (Some(number), Some(at), true) = (number, at, is_piece(&entry.name)) {
                pieces.push(Piece { number, at, path: self.dir.join(&entry.name), kind: entry.kind });
            }
        }
        pieces.sort_by_key(|piece| piece.number);
        Ok(pieces)
    }

    fn next_path(
        &self,
        storage: &dyn Storage,
        origin: &Path,
        now: TimestampMs,
        own: &mut Own,
    ) -> Result<PathBuf, QuarantineError> {
        create_dir_durably(storage, &self.data_dir, &self.dir)
            .map_err(failed(&self.dir, "create the directory"))?;
        let last = self.pieces(storage)?.last().map_or(0, |piece| piece.number);
        let below = origin.strip_prefix(&self.data_dir).unwrap_or(origin);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let shown: Vec<char> = below.to_string_lossy().chars().map(plain).collect();
        let shown = shown.get(shown.len().saturating_sub(ORIGIN_CHARS_MAX)..).unwrap_or(&shown);
        let shown: String = shown.iter().collect();
        let number = last.saturating_add(1);
        own.first.get_or_insert(number);
        Ok(self.dir.join(format!("{number:010}-{:014}-{shown}.piece", now.get().max(0))))
    }

    fn write_note(
        &self,
        storage: &dyn Storage,
        piece: &Path,
        what: &str,
        why: &str,
    ) -> Result<(), QuarantineError> {
        let note = note_of(piece);
        let text = format!("what: {what}\nwhy: {why}\n");
        replace_file(storage, &note, text.as_bytes()).map_err(failed(&note, "write a note"))
    }
}

fn note_of(piece: &Path) -> PathBuf {
    piece.with_extension("note")
}

fn is_piece(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "piece")
}

fn copy_range(from: &dyn File, start: u64, end: u64, to: &dyn File) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let step = end.saturating_sub(at).min(STEP);
        let mut buf = vec![0; usize::try_from(step).map_err(|_| ErrorKind::FileTooLarge)?];
        from.read_at(Position(at), &mut buf)?;
        to.write_at(Position(at.saturating_sub(start)), &[&buf])?;
        at = at.saturating_add(step);
    }
    Ok(())
}

/// What a piece consists of.
struct Tree {
    bytes: u64,
    files: Vec<PathBuf>,
    /// Each after the one that holds it.
    directories: Vec<PathBuf>,
}

/// Bytes of a piece. What cannot be sized counts as nothing: one bad piece must not keep the next from
/// being set aside. Nothing but plain files is opened; to open a pipe is to wait for its other end.
fn size(storage: &dyn Storage, piece: &Piece) -> u64 {
    match piece.kind {
        EntryKind::File => file_size(storage, &piece.path),
        EntryKind::Directory => tree(storage, &piece.path).map_or_else(
            |error| {
                tracing::warn!(path = %piece.path.display(), %error, "cannot size a piece in quarantine");
                0
            },
            |found| found.bytes,
        ),
        EntryKind::Other => {
            tracing::warn!(path = %piece.path.display(), "a piece in quarantine is neither file nor directory");
            0
        }
    }
}

fn file_size(storage: &dyn Storage, path: &Path) -> u64 {
    storage.open(path, OpenMode::Read).and_then(|file| file.len()).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "cannot size a file in quarantine");
        0
    })
}

/// Everything below the directory `root`.
fn tree(storage: &dyn Storage, root: &Path) -> io::Result<Tree> {
    let mut found = Tree { bytes: 0, files: Vec::new(), directories: Vec::new() };
    let mut waiting = vec![root.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        if found.directories.len() >= DIRECTORIES_MAX {
            return Err(io::Error::other("too many directories"));
        }
        for entry in storage.list(&dir)? {
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Directory => waiting.push(path),
                EntryKind::File => {
                    found.bytes = found.bytes.saturating_add(file_size(storage, &path));
                    found.files.push(path);
                }
                EntryKind::Other => found.files.push(path),
            }
        }
        found.directories.push(dir);
    }
    Ok(found)
}

fn remove_tree(storage: &dyn Storage, root: &Path, kind: EntryKind) -> io::Result<()> {
    match kind {
        EntryKind::File | EntryKind::Other => storage.remove(root),
        EntryKind::Directory => {
            let found = tree(storage, root)?;
            for file in &found.files {
                storage.remove(file)?;
            }
            for dir in found.directories.iter().rev() {
                storage.remove_dir(dir)?;
            }
            Ok(())
        }
    }
}

fn remove_if_there(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
