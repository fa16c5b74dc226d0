//! Files of the command line: what it writes beside the nodes, and what it reads of a running process.
//!
//! The nodes' own data is never touched from here: that is the engine's.
#![expect(clippy::disallowed_methods, reason = "the command line's own files; no simulation runs it")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// Most bytes of a file that is read whole.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Most folders that are set aside under one name.
const SET_ASIDE_MAX: u32 = 100;
/// How far from its end a log is looked at.
const TAIL_BYTES: u64 = 4 << 10;

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { path, action, source }
}

/// Makes the folder and those above it.
pub(crate) fn create_folder(path: &Path) -> Result<(), CliError> {
    fs::create_dir_all(path).map_err(failed(path, "make the folder"))
}

/// The absolute path of something that exists.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    fs::canonicalize(path).map_err(failed(path, "find it"))
}

/// The text of a small file.
pub(crate) fn read(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TEXT_BYTES_MAX).read_to_string(&mut text))
        .map_err(failed(path, "read it"))?;
    Ok(text)
}

/// The text of a small file, or none if there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, CliError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(CliError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone.
    Public,
    /// Its owner only, as befits a private key.
    Owner,
}

/// Replaces the file at `path` in one step: whoever reads it sees the old text or the new one, after a crash too.
pub(crate) fn replace(path: &Path, text: &str, access: Access) -> Result<(), CliError> {
    let temporary = path.with_extension("new");
    let mode = match access {
        Access::Public => 0o644,
        Access::Owner => 0o600,
    };
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(failed(path, "write it"))
}

/// Removes a folder and all in it; used for folders that this very command made.
pub(crate) fn remove_folder(path: &Path) -> Result<(), CliError> {
    fs::remove_dir_all(path).map_err(failed(path, "remove the folder"))
}

/// Gives a folder another name beside it, the first of `NAME.aside-1`, `NAME.aside-2`, … that is free. None if there is none.
pub(crate) fn set_aside(path: &Path) -> Result<Option<PathBuf>, CliError> {
    if !exists(path) {
        return Ok(None);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = (1..=SET_ASIDE_MAX)
        .map(|number| path.with_file_name(format!("{name}.aside-{number}")))
        .find(|aside| !exists(aside));
    let full = io::Error::other(format!("{SET_ASIDE_MAX} folders were set aside here already"));
    let aside = free.ok_or(full).map_err(failed(path, "set it aside"))?;
    fs::rename(path, &aside).map_err(failed(path, "set it aside"))?;
    Ok(Some(aside))
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> Result<File, CliError> {
    File::open(path).map_err(failed(path, "open it"))
}

/// Whether something is at `path`.
pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(false)
}

/// Opens a log to write on at its end.
pub(crate) fn open_log(path: &Path) -> Result<File, CliError> {
    OpenOptions::new().create(true).append(true).open(path).map_err(failed(path, "open the log"))
}

/// The last `count` lines of a log, joined by ` | `; empty if it cannot be read.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join(" | ")
}

/// Takes the lock of a directory for as long as the answer lives; the system gives it back when the process ends.
pub(crate) fn lock_folder(dir: &Path) -> Result<File, CliError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed(&path, "open the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CliError::DirectoryBusy { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(&path, "lock it")(source)),
    }
}
