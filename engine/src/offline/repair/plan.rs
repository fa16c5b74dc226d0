//! What would mend each log of a target.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_wire::ids::{Chain, Offset};

use super::file::{Other, mend};
use super::names::{Names, put_back};
use super::patched::Patched;
use super::{Action, Plan, Step};
use crate::checkpoint::LogState;
use crate::offline::label::{Label, Part, SegmentMap, Why};
use crate::offline::map::{Context, Detail, Promise, map};
use crate::offline::target::{Known, LogFiles, SegmentPath, Target, active_position, finding};
use crate::offline::verify::{Finding, LogVerdict, name_refused, verify_log};
use crate::segment::salvage::Salvage;
use crate::segment::{self, LogTag};
use crate::storage::{File, OpenMode, Storage};

/// Says what would mend `target`, with the help of another copy of the same logs. Changes nothing. `progress` is told the
/// bytes of each file that was looked through, of the target and then of the copy.
#[must_use]
pub fn plan(
    storage: &dyn Storage,
    target: &Target,
    from: Option<&Target>,
    progress: &mut dyn FnMut(u64),
) -> Plan {
    let mut look = |files| (files, verify_log(storage, files, Detail::Runs, progress));
    let verdicts: Vec<(&LogFiles, LogVerdict)> = target.logs.iter().map(&mut look).collect();
    let mut plan = Plan { steps: Vec::new(), left: target.findings.clone() };
    let damage = verdicts.iter().flat_map(|(_, verdict)| &verdict.damage);
    if target.findings.iter().chain(damage.clone()).any(|finding| finding.why.is_newer()) {
        // A newer release was here: whatever this one thinks of any of it may be wrong.
        plan.left.extend(damage.cloned());
        return plan;
    }
    for (files, verdict) in verdicts {
        let copy = from.and_then(|from| counterpart(files, target, from));
        let Names { back, contested } = put_back(storage, files, &verdict);
        let (files, verdict, names) = match &back {
            Some(back) => (&back.files, back.verdict.clone(), back.names.clone()),
            None => (files, verdict, BTreeMap::new()),
        };
        plan.steps.extend(back.iter().flat_map(|back| back.steps.iter().cloned()));
        let after = verdict.maps.iter().map(|(_, _, map)| map.clone()).collect();
        let is_sound = verdict.damage.is_empty() && verdict.torn.is_empty();
        let refused = RefCell::default();
        let others = copy.filter(|_| !is_sound).map(|copy| others(storage, files, copy, &refused, progress));
        let others = others.unwrap_or_default();
        let ends = BTreeMap::new();
        let of_log = Log { storage, files, names, contested, verdict, after, others, refused, ends };
        let of_log = of_log.plan();
        plan.steps.extend(of_log.steps);
        plan.left.extend(of_log.left);
    }
    plan
}

/// The same log in the other copy.
fn counterpart<'a>(files: &LogFiles, target: &Target, from: &'a Target) -> Option<&'a LogFiles> {
    match (target.logs.as_slice(), from.logs.as_slice()) {
        ([_], [only]) => Some(only),
        _ => from.logs.iter().find(|copy| copy.log == files.log),
    }
}

/// The segments of the other copy, by base; those of another log or cluster are of no use.
fn others(
    storage: &dyn Storage,
    files: &LogFiles,
    copy: &LogFiles,
    refused: &Refusals,
    progress: &mut dyn FnMut(u64),
) -> BTreeMap<Offset, Copied> {
    let verdict = verify_log(storage, copy, Detail::Runs, progress);
    let unread = |finding: &Finding| matches!(finding.why, Why::Unreadable { .. });
    for finding in verdict.damage.into_iter().filter(unread) {
        refused.borrow_mut().insert(finding.path.clone(), finding);
    }
    let ours = |map: &SegmentMap| {
        map.header.is_none_or(|header| {
            files.log.is_none_or(|log| log == header.log)
                && files.cluster.is_none_or(|cluster| cluster == header.cluster)
        })
    };
    let usable = verdict.maps.into_iter().filter(|(_, _, map)| ours(map));
    usable.map(|(segment, _, map)| (segment.base, Copied { path: segment.path, map })).collect()
}

/// A segment of the other copy, which is opened when it is needed.
struct Copied {
    path: PathBuf,
    map: SegmentMap,
}

/// What of the other copy the system refused.
type Refusals = RefCell<BTreeMap<PathBuf, Finding>>;

/// How often all files of a log are looked at; each time that mends something may prove more.
const PASSES_MAX: usize = 4;

