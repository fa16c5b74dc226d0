//! The kernel's requests, answered by the tree.
//!
//! One thread answers the requests of one disk, one after the other, as a disk does. A slow disk is one that waits in each
//! sync. A stopped one answers everything with EIO, and carries nothing out.
//!
//! What the program under test never asks for is not there: links, owners, rights and times. Whoever asks is told
//! that it is not implemented, and would find out at once.

#![expect(clippy::disallowed_methods, reason = "makes the folder that it mounts on; a slow disk waits")]

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use tidelog_engine::storage::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{EntryKind, read_whole};

use super::tree::{Facts, ROOT, Shape, Tree};

/// How long the kernel may keep what it was told: nobody but this kernel changes anything.
const KEPT: Duration = Duration::from_secs(3600);
/// Bytes that the file system says a block has.
const BLOCK_BYTES: u32 = 4096;
/// Free bytes of a disk that is not full.
const FREE_BYTES: u64 = 1 << 40;

/// Longest file that is copied out.
const COPIED_BYTES_MAX: u64 = 1 << 30;

/// The file system cannot be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be mounted: {source}; it takes /dev/fuse and the rights of root", path.display())]
pub struct MountError {
    /// Where it was to be.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// How syncs are carried out.
#[derive(Debug, Default)]
struct Sync {
    waits_us: AtomicU64,
    skipped: AtomicBool,
}

/// A disk mounted on a folder.
pub struct Disk {
    folder: PathBuf,
    disk: SimDisk,
    sync: Arc<Sync>,
    session: Option<BackgroundSession>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Disk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Disk {
    /// Mounts a new, empty disk on `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`MountError`]; nothing is mounted then.
    pub fn mount(folder: &Path, seed: u64) -> Result<Self, MountError> {
        let failed = |source| MountError { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let (disk, sync) = (SimDisk::new(seed), Arc::default());
        let session = start(&disk, &sync, folder).map_err(failed)?;
        Ok(Self { folder: folder.to_owned(), disk, sync, session: Some(session) })
    }

    /// From the operation on that comes `changes` changes after now, nothing is carried out any more, as when the power
    /// goes.
    pub fn stop_after(&self, changes: u64) {
        self.disk.stop_at(self.disk.changes().saturating_add(changes));
    }

    /// Whether nothing is carried out any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.disk.is_stopped()
    }

    /// What was not synced is lost, torn or kept, as `seed` says, and what is left is mounted again. Whoever had files
    /// open must be dead. Returns whether anything was taken.
    ///
    /// # Errors
    /// [`MountError`]; the disk is not mounted then.
    pub fn cut(&mut self, seed: u64) -> Result<bool, MountError> {
        let folder = self.folder.clone();
        let failed = |source| MountError { path: folder.clone(), source };
        self.unmount().map_err(failed)?;
        let before = self.disk.fingerprint();
        self.disk.crash(Crash::PowerCut { seed });
        self.session = Some(start(&self.disk, &self.sync, &self.folder).map_err(failed)?);
        Ok(self.disk.fingerprint() != before)
    }

    /// Each sync takes so much longer.
    pub fn set_sync_waits(&self, wait: Duration) {
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.sync.waits_us.store(wait, Ordering::Relaxed);
    }

    /// From now on every sync of a file or directory is answered as done, and is not: a disk that lies.
    pub fn skip_syncs(&self) {
        self.sync.skipped.store(true, Ordering::Relaxed);
    }

    /// Fills the disk up, or takes away what filled it.
    pub fn set_full(&self, full: bool) {
        self.disk.set_free_bytes(if full { 0 } else { FREE_BYTES });
    }

    /// Copies everything on it to a folder beside the one that it is mounted on, for whoever looks for a cause.
    ///
    /// # Errors
    /// The system's.
    pub fn copy_out(&self) -> io::Result<PathBuf> {
        let copy = self.folder.with_extension("copy");
        for path in self.disk.files() {
            let Ok(below) = path.strip_prefix("/") else { continue };
            let to = copy.join(below);
            std::fs::create_dir_all(to.parent().unwrap_or(&copy))?;
            let bytes = read_whole(&self.disk, &path, COPIED_BYTES_MAX)?;
            std::fs::write(&to, bytes)?;
        }
        Ok(copy)
    }

    fn unmount(&mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has files open is being killed: the folder is freed at once, the rest when they are gone.
        let Some(session) = self.session.take() else { return };
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{}: cannot be unmounted", self.folder.display());
        }
        drop(session);
    }
}

fn start(disk: &SimDisk, sync: &Arc<Sync>, folder: &Path) -> io::Result<BackgroundSession> {
    let served =
        Served { tree: Mutex::new(Tree::new(disk.storage())), sync: Arc::clone(sync), no_time: UNIX_EPOCH };
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("tidelog-chaos".to_owned()), MountOption::NoAtime, MountOption::NoExec];
    Session::new(served, folder, &config)?.spawn()
}

