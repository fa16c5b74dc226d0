//! The simulated directories: what each holds on the disk and in the cache, and the changes between.
//!
//! A power cut keeps or loses each unsynced creation, rename and removal. One rename is atomic, as
//! in a journal: syncing either of its directories makes both of its halves durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

use super::chance::Chance;
use super::contents::{Contents, Style};
use crate::storage::{DirEntry, EntryKind};

/// Number of a file or directory, never reused on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ino(u64);

const ROOT: Ino = Ino(0);

/// A name within a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    dir: Ino,
    name: String,
}

#[derive(Clone, Debug)]
enum Node {
    File(Contents),
    Dir(Directory),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    durable: BTreeMap<String, Ino>,
    cached: BTreeMap<String, Ino>,
}

/// A change of names that no sync has covered yet.
#[derive(Clone, Debug)]
enum Change {
    Made { at: Place, ino: Ino },
    Removed { at: Place, ino: Ino },
    Moved { from: Place, to: Place, ino: Ino },
}

impl Change {
    fn ino(&self) -> Ino {
        match self {
            Self::Made { ino, .. } | Self::Removed { ino, .. } | Self::Moved { ino, .. } => *ino,
        }
    }

    fn touches(&self, dir: Ino) -> bool {
        match self {
            Self::Made { at, .. } | Self::Removed { at, .. } => at.dir == dir,
            Self::Moved { from, to, .. } => from.dir == dir || to.dir == dir,
        }
    }
}

/// Everything that is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Names {
    nodes: BTreeMap<Ino, Node>,
    unsynced: Vec<Change>,
    next: u64,
    /// Nodes left after the last sweep; the next comes at twice as many.
    swept: usize,
}

