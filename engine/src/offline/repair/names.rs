//! Segments under a wrong name, which a person or a file system gave them: put back under their own.
//!
//! 1. A file whose header verifies and says that it is a segment of this very log is a candidate, whatever its name is. Its own
//!    place must be empty, and no other file may claim it: of two claimants one may be an old copy, and nobody can say which, so
//!    both are left. What lies wholly below the start of the log is none: with its name back the next start would unlink it.
//! 2. It is put there in thought, and the log is looked through again. If it contradicts a neighbour or the checkpoint more than it did
//!    before, or more records are missing, the file stays where it is: it may be an old copy.
//! 3. What else is to be mended is planned as if it had its name already: renaming comes first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidelog_wire::ids::Offset;

use super::{Action, Step};
use crate::offline::label::Why;
use crate::offline::map::Detail;
use crate::offline::target::{Known, LogFiles, SegmentPath};
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

/// What became of the files under wrong names.
pub(super) struct Names {
    /// `None`: nothing is put back.
    pub(super) back: Option<PutBack>,
    /// Files that claim one empty place, and its offset.
    pub(super) contested: BTreeMap<PathBuf, Offset>,
}

/// A file under a wrong name.
struct Misnamed {
    path: PathBuf,
    len: u64,
    base: Offset,
}

/// Puts back what belongs to the log.
pub(super) fn put_back(storage: &dyn Storage, files: &LogFiles, verdict: &LogVerdict) -> Names {
    let misnamed = misnamed(storage, files, verdict);
    let is_claimed_twice =
        |one: &&Misnamed| misnamed.iter().filter(|other| other.base == one.base).count() > 1;
    let (contested, sole): (Vec<&Misnamed>, Vec<&Misnamed>) = misnamed.iter().partition(is_claimed_twice);
    let back = placed(storage, files, verdict, sole);
    let now = back.as_ref().map_or(files, |back| &back.files);
    let is_taken = |base| now.segments.iter().any(|known| known.base == base && !known.is_misplaced);
    let contested = contested.into_iter().filter(|one| !is_taken(one.base));
    let contested = contested.map(|one| (one.path.clone(), one.base)).collect();
    Names { back, contested }
}

/// All of them in their places, or else as many as fit.
fn placed(
    storage: &dyn Storage,
    files: &LogFiles,
    verdict: &LogVerdict,
    sole: Vec<&Misnamed>,
) -> Option<PutBack> {
    if let Some(back) = moved(storage, files, verdict, &sole) {
        return Some(back);
    }
    let mut good = Vec::new();
    let mut best = None;
    for one in sole.into_iter().take(SINGLE_MAX) {
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
    let mut found: Vec<Misnamed> = named.chain(strangers).filter(ours).collect();
    if let Some((start, end)) = known_start(files) {
        let in_place = files.segments.iter().filter(|known| !known.is_misplaced).map(|known| known.base);
        let bases: Vec<Offset> = in_place.chain(found.iter().map(|one| one.base)).collect();
        let ends_below = |base| start == end || bases.iter().any(|next| *next > base && *next <= start);
        found.retain(|one| one.base >= start || !ends_below(one.base));
    }
    found
}

/// Where the checkpoint says that the log starts and ends.
fn known_start(files: &LogFiles) -> Option<(Offset, Offset)> {
    match &files.known {
        Known::Checkpoint { state, .. } => Some((state.start, state.end)),
        Known::Nothing | Known::Unnamed => None,
    }
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