/// Answers the kernel.
struct Served {
    tree: Mutex<Tree>,
    sync: Arc<Sync>,
    /// The time of everything.
    no_time: SystemTime,
}

impl Served {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, facts: Facts) -> FileAttr {
        let (kind, perm, size) = match facts.shape {
            Shape::Directory => (FileType::Directory, 0o755, 0),
            Shape::File { len } => (FileType::RegularFile, 0o644, len),
        };
        FileAttr {
            ino: INodeNo(facts.number),
            size,
            blocks: size.div_ceil(512),
            atime: self.no_time,
            mtime: self.no_time,
            ctime: self.no_time,
            crtime: self.no_time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }

    fn entered(&self, facts: io::Result<Facts>, reply: ReplyEntry) {
        match facts {
            Ok(facts) => reply.entry(&KEPT, &self.attributes(facts), Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

fn done(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// The name as text; the program under test makes no other.
fn text(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| ErrorKind::InvalidFilename.into())
}

/// What the kernel is told of an error. Whatever has no number of its own is EIO, as from a device.
fn errno(error: &io::Error) -> Errno {
    const NUMBERS: [(ErrorKind, Errno); 9] = [
        (ErrorKind::NotFound, Errno::ENOENT),
        (ErrorKind::AlreadyExists, Errno::EEXIST),
        (ErrorKind::IsADirectory, Errno::EISDIR),
        (ErrorKind::NotADirectory, Errno::ENOTDIR),
        (ErrorKind::DirectoryNotEmpty, Errno::ENOTEMPTY),
        (ErrorKind::StorageFull, Errno::ENOSPC),
        (ErrorKind::FileTooLarge, Errno::EFBIG),
        (ErrorKind::InvalidInput, Errno::EINVAL),
        (ErrorKind::InvalidFilename, Errno::EINVAL),
    ];
    NUMBERS.iter().find(|(kind, _)| *kind == error.kind()).map_or(Errno::EIO, |(_, errno)| *errno)
}

impl Filesystem for Served {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entered(text(name).and_then(|name| self.tree().look_up(parent.0, name)), reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.tree().forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree().facts(ino.0) {
            Ok(facts) => reply.attr(&KEPT, &self.attributes(facts)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let tree = self.tree();
        let cut = size.map_or(Ok(()), |len| tree.truncate(ino.0, len));
        match cut.and_then(|()| tree.facts(ino.0)) {
            Ok(facts) => reply.attr(&KEPT, &self.attributes(facts)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.entered(text(name).and_then(|name| self.tree().make_directory(parent.0, name)), reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match text(name).and_then(|name| self.tree().create(parent.0, name)) {
            Ok(facts) => {
                let attributes = self.attributes(facts);
                reply.created(&KEPT, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(text(name).and_then(|name| self.tree().remove_file(parent.0, name)), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(text(name).and_then(|name| self.tree().remove_directory(parent.0, name)), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let renamed = text(name).and_then(|name| {
            let to = (newparent.0, text(newname)?);
            self.tree().rename((parent.0, name), to)
        });
        done(renamed, reply);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree().read(ino.0, offset, size.into()) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree().write(ino.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        done(self.tree().lengthen(ino.0, offset.saturating_add(length)), reply);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let wait = self.sync.waits_us.load(Ordering::Relaxed);
        if wait > 0 {
            std::thread::sleep(Duration::from_micros(wait));
        }
        let tree = self.tree();
        done(if self.sync.skipped.load(Ordering::Relaxed) { Ok(()) } else { tree.sync(ino.0) }, reply);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let tree = self.tree();
        done(
            if self.sync.skipped.load(Ordering::Relaxed) { Ok(()) } else { tree.sync_directory(ino.0) },
            reply,
        );
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.tree().list(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(&error)),
        };
        let own = [".", ".."].map(|name| (FileType::Directory, name));
        let listed = entries.iter().map(|entry| match entry.kind {
            EntryKind::Directory => (FileType::Directory, entry.name.as_str()),
            EntryKind::File | EntryKind::Other => (FileType::RegularFile, entry.name.as_str()),
        });
        for (next, (kind, name)) in (1..).zip(own.into_iter().chain(listed)) {
            // Numbers are given when a name is looked up; here they tell nobody anything.
            if next > offset && reply.add(INodeNo(ROOT), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.tree().free_bytes() {
            Ok(free) => {
                let blocks = free.div_euclid(BLOCK_BYTES.into());
                reply.statfs(
                    FREE_BYTES.div_euclid(BLOCK_BYTES.into()),
                    blocks,
                    blocks,
                    1 << 20,
                    1 << 20,
                    BLOCK_BYTES,
                    255,
                    BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(errno(&error)),
        }
    }
}
