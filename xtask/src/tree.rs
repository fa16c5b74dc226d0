//! The repository as the rules of [`crate::tidy`] see it: paths and texts, all in memory.
//!
//! Only what is committed or about to be counts, as git names it; so build products and private files
//! are never looked at. Tests build small trees by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::programs::{Failure, Program};

/// Files by their path from the root, with `/` between folders.
#[derive(Default)]
pub(crate) struct Tree {
    paths: BTreeSet<String>,
    texts: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the files that git tracks, or would if they were added.
    #[expect(clippy::disallowed_methods, reason = "the chores read the repository itself, and only here")]
    pub(crate) fn read(root: &Path) -> Result<Self, Failure> {
        let listed = Program::new("git")
            .arguments(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output(Some(root))?;
        let mut tree = Self::default();
        for path in String::from_utf8_lossy(&listed).split('\0').filter(|path| !path.is_empty()) {
            match std::fs::read(root.join(path)) {
                Ok(bytes) => tree.insert(path, bytes),
                // Removed but not yet committed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Failure::Read { path: root.join(path), source }),
            }
        }
        Ok(tree)
    }

    /// Writes `text` to the file at `path`, on disk and here.
    #[expect(clippy::disallowed_methods, reason = "the chores write what they derive, and only here")]
    pub(crate) fn write(&mut self, root: &Path, path: &str, text: String) -> Result<(), Failure> {
        std::fs::write(root.join(path), &text)
            .map_err(|source| Failure::Write { path: root.join(path), source })?;
        self.insert(path, text.into_bytes());
        Ok(())
    }

    /// Adds a file. One that is not UTF-8 has a path but no text.
    pub(crate) fn insert(&mut self, path: &str, bytes: Vec<u8>) {
        self.paths.insert(path.to_owned());
        if let Ok(text) = String::from_utf8(bytes) {
            self.texts.insert(path.to_owned(), text);
        }
    }

    /// Every path.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// Whether there is a file, or a folder with files in it, at `path`.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.paths.contains(path) || self.paths.iter().any(|other| other.starts_with(&folder))
    }

    /// The text of the file at `path`.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Every text file whose name ends with `.extension`.
    pub(crate) fn texts(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        let ending = format!(".{extension}");
        self.texts
            .iter()
            .filter(move |(path, _)| path.ends_with(&ending))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Names, without their ending, of the Rust files right in `folder`.
    pub(crate) fn stems_below(&self, folder: &str) -> Vec<String> {
        self.paths
            .iter()
            .filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".rs"))
            .filter(|stem| !stem.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// Folders with this name, wherever they are.
    pub(crate) fn folders_named(&self, name: &str) -> BTreeSet<String> {
        let inside = format!("/{name}/");
        self.paths.iter().filter_map(|path| Some(format!("{}/{name}", path.split_once(&inside)?.0))).collect()
    }
}
