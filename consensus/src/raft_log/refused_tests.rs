//! A disk that refuses bytes of the raft log while it is opened.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use raft_engine::env::{DefaultFileSystem, FileSystem, Permission};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{OpenMode, Storage};
use tidelog_wire::ids::{GroupId, RaftIndex};

use super::tests::{SMALL, append, entry, open_engine};
use super::{AbortOnSyncFailure, EngineLog, RaftLog, RaftLogError};

/// The operating system's files, of which no byte from `from` on can be read.
#[derive(Debug)]
struct Refusing {
    from: u64,
}

struct RefusingReader {
    inner: <DefaultFileSystem as FileSystem>::Reader,
    at: u64,
    from: u64,
}

impl Read for RefusingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at + u64::try_from(buf.len()).unwrap() > self.from {
            return Err(io::Error::from_raw_os_error(5));
        }
        let read = self.inner.read(buf)?;
        self.at += u64::try_from(read).unwrap();
        Ok(read)
    }
}

impl Seek for RefusingReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.inner.seek(to)?;
        Ok(self.at)
    }
}

impl FileSystem for Refusing {
    type Handle = <DefaultFileSystem as FileSystem>::Handle;
    type Reader = RefusingReader;
    type Writer = <DefaultFileSystem as FileSystem>::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        DefaultFileSystem.create(path)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        DefaultFileSystem.open(path, permission)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        Ok(RefusingReader { inner: DefaultFileSystem.new_reader(handle)?, at: 0, from: self.from })
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle)
    }
}

/// The disk refused a sector of the newest file at a start. raft-engine took that for a torn tail, cut the file there with
/// all the entries behind, which were synced and acknowledged, and the replica ran on without them.
#[test]
fn a_file_that_cannot_be_read_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_engine(dir.path());
    for index in 1..=6 {
        log.write(&[append(1, vec![entry(index, 1, &[7; 1000])])], true).unwrap();
    }
    drop(log);
    let raft = dir.path().join("raft");
    let sizes = || -> Vec<(String, u64)> {
        let names = OsStorage.list(&raft).unwrap().into_iter().map(|found| found.name);
        let size = |name: &String| OsStorage.open(&raft.join(name), OpenMode::Read).unwrap().len().unwrap();
        names.map(|name| (name.clone(), size(&name))).collect()
    };
    let before = sizes();
    for from in [300, 2_500, 5_900] {
        let policy = Arc::new(AbortOnSyncFailure);
        let opened = EngineLog::open_over(Refusing { from }, Arc::new(OsStorage), &raft, SMALL, policy);
        assert!(matches!(opened, Err(RaftLogError::Io { .. })), "refused from {from} on: {:?}", opened.err());
        assert_eq!(sizes(), before, "refused from {from} on");
    }
    assert_eq!(open_engine(dir.path()).load(GroupId(1)).unwrap().span.unwrap().last, RaftIndex(6));
}