impl Names {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Directory::default()))]);
        Self { nodes, unsynced: Vec::new(), next: 1, swept: 64 }
    }

    pub(super) fn contents(&self, ino: Ino) -> io::Result<&Contents> {
        match self.nodes.get(&ino) {
            Some(Node::File(contents)) => Ok(contents),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn contents_mut(&mut self, ino: Ino) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(contents)) => Ok(contents),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn dir(&self, ino: Ino) -> io::Result<&Directory> {
        match self.nodes.get(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in names(path)? {
            at = *self.dir(at)?.cached.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The directory that holds (or could hold) the last name of `path`.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let names = names(path)?;
        let (last, above) = names.split_last().ok_or(ErrorKind::InvalidInput)?;
        let mut dir = ROOT;
        for name in above {
            dir = *self.dir(dir)?.cached.get(*name).ok_or(ErrorKind::NotFound)?;
        }
        self.dir(dir)?;
        Ok(Place { dir, name: (*last).to_owned() })
    }

    fn make(&mut self, at: Place, node: Node) -> io::Result<Ino> {
        let ino = Ino(self.next);
        let dir = self.dir_mut(at.dir)?;
        if dir.cached.contains_key(&at.name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        dir.cached.insert(at.name.clone(), ino);
        self.nodes.insert(ino, node);
        self.next = self.next.saturating_add(1);
        self.unsynced.push(Change::Made { at, ino });
        Ok(ino)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Ino> {
        let place = self.place(path)?;
        self.make(place, Node::File(Contents::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in names(path)? {
            dir = match self.dir(dir)?.cached.get(name) {
                Some(ino) => *ino,
                None => self.make(Place { dir, name: name.to_owned() }, Node::Dir(Directory::default()))?,
            };
        }
        self.dir(dir).map(|_| ())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(self.find(path)?)?;
        let kind = |ino| match self.nodes.get(ino) {
            Some(Node::File(_)) => EntryKind::File,
            Some(Node::Dir(_)) => EntryKind::Directory,
            None => EntryKind::Other,
        };
        Ok(dir.cached.iter().map(|(name, ino)| DirEntry { name: name.clone(), kind: kind(ino) }).collect())
    }

    /// Removes the name of a file; returns the bytes that it gives back.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<u64> {
        let ino = self.find(path)?;
        let len = self.contents(ino)?.cached().len();
        self.unlink(path, ino)?;
        Ok(len)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find(path)?;
        if !self.dir(ino)?.cached.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.unlink(path, ino)
    }

    fn unlink(&mut self, path: &Path, ino: Ino) -> io::Result<()> {
        let at = self.place(path)?;
        self.dir_mut(at.dir)?.cached.remove(&at.name);
        self.unsynced.push(Change::Removed { at, ino });
        Ok(())
    }

    /// Renames; returns the bytes that a replaced file gives back.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<u64> {
        let ino = self.find(from)?;
        let (from_place, to_place) = (self.place(from)?, self.place(to)?);
        if from_place == to_place {
            return Ok(0);
        }
        let moved_is_dir = self.dir(ino).is_ok();
        if moved_is_dir && to.starts_with(from) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut freed = 0;
        if let Some(replaced) = self.dir(to_place.dir)?.cached.get(&to_place.name) {
            match (self.nodes.get(replaced), moved_is_dir) {
                (Some(Node::File(contents)), false) => freed = contents.cached().len(),
                (Some(Node::File(_)), true) => return Err(ErrorKind::NotADirectory.into()),
                (Some(Node::Dir(dir)), true) if dir.cached.is_empty() => {}
                (Some(Node::Dir(_)), true) => return Err(ErrorKind::DirectoryNotEmpty.into()),
                (Some(Node::Dir(_)), false) => return Err(ErrorKind::IsADirectory.into()),
                (None, _) => return Err(ErrorKind::NotFound.into()),
            }
        }
        self.dir_mut(from_place.dir)?.cached.remove(&from_place.name);
        self.dir_mut(to_place.dir)?.cached.insert(to_place.name.clone(), ino);
        self.unsynced.push(Change::Moved { from: from_place, to: to_place, ino });
        Ok(freed)
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path)?;
        self.dir(dir)?;
        // What happened earlier to the same file settles with it: settled later, it would undo this.
        let mut inos = BTreeSet::new();
        let (mut synced, mut left) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if change.touches(dir) || inos.contains(&change.ino()) {
                inos.insert(change.ino());
                synced.push(change);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        synced.reverse();
        self.unsynced = left;
        self.settle(synced);
        Ok(())
    }

    /// Carries changes over to the durable directories.
    fn settle(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Made { at, ino } => self.name(at, ino),
                Change::Removed { at, ino } => self.unname(&at, ino),
                Change::Moved { from, to, ino } => {
                    self.unname(&from, ino);
                    self.name(to, ino);
                }
            }
        }
    }

    fn name(&mut self, at: Place, ino: Ino) {
        if let Ok(dir) = self.dir_mut(at.dir) {
            dir.durable.insert(at.name, ino);
        }
    }

    fn unname(&mut self, at: &Place, ino: Ino) {
        if let Ok(dir) = self.dir_mut(at.dir)
            && dir.durable.get(&at.name) == Some(&ino)
        {
            dir.durable.remove(&at.name);
        }
    }

    /// Forgets files that no name and none of `open` refers to, when enough may have gathered.
    pub(super) fn sweep(&mut self, open: &BTreeMap<Ino, u32>) {
        if self.nodes.len() < self.swept.saturating_mul(2) {
            return;
        }
        let mut named: BTreeSet<Ino> = open.keys().copied().collect();
        named.insert(ROOT);
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                named.extend(dir.durable.values().chain(dir.cached.values()));
            }
        }
        for change in &self.unsynced {
            match change {
                Change::Made { ino, .. } | Change::Removed { ino, .. } | Change::Moved { ino, .. } => {
                    named.insert(*ino);
                }
            }
        }
        self.nodes.retain(|ino, _| named.contains(ino));
        self.swept = self.nodes.len().max(64);
    }

    /// The system takes the memory of all files back.
    pub(super) fn drop_caches(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(contents) = node {
                contents.drop_cache();
            }
        }
    }

    /// The power is cut: what was not synced survives by chance.
    pub(super) fn cut(&mut self, style: Style, chance: &mut Chance) {
        let changes = std::mem::take(&mut self.unsynced);
        let kept = match style {
            Style::LoseAll => Vec::new(),
            Style::KeepAll => changes,
            // A journal keeps the first so many; a file system without one keeps any.
            Style::Mixed if chance.one_in(2) => {
                let count = chance.up_to(u64::try_from(changes.len()).unwrap_or(u64::MAX));
                changes.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
            }
            Style::Mixed | Style::Told => changes.into_iter().filter(|_| chance.one_in(2)).collect(),
        };
        self.settle(kept);
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.cached.clone_from(&dir.durable);
            }
        }
        // Files first that nobody can reach any more: what is in them makes no difference.
        let reachable: BTreeSet<Ino> = self.walk().into_iter().map(|(_, ino)| ino).collect();
        self.nodes.retain(|ino, _| *ino == ROOT || reachable.contains(ino));
        for node in self.nodes.values_mut() {
            if let Node::File(contents) = node {
                contents.cut(style, chance);
            }
        }
    }

    /// Paths and numbers of all that the cache shows, directories before what is in them.
    pub(super) fn walk(&self) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = waiting.pop() {
            if let Ok(dir) = self.dir(ino) {
                for (name, child) in dir.cached.iter().rev() {
                    waiting.push((format!("{path}/{name}"), *child));
                }
            }
            if ino != ROOT {
                found.push((path, ino));
            }
        }
        found
    }

    /// Bytes in all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let lens =
            self.walk().into_iter().filter_map(|(_, ino)| Some(self.contents(ino).ok()?.cached().len()));
        lens.fold(0, u64::saturating_add)
    }
}

/// The names of a path, from the root on. The simulated disk has one root and no working directory.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(ErrorKind::InvalidFilename)?),
            Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