struct Log<'a> {
    storage: &'a dyn Storage,
    files: &'a LogFiles,
    /// The names that files get before anything else is done, by those they have.
    names: BTreeMap<PathBuf, PathBuf>,
    /// Files that claim one empty place, and its offset: any may be the one that belongs there.
    contested: BTreeMap<PathBuf, Offset>,
    verdict: LogVerdict,
    others: BTreeMap<Offset, Copied>,
    refused: Refusals,
    /// The maps as the pass before left them.
    after: Vec<SegmentMap>,
    /// Where the log stands at the end of each own segment, once it is mended.
    ends: BTreeMap<Offset, Chain>,
}

/// What one look at all files of a log came to.
#[derive(Default)]
struct Pass {
    steps: Vec<Step>,
    left: Vec<Finding>,
    /// The maps of the files, mended.
    after: Vec<SegmentMap>,
}

impl Log<'_> {
    fn plan(mut self) -> Plan {
        self.ends.insert(Offset::ZERO, Chain::default());
        let mut pass = self.pass();
        // What was mended may prove what lies before it: a header says where the chain of the segment before must come to.
        for _ in 1..PASSES_MAX {
            if pass.left.is_empty() || pass.after == self.after {
                break;
            }
            self.after = pass.after;
            pass = self.pass();
        }
        pass.left.extend(self.refused.into_inner().into_values());
        Plan { steps: pass.steps, left: pass.left }
    }

    /// The path of a file once it has its own name.
    fn own_name(&self, path: &Path) -> PathBuf {
        self.names.get(path).cloned().unwrap_or_else(|| path.to_path_buf())
    }

    /// The other copy's segment with this base. One that cannot be opened is told with what is left.
    fn other(&self, base: Offset) -> Option<Other> {
        let Copied { path, map } = self.others.get(&base)?;
        match self.storage.open(path, OpenMode::Read) {
            Ok(file) => Some(Other { path: path.clone(), file, map: map.clone() }),
            Err(error) => {
                let (log, why) = (self.files.log, Why::unreadable(&error));
                let finding = Finding { path: path.clone(), log, bytes: 0..map.len, offsets: None, why };
                self.refused.borrow_mut().insert(path.clone(), finding);
                None
            }
        }
    }

    fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for entry in self.files.strangers.iter().filter(|_| self.files.only.is_none()) {
            let path = self.files.dir.join(&entry.name);
            if !self.contested.contains_key(&path) {
                pass.steps.push(Step { path, log: self.files.log, action: Action::SetAside });
            }
        }
        for at in 0..self.verdict.maps.len() {
            let Some((segment, context, map)) = self.verdict.maps.get(at).cloned() else { break };
            if is_below_start(self.files, &context) {
                // About to be unlinked: nobody may ask for it any more.
                pass.after.push(map);
                continue;
            }
            let is_foreign =
                map.parts.first().is_some_and(|part| matches!(part.label, Label::Foreign { .. }));
            if is_foreign || is_worthless(&map) {
                self.replace(&segment, &context, map, is_foreign, &mut pass);
            } else {
                let goal = self.goal(at.saturating_add(1), &context);
                self.mend(&segment, &context, map, goal, &mut pass);
            }
        }
        for finding in &self.verdict.damage {
            match (&finding.why, &finding.offsets) {
                (Why::Missing, Some(range)) if self.placements(range).is_some() => {
                    pass.steps.extend(self.placements(range).unwrap_or_default());
                }
                // It is one range of a file that gave the others.
                (Why::Unreadable { .. }, _)
                    if self.verdict.maps.iter().any(|(found, _, _)| found.path == finding.path) => {}
                (
                    Why::Missing
                    | Why::Unreadable { .. }
                    | Why::Footer(_)
                    | Why::Identity { .. }
                    | Why::FramesBehind { .. }
                    | Why::CopyGoesOn { .. }
                    | Why::ChainBreak { .. }
                    | Why::Overlap { .. }
                    | Why::Checkpoint { .. }
                    | Why::CheckpointFile(_),
                    _,
                ) => pass.left.push(finding.clone()),
                // What is wrong inside a file was mended or left with the file.
                (
                    Why::Header(_)
                    | Why::UnreadableHeader { .. }
                    | Why::UnreadableSeal { .. }
                    | Why::Frame(_)
                    | Why::Displaced { .. }
                    | Why::Zeros
                    | Why::CutShort
                    | Why::NoFooter
                    | Why::Seal
                    | Why::OtherSegment { .. }
                    | Why::OtherFrame { .. }
                    | Why::Name,
                    _,
                ) => {}
            }
        }
        self.leave_contested(&mut pass);
        pass
    }

    /// Strangers that claim one place stay, unless the other copy fills it.
    fn leave_contested(&self, pass: &mut Pass) {
        for finding in self.verdict.damage.iter().filter(|finding| finding.why == Why::Name) {
            let Some(base) = self.contested.get(&finding.path) else { continue };
            let place = self.files.dir.join(segment::file_name(*base));
            let is_filled = |step: &Step| step.path == place && matches!(step.action, Action::Place { .. });
            if pass.steps.iter().any(is_filled) {
                let (path, log) = (finding.path.clone(), self.files.log);
                pass.steps.push(Step { path, log, action: Action::SetAside });
            } else {
                pass.left.push(finding.clone());
            }
        }
    }

    /// A file of which nothing is of use here: it goes, if it is another's or there is a better one.
    fn replace(
        &self,
        segment: &SegmentPath,
        context: &Context,
        map: SegmentMap,
        is_foreign: bool,
        pass: &mut Pass,
    ) {
        let lost = context.end.filter(|end| *end > segment.base).map(|end| segment.base..end);
        let placed = lost.as_ref().and_then(|lost| self.placements(lost));
        let (path, log) = (self.own_name(&segment.path), self.files.log);
        let may_go = placed.is_some() || (is_foreign && self.may_go(segment, &map));
        if is_foreign && !may_go {
            pass.left.extend(map.bad().filter_map(|part| finding(&path, log, part)));
            pass.after.push(map);
            return;
        }
        if map.len > 0 && may_go {
            pass.steps.push(Step { path: path.clone(), log, action: Action::SetAside });
        }
        match (placed, lost) {
            (Some(steps), _) => {
                pass.steps.extend(steps);
                let copied = self.others.get(&segment.base).map(|other| other.map.clone());
                pass.after.push(copied.unwrap_or(map));
            }
            (None, Some(lost)) if is_foreign => {
                pass.left.push(Finding { path, log, bytes: 0..0, offsets: Some(lost), why: Why::Missing });
                pass.after.push(map);
            }
            (None, _) => {
                if !is_foreign {
                    pass.left.extend(map.bad().filter_map(|part| finding(&path, log, part)));
                }
                pass.after.push(map);
            }
        }
    }

    /// Whether a foreign file may be set aside without another one in its place: it has no intact frame, or it is certain
    /// whose it is, and that it is not a segment of this log whose own place is empty.
    fn may_go(&self, segment: &SegmentPath, map: &SegmentMap) -> bool {
        let file = self.storage.open(&segment.path, OpenMode::Read);
        let Ok(alone) = file.and_then(|file| map_alone(file.as_ref())) else { return false };
        if !alone.parts.iter().any(|part| matches!(part.label, Label::Frames { .. })) {
            return true;
        }
        map.header.is_some_and(|header| {
            let stands = |known: &SegmentPath| known.base == header.base && !known.is_misplaced;
            let has_place = || self.files.segments.iter().any(stands);
            self.files.is_identified
                && self.files.cluster == Some(header.cluster)
                && (self.files.log != Some(header.log) || has_place())
        })
    }

    /// Where the chain must come to at the end of a segment, if the one behind it, at `next`, or the checkpoint says so.
    fn goal(&self, next: usize, context: &Context) -> Option<(Offset, Chain)> {
        let end = context.end?;
        let state = state_of(self.files).filter(|state| state.end == end);
        self.begins(next).filter(|(base, _)| *base == end).or(state.map(|state| (state.end, state.chain)))
    }

    /// Where a segment that is in its place begins, and with which chain.
    fn begins(&self, at: usize) -> Option<(Offset, Chain)> {
        let (segment, map) = (&self.verdict.maps.get(at)?.0, self.after.get(at)?);
        let ours = map.parts.first().is_some_and(|part| part.label == Label::Header);
        map.header.filter(|_| ours).map(|header| (segment.base, header.chain_start))
    }

    fn mend(
        &mut self,
        segment: &SegmentPath,
        context: &Context,
        map: SegmentMap,
        goal: Option<(Offset, Chain)>,
        pass: &mut Pass,
    ) {
        let (path, log) = (&self.own_name(&segment.path), self.files.log);
        let before = context.base.and_then(|base| self.ends.get(&base).copied());
        let context = Context { chain_start: context.chain_start.or(before), ..*context };
        let torn = map.parts.last().is_some_and(|part| matches!(part.label, Label::TornTail { .. }));
        let other = if torn || !map.is_sound() { self.other(segment.base) } else { None };
        let mended = self.storage.open(&segment.path, OpenMode::Read).and_then(|file| {
            let file = Arc::new(Salvage::new(file));
            let mut mended = mend(Arc::<Salvage>::clone(&file), &context, &map, goal, other.as_ref())?;
            name_refused(&mut mended.map, &file);
            Ok(mended)
        });
        let after = match mended {
            Ok(mended) => {
                let step = |action| Step { path: path.clone(), log, action };
                pass.steps.extend(mended.actions.into_iter().map(step));
                pass.left.extend(mended.undecided.and_then(|part| finding(path, log, &part)));
                mended.map
            }
            Err(_) => map,
        };
        pass.left.extend(after.bad().filter_map(|part| finding(path, log, part)));
        let end = after.footer.map_or(after.end, |footer| footer.last_offset.plus(1));
        if let Some(chain) = after.footer.map(|footer| footer.chain_end).or(after.chain) {
            self.ends.insert(end, chain);
        }
        pass.after.push(after);
    }

    /// The segments of the other copy that fill a gap, if the chain proves them at its end.
    fn placements(&self, range: &Range<Offset>) -> Option<Vec<Step>> {
        let state = state_of(self.files).filter(|state| state.end == range.end);
        let behind = (0..self.verdict.maps.len()).filter_map(|at| self.begins(at));
        let mut behind = behind.filter(|(base, _)| *base == range.end).map(|(_, chain)| chain);
        let goal = behind.next().or(state.map(|state| state.chain))?;
        let mut chain = self.ends.get(&range.start).copied();
        let mut at = range.start;
        let mut steps = Vec::new();
        while at < range.end {
            let other = self.other(at)?;
            let header = other.map.header.filter(|header| header.base == at)?;
            if chain.is_some_and(|chain| chain != header.chain_start) {
                return None;
            }
            let taken = usable(&other, range.end, state)?;
            if taken.end <= at {
                return None;
            }
            let place = Action::Place { from: other.path.clone(), len: taken.len, offsets: at..taken.end };
            let seal = taken.seal.map(|bytes| Action::Seal { at: taken.len, bytes });
            let path = self.files.dir.join(segment::file_name(at));
            let step = |action| Step { path: path.clone(), log: self.files.log, action };
            steps.extend([place].into_iter().chain(seal).map(step));
            (at, chain) = (taken.end, Some(taken.chain));
        }
        (at == range.end && chain == Some(goal)).then_some(steps)
    }
}

