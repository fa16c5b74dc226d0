//! Numbers for files and directories, as the kernel wants them, over a storage that knows paths.
//!
//! The kernel learns a number when it looks up a name and keeps it until it forgets it, whatever becomes of the name in
//! between: a renamed file keeps its number, and a removed one can be used on as long as somebody has it open. So each
//! number has its place (the number of its directory and a name), from which its path is made when one is needed; and
//! each file that the kernel knows is held open, so that it needs no path at all.
//!
//! Not here: what is kept of the files (the storage), and the kernel's protocol (`super::mount`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use tidelog_engine::storage::{DirEntry, EntryKind, File, OpenMode, Position, Storage};

/// The root directory's number, fixed by the kernel.
pub(super) const ROOT: u64 = 1;
/// Directories above one another: deeper than any data directory goes.
const DEPTH_MAX: usize = 32;

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Directory,
    File { len: u64 },
}

/// A number and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) number: u64,
    pub(super) shape: Shape,
}

#[derive(Debug)]
enum Kind {
    Directory,
    File(Arc<dyn File>),
}

#[derive(Debug)]
struct Node {
    /// Directory and name; none once it was removed.
    place: Option<(u64, String)>,
    kind: Kind,
    /// How often the kernel was told of it and has not forgotten it since.
    told: u64,
}

/// All that the kernel knows.
#[derive(Debug)]
pub(super) struct Tree {
    storage: Arc<dyn Storage>,
    nodes: BTreeMap<u64, Node>,
    places: BTreeMap<(u64, String), u64>,
    next: u64,
}

