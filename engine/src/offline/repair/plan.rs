//! What would mend each log of a target.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tidelog_wire::ids::{Chain, Offset};

use super::file::{Other, mend};
use super::patched::Patched;
use super::{Action, Plan, Step};
use crate::checkpoint::LogState;
use crate::offline::label::{Label, SegmentMap, Why};
use crate::offline::map::{Context, Detail, Promise, map};
use crate::offline::target::{Known, LogFiles, SegmentPath, Target, active_position, finding};
use crate::offline::verify::{Finding, LogVerdict, verify_log};
use crate::segment::{self, LogTag};
use crate::storage::{OpenMode, Storage};

/// Says what would mend `target`, with the help of another copy of the same logs. Changes nothing.
#[must_use]
pub fn plan(storage: &dyn Storage, target: &Target, from: Option<&Target>) -> Plan {
    let mut plan = Plan { steps: Vec::new(), left: target.findings.clone() };
    for files in &target.logs {
        let copy = from.and_then(|from| counterpart(files, target, from));
        let verdict = verify_log(storage, files, Detail::Runs, &mut |_| {});
        let after = verdict.maps.iter().map(|(_, _, map)| map.clone()).collect();
        let others = copy.map(|copy| others(storage, files, copy)).unwrap_or_default();
        let of_log = Log { storage, files, verdict, after, others, ends: BTreeMap::new() }.plan();
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
fn others(storage: &dyn Storage, files: &LogFiles, copy: &LogFiles) -> BTreeMap<Offset, Other> {
    let verdict = verify_log(storage, copy, Detail::Runs, &mut |_| {});
    let ours = |map: &SegmentMap| {
        map.header.is_none_or(|header| {
            files.log.is_none_or(|log| log == header.log)
                && files.cluster.is_none_or(|cluster| cluster == header.cluster)
        })
    };
    let usable = verdict.maps.into_iter().filter(|(_, _, map)| ours(map));
    usable
        .filter_map(|(segment, _, map)| {
            let file = storage.open(&segment.path, OpenMode::Read).ok()?;
            Some((segment.base, Other { path: segment.path, file, map }))
        })
        .collect()
}

/// How often all files of a log are looked at; each time that mends something may prove more.
const PASSES_MAX: usize = 4;

struct Log<'a> {
    storage: &'a dyn Storage,
    files: &'a LogFiles,
    verdict: LogVerdict,
    others: BTreeMap<Offset, Other>,
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
        if self.verdict.damage.iter().any(|finding| finding.why.is_newer()) {
            // Of a newer release: whatever this one thinks of it may be wrong.
            return Plan { steps: Vec::new(), left: self.verdict.damage };
        }
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
        Plan { steps: pass.steps, left: pass.left }
    }

    fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for entry in &self.files.strangers {
            let path = self.files.dir.join(&entry.name);
            pass.steps.push(Step { path, log: self.files.log, action: Action::SetAside });
        }
        for at in 0..self.verdict.maps.len() {
            let Some((segment, context, map)) = self.verdict.maps.get(at).cloned() else { break };
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
                (
                    Why::Missing
                    | Why::Unreadable(_)
                    | Why::ChainBreak { .. }
                    | Why::Overlap { .. }
                    | Why::Checkpoint { .. }
                    | Why::CheckpointFile(_),
                    _,
                ) => pass.left.push(finding.clone()),
                // What is wrong inside a file was mended or left with the file.
                (
                    Why::Header(_)
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
        pass
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
        let (path, log) = (segment.path.clone(), self.files.log);
        if map.len > 0 && (is_foreign || placed.is_some()) {
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
        let (path, log) = (&segment.path, self.files.log);
        let before = context.base.and_then(|base| self.ends.get(&base).copied());
        let context = Context { chain_start: context.chain_start.or(before), ..*context };
        let mended = self
            .storage
            .open(path, OpenMode::Read)
            .and_then(|file| mend(file, &context, &map, goal, self.others.get(&segment.base)));
        let after = match mended {
            Ok(mended) => {
                let step = |action| Step { path: path.clone(), log, action };
                pass.steps.extend(mended.actions.into_iter().map(step));
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
            let other = self.others.get(&at)?;
            let header = other.map.header.filter(|header| header.base == at)?;
            if chain.is_some_and(|chain| chain != header.chain_start) {
                return None;
            }
            let taken = usable(other, range.end, state)?;
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
    let len = every.parts.iter().find_map(|part| match &part.label {
        Label::Frames { records, .. } => (records.end == until).then_some(part.bytes.end),
        Label::Header
        | Label::Padding
        | Label::Index { .. }
        | Label::Footer
        | Label::TornTail { .. }
        | Label::Damage { .. }
        | Label::Foreign { .. } => None,
    })?;
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