/// What of the other copy's segment can be taken.
struct Taken {
    /// Bytes, from its beginning on.
    len: u64,
    /// Where the log stands behind them.
    end: Offset,
    chain: Chain,
    /// Index and footer to be written behind them: a log whose checkpoint has no active segment goes on in another file.
    seal: Option<Vec<u8>>,
}

/// How much of the other copy's segment can be taken: all of it if it is sealed and ends at or below `until`, else up to
/// `until`, where the checkpoint says the log ended.
fn usable(other: &Other, until: Offset, state: Option<&LogState>) -> Option<Taken> {
    if let Some(footer) = other.map.footer
        && footer.last_offset < until
    {
        let (len, end, chain) = (other.map.len, footer.last_offset.plus(1), footer.chain_end);
        return other.map.is_sound().then_some(Taken { len, end, chain, seal: None });
    }
    let state = state?;
    let header = other.map.header?;
    let context = Context { promise: Promise::All, detail: Detail::EachFrame, ..Context::default() };
    let every = map(other.file.as_ref(), &context).ok()?;
    let last = |part: &&Part| part.label.frames().is_some_and(|(records, _)| records.end == until);
    let len = every.parts.iter().find(last)?.bytes.end;
    let mut cut = Patched::new(Arc::clone(&other.file), len);
    cut.cut(len);
    let summary = map(&cut, &context).ok()?.whole?;
    let seal = match active_position(state) {
        Some((base, position)) => {
            if base != header.base || position.get() != len {
                return None;
            }
            None
        }
        None => Some(summary.seal_bytes(LogTag::of(header.cluster, header.log))),
    };
    (summary.end == until).then_some(Taken { len, end: until, chain: summary.chain, seal })
}

/// All of it lies below the log's start.
fn is_below_start(files: &LogFiles, context: &Context) -> bool {
    let start = state_of(files).map(|state| state.start);
    start.is_some_and(|start| context.end.is_some_and(|end| end <= start)) && context.promise == Promise::All
}

/// A file as it speaks for itself.
fn map_alone(file: &dyn File) -> io::Result<SegmentMap> {
    map(file, &Context::default())
}

/// Neither a header nor any frame of it verifies.
fn is_worthless(map: &SegmentMap) -> bool {
    map.header.is_none() && !map.parts.iter().any(|part| matches!(part.label, Label::Frames { .. }))
}

fn state_of(files: &LogFiles) -> Option<&LogState> {
    match &files.known {
        Known::Checkpoint { state, .. } => Some(state),
        Known::Nothing | Known::Unnamed => None,
    }
}