impl Tree {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        let root = Node { place: None, kind: Kind::Directory, told: 1 };
        Self { storage, nodes: BTreeMap::from([(ROOT, root)]), places: BTreeMap::new(), next: ROOT + 1 }
    }

    fn node(&self, number: u64) -> io::Result<&Node> {
        self.nodes.get(&number).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn file(&self, number: u64) -> io::Result<&Arc<dyn File>> {
        match &self.node(number)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Directory => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn path(&self, mut number: u64) -> io::Result<PathBuf> {
        let mut names = Vec::new();
        while number != ROOT {
            let (above, name) = self.node(number)?.place.as_ref().ok_or(ErrorKind::NotFound)?;
            names.push(name.as_str());
            number = *above;
            if names.len() > DEPTH_MAX {
                return Err(ErrorKind::InvalidFilename.into());
            }
        }
        names.push("/");
        Ok(names.into_iter().rev().collect())
    }

    fn path_in(&self, directory: u64, name: &str) -> io::Result<PathBuf> {
        Ok(self.path(directory)?.join(name))
    }

    pub(super) fn facts(&self, number: u64) -> io::Result<Facts> {
        let shape = match &self.node(number)?.kind {
            Kind::Directory => Shape::Directory,
            Kind::File(file) => Shape::File { len: file.len()? },
        };
        Ok(Facts { number, shape })
    }

    /// Tells the kernel of what has that name.
    pub(super) fn look_up(&mut self, directory: u64, name: &str) -> io::Result<Facts> {
        let number = match self.places.get(&(directory, name.to_owned())) {
            Some(number) => *number,
            None => {
                let kind = match self.storage.open(&self.path_in(directory, name)?, OpenMode::ReadWrite) {
                    Ok(file) => Kind::File(file),
                    Err(error) if error.kind() == ErrorKind::IsADirectory => Kind::Directory,
                    Err(error) => return Err(error),
                };
                self.enter(directory, name, kind)
            }
        };
        let facts = self.facts(number)?;
        if let Some(node) = self.nodes.get_mut(&number) {
            node.told += 1;
        }
        Ok(facts)
    }

    fn enter(&mut self, directory: u64, name: &str, kind: Kind) -> u64 {
        let (number, place) = (self.next, (directory, name.to_owned()));
        self.next += 1;
        self.nodes.insert(number, Node { place: Some(place.clone()), kind, told: 0 });
        self.places.insert(place, number);
        number
    }

    /// The kernel has forgotten a number `times` times.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number).filter(|_| number != ROOT) else { return };
        node.told = node.told.saturating_sub(times);
        if node.told == 0
            && let Some(Node { place: Some(place), .. }) = self.nodes.remove(&number)
        {
            self.places.remove(&place);
        }
    }

    /// Makes a file, which must not be there, and tells the kernel of it.
    pub(super) fn create(&mut self, directory: u64, name: &str) -> io::Result<Facts> {
        let path = self.path_in(directory, name)?;
        let file = self.storage.open(&path, OpenMode::CreateNew)?;
        self.enter(directory, name, Kind::File(file));
        self.look_up(directory, name)
    }

    /// Makes a directory, which must not be there, and tells the kernel of it.
    pub(super) fn make_directory(&mut self, directory: u64, name: &str) -> io::Result<Facts> {
        let path = self.path_in(directory, name)?;
        if self.storage.list(&self.path(directory)?)?.iter().any(|entry| entry.name == name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.storage.create_dir(&path)?;
        self.look_up(directory, name)
    }

    pub(super) fn remove_file(&mut self, directory: u64, name: &str) -> io::Result<()> {
        self.storage.remove(&self.path_in(directory, name)?)?;
        self.unname(directory, name);
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, directory: u64, name: &str) -> io::Result<()> {
        self.storage.remove_dir(&self.path_in(directory, name)?)?;
        self.unname(directory, name);
        Ok(())
    }

    fn unname(&mut self, directory: u64, name: &str) -> Option<u64> {
        let number = self.places.remove(&(directory, name.to_owned()))?;
        if let Some(node) = self.nodes.get_mut(&number) {
            node.place = None;
        }
        Some(number)
    }

    pub(super) fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> io::Result<()> {
        self.storage.rename(&self.path_in(from.0, from.1)?, &self.path_in(to.0, to.1)?)?;
        if from == to {
            return Ok(());
        }
        self.unname(to.0, to.1);
        let place = (to.0, to.1.to_owned());
        if let Some(moved) = self.unname(from.0, from.1) {
            if let Some(node) = self.nodes.get_mut(&moved) {
                node.place = Some(place.clone());
            }
            self.places.insert(place, moved);
        }
        Ok(())
    }

    pub(super) fn list(&self, directory: u64) -> io::Result<Vec<DirEntry>> {
        let entries = self.storage.list(&self.path(directory)?)?;
        Ok(entries.into_iter().filter(|entry| entry.kind != EntryKind::Other).collect())
    }

    /// At most `len` bytes from `position` on: fewer at the end of the file.
    pub(super) fn read(&self, number: u64, position: u64, len: u64) -> io::Result<Vec<u8>> {
        let file = self.file(number)?;
        let len = file.len()?.saturating_sub(position).min(len);
        file.read(Position(position), usize::try_from(len).map_err(|_| ErrorKind::InvalidInput)?)
    }

    pub(super) fn write(&self, number: u64, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(number)?.write_at(Position(position), &[bytes])
    }

    pub(super) fn truncate(&self, number: u64, len: u64) -> io::Result<()> {
        self.file(number)?.truncate(len)
    }

    /// Lengthens a file to at least `len` bytes.
    pub(super) fn lengthen(&self, number: u64, len: u64) -> io::Result<()> {
        let file = self.file(number)?;
        if file.len()? < len { file.truncate(len) } else { Ok(()) }
    }

    pub(super) fn sync(&self, number: u64) -> io::Result<()> {
        self.file(number)?.sync()
    }

    pub(super) fn sync_directory(&self, number: u64) -> io::Result<()> {
        self.storage.sync_dir(&self.path(number)?)
    }

    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        self.storage.free_bytes(&PathBuf::from("/"))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_engine::storage::sim_disk::{Crash, SimDisk};

    use super::*;

    fn new() -> (SimDisk, Tree) {
        let disk = SimDisk::new(1);
        let tree = Tree::new(disk.storage());
        (disk, tree)
    }

    fn names(tree: &Tree, directory: u64) -> Vec<String> {
        tree.list(directory).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// What the kernel sees after the power was cut and nothing unsynced reached the disk.
    fn after_the_harshest_cut(disk: &SimDisk) -> Tree {
        disk.crash(Crash::LoseUnsynced);
        Tree::new(disk.storage())
    }

    #[test]
    fn a_cut_takes_what_was_written_but_not_synced_and_keeps_what_was() {
        let (disk, mut tree) = new();
        let file = tree.create(ROOT, "log").unwrap().number;
        tree.sync_directory(ROOT).unwrap();
        tree.write(file, 0, b"durable").unwrap();
        tree.sync(file).unwrap();
        tree.write(file, 7, b" and not").unwrap();
        assert_eq!(tree.read(file, 0, 100).unwrap(), b"durable and not");

        let mut tree = after_the_harshest_cut(&disk);
        let file = tree.look_up(ROOT, "log").unwrap();
        assert_eq!(file.shape, Shape::File { len: 7 });
        assert_eq!(tree.read(file.number, 0, 100).unwrap(), b"durable");
    }

    #[test]
    fn a_name_survives_a_cut_only_when_its_directory_was_synced() {
        let (disk, mut tree) = new();
        let folder = tree.make_directory(ROOT, "raft").unwrap().number;
        tree.sync_directory(ROOT).unwrap();
        let kept = tree.create(folder, "1.raftlog").unwrap().number;
        tree.sync_directory(folder).unwrap();
        let lost = tree.create(folder, "2.raftlog").unwrap().number;
        for file in [kept, lost] {
            tree.write(file, 0, b"entry").unwrap();
            tree.sync(file).unwrap();
        }

        let mut tree = after_the_harshest_cut(&disk);
        let folder = tree.look_up(ROOT, "raft").unwrap().number;
        assert_eq!(names(&tree, folder), ["1.raftlog"]);
    }

    #[test]
    fn a_rename_a_removal_and_a_truncation_are_undone_unless_they_were_synced() {
        for synced in [false, true] {
            let (disk, mut tree) = new();
            for name in ["old", "gone", "cut"] {
                let file = tree.create(ROOT, name).unwrap().number;
                tree.write(file, 0, name.as_bytes()).unwrap();
                tree.sync(file).unwrap();
            }
            tree.sync_directory(ROOT).unwrap();
            tree.rename((ROOT, "old"), (ROOT, "new")).unwrap();
            tree.remove_file(ROOT, "gone").unwrap();
            let cut = tree.look_up(ROOT, "cut").unwrap().number;
            tree.truncate(cut, 1).unwrap();
            if synced {
                tree.sync_directory(ROOT).unwrap();
                tree.sync(cut).unwrap();
            }

            let mut tree = after_the_harshest_cut(&disk);
            let len = if synced { 1 } else { 3 };
            assert_eq!(tree.look_up(ROOT, "cut").unwrap().shape, Shape::File { len });
            let expected: &[&str] = if synced { &["cut", "new"] } else { &["cut", "gone", "old"] };
            assert_eq!(names(&tree, ROOT), expected);
        }
    }

    /// Between two syncs a real disk writes in any order and in any part: over many seeds each outcome is met.
    #[test]
    fn a_cut_by_chance_loses_keeps_and_tears() {
        let (disk, mut tree) = new();
        let file = tree.create(ROOT, "log").unwrap().number;
        tree.write(file, 0, &[1; 4096]).unwrap();
        tree.sync(file).unwrap();
        tree.sync_directory(ROOT).unwrap();
        tree.write(file, 0, &[2; 4096]).unwrap();
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..64 {
            let disk = disk.fork();
            disk.crash(Crash::PowerCut { seed });
            let mut tree = Tree::new(disk.storage());
            let file = tree.look_up(ROOT, "log").unwrap().number;
            let bytes = tree.read(file, 0, 4096).unwrap();
            match bytes.iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                4096 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 0 && kept > 0 && torn > 0, "lost {lost}, kept {kept}, torn {torn}");
    }

    #[test]
    fn a_file_keeps_its_number_over_a_rename_and_can_be_used_after_its_removal() {
        let (_, mut tree) = new();
        let folder = tree.make_directory(ROOT, "a").unwrap().number;
        let file = tree.create(folder, "x").unwrap().number;
        tree.rename((ROOT, "a"), (ROOT, "b")).unwrap();
        tree.rename((folder, "x"), (ROOT, "y")).unwrap();
        assert_eq!(tree.look_up(ROOT, "y").unwrap().number, file);
        assert!(tree.look_up(folder, "x").is_err());
        tree.remove_file(ROOT, "y").unwrap();
        tree.write(file, 0, b"held open").unwrap();
        assert_eq!(tree.read(file, 0, 100).unwrap(), b"held open");
        tree.forget(file, 2);
        assert_eq!(tree.read(file, 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_replaced_file_gives_its_name_to_the_new_one() {
        let (_, mut tree) = new();
        let old = tree.create(ROOT, "votes").unwrap().number;
        let new = tree.create(ROOT, "votes.tmp").unwrap().number;
        tree.write(new, 0, b"new").unwrap();
        tree.rename((ROOT, "votes.tmp"), (ROOT, "votes")).unwrap();
        assert_eq!(tree.look_up(ROOT, "votes").unwrap().number, new);
        assert_eq!(tree.read(old, 0, 9).unwrap(), b"", "whoever has it open still sees the old one");
    }

    #[test]
    fn what_is_there_is_not_made_twice() {
        let (_, mut tree) = new();
        tree.make_directory(ROOT, "logs").unwrap();
        tree.create(ROOT, "lock").unwrap();
        assert_eq!(tree.make_directory(ROOT, "logs").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(tree.create(ROOT, "lock").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(tree.look_up(ROOT, "none").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
