//! Segments under a wrong name, which a person or a file system gave them: put back under their own.
//!
//! 1. A file whose header verifies and says that it is a segment of this very log is a candidate, whatever its name is. Its own
//!    place must be empty, and no other file may claim it.
//! 2. It is put there in thought, and the log is looked through again. If it contradicts a neighbour or the checkpoint more than it did
//!    before, or more records are missing, the file stays where it is: it may be an old copy.
//! 3. What else is to be mended is planned as if it had its name already: renaming comes first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidelog_wire::ids::Offset;

use super::{Action, Step};
use crate::offline::label::Why;
use crate::offline::map::Detail;
use crate::offline::target::{LogFiles, SegmentPath};
use crate::offline::verify::{LogVerdict, verify_log};
use crate::segment::{self, header_of};
use crate::storage::{EntryKind, OpenMode, Storage};

/// Files that are tried one by one, each for a look through the whole log, if not all of them can be put back.
const SINGLE_MAX: usize = 64;

/// A log with files put back under their names, in thought.
pub(super) struct PutBack {
    /// Its segments are where they lie now, with the base offsets of their headers.
    pub(super) files: LogFiles,
    pub(super) verdict: LogVerdict,
    pub(super) steps: Vec<Step>,
    /// The names they get, by those they have.
    pub(super) names: BTreeMap<PathBuf, PathBuf>,
}

/// A file under a wrong name.
struct Misnamed {
    path: PathBuf,
    len: u64,
    base: Offset,
}

/// Puts back what belongs to the log. `None` if nothing does.
pub(super) fn put_back(storage: &dyn Storage, files: &LogFiles, verdict: &LogVerdict) -> Option<PutBack> {
    let misnamed = misnamed(storage, files, verdict);
    let all: Vec<&Misnamed> = misnamed.iter().collect();
    if let Some(back) = moved(storage, files, verdict, &all) {
        return Some(back);
    }
    let mut good = Vec::new();
    let mut best = None;
    for one in all.into_iter().take(SINGLE_MAX) {
        good.push(one);
        match moved(storage, files, verdict, &good) {
            Some(back) => best = Some(back),
            None => drop(good.pop()),
        }
    }
    best
}

fn misnamed(storage: &dyn Storage, files: &LogFiles, verdict: &LogVerdict) -> Vec<Misnamed> {
    let header = |path: &Path| header_of(storage.open(path, OpenMode::Read).ok()?.as_ref()).ok()?.ok();
    let named = verdict.maps.iter().filter_map(|(segment, _, map)| {
        let base = map.header.filter(|header| header.base != segment.base)?.base;
        Some(Misnamed { path: segment.path.clone(), len: segment.len, base })
    });
    let strangers =
        files.strangers.iter().filter(|entry| files.only.is_none() && entry.kind == EntryKind::File);
    let strangers = strangers.filter_map(|entry| {
        let path = files.dir.join(&entry.name);
        let base = header(&path)?.base;
        let len = storage.open(&path, OpenMode::Read).and_then(|file| file.len()).ok()?;
        Some(Misnamed { path, len, base })
    });
    let ours = |one: &Misnamed| {
        header(&one.path)
            .is_some_and(|header| files.log == Some(header.log) && files.cluster == Some(header.cluster))
    };
    named.chain(strangers).filter(ours).collect()
}

/// The log with these files under their own names, unless one of the places is taken, or the log is worse for it.
fn moved(
    storage: &dyn Storage,
    files: &LogFiles,
    verdict: &LogVerdict,
    misnamed: &[&Misnamed],
) -> Option<PutBack> {
    let mut back = files.clone();
    let (mut names, mut steps) = (BTreeMap::new(), Vec::new());
    let mut waiting: Vec<&Misnamed> = misnamed.to_vec();
    // One that leaves a place may make room for another.
    while let Some(at) = waiting.iter().position(|one| is_free(&back, one.base)) {
        let one = waiting.remove(at);
        let to = files.dir.join(segment::file_name(one.base));
        if let Some(named) = back.segments.iter().find(|known| known.path == one.path).map(|known| known.base)
        {
            back.only = back.only.map(|only| if only == named { one.base } else { only });
        }
        back.segments.retain(|known| known.path != one.path);
        back.strangers.retain(|entry| files.dir.join(&entry.name) != one.path);
        back.segments.push(SegmentPath {
            base: one.base,
            path: one.path.clone(),
            len: one.len,
            is_misplaced: false,
        });
        back.segments.sort_by_key(|segment| segment.base);
        steps.push(Step {
            path: one.path.clone(),
            log: files.log,
            action: Action::Rename { to: to.clone() },
        });
        names.insert(one.path.clone(), to);
    }
    if steps.is_empty() || !waiting.is_empty() {
        return None;
    }
    let found = verify_log(storage, &back, Detail::Runs, &mut |_| {});
    let (before, after) = (Doubts::of(verdict), Doubts::of(&found));
    let is_better = after.contradictions <= before.contradictions && after.missing <= before.missing;
    is_better.then_some(PutBack { files: back, verdict: found, steps, names })
}

/// Nothing has this place.
fn is_free(files: &LogFiles, base: Offset) -> bool {
    let name = segment::file_name(base);
    files.segments.iter().all(|known| known.base != base)
        && files.strangers.iter().all(|entry| entry.name != name.as_str())
}

/// What speaks against the files of a log being where they are.
struct Doubts {
    contradictions: usize,
    /// Records of segments that are not there.
    missing: u64,
}

impl Doubts {
    fn of(verdict: &LogVerdict) -> Self {
        let contradicts =
            |why: &Why| matches!(why, Why::ChainBreak { .. } | Why::Overlap { .. } | Why::Checkpoint { .. });
        let missing = verdict.damage.iter().filter(|finding| finding.why == Why::Missing);
        let missing = missing.filter_map(|finding| finding.offsets.as_ref());
        Self {
            contradictions: verdict.damage.iter().filter(|finding| contradicts(&finding.why)).count(),
            missing: missing.map(|lost| lost.end.get().saturating_sub(lost.start.get())).sum(),
        }
    }
}
