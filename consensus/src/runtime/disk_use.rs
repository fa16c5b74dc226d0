//! How many bytes lie below a directory: for metrics, so a rough answer is better than a slow one.
//!
//! Not here: free bytes, which the system knows at once.

use std::path::{Path, PathBuf};

use tidelog_engine::storage::{EntryKind, OpenMode, Storage};

/// Files looked at; a directory with more is said to hold what these do.
const FILES_MAX: usize = 20_000;

/// Bytes of the files below `dir`. What vanishes meanwhile, or cannot be read, counts nothing.
pub(super) fn bytes_below(storage: &dyn Storage, dir: &Path) -> u64 {
    let mut bytes: u64 = 0;
    let mut files: usize = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in storage.list(&dir).unwrap_or_default() {
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Directory => dirs.push(path),
                EntryKind::File => {
                    files = files.saturating_add(1);
                    let len = storage.open(&path, OpenMode::Read).and_then(|file| file.len());
                    bytes = bytes.saturating_add(len.unwrap_or(0));
                }
                EntryKind::Other => {}
            }
            if files >= FILES_MAX {
                return bytes;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use tidelog_engine::sim_disk::SimDisk;
    use tidelog_engine::storage::Position;

    use super::*;

    #[test]
    fn all_files_below_a_directory_count() {
        let storage = SimDisk::new(1).storage();
        for (path, len) in [("/d/a", 10), ("/d/one/b", 20), ("/d/one/two/c", 30), ("/other", 99)] {
            storage.create_dir(Path::new(path).parent().unwrap()).unwrap();
            let file = storage.open(Path::new(path), OpenMode::CreateNew).unwrap();
            file.write_at(Position::ZERO, &[&vec![1; len]]).unwrap();
        }
        assert_eq!(bytes_below(storage.as_ref(), Path::new("/d")), 60);
        assert_eq!(bytes_below(storage.as_ref(), Path::new("/nowhere")), 0);
    }
}
