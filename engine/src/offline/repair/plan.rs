//! What would mend each log of a target.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use tidelog_wire::ids::{Chain, Offset};

use super::file::{Other, mend};
use super::{Action, Plan, Step};
use crate::checkpoint::LogState;
use crate::offline::label::{Label, Part, SegmentMap, Why};
use crate::offline::map::{Context, Detail, Promise, map};
use crate::offline::target::{Known, LogFiles, SegmentPath, Target, active_position, finding};
use crate::offline::verify::{Finding, LogVerdict, verify_log};
use crate::segment;
use crate::storage::{OpenMode, Position, Storage};

/// Says what would mend `target`, with the help of another copy of the same logs. Changes nothing.
#[must_use]
pub fn plan(storage: &dyn Storage, target: &Target, from: Option<&Target>) -> Plan {
    let mut plan = Plan { steps: Vec::new(), left: target.findings.clone() };
    for files in &target.logs {
        let copy = from.and_then(|from| counterpart(files, target, from));
        let mut log = Log {
            storage,
            files,
            verdict: verify_log(storage, files, Detail::Runs, &mut |_| {}),
            others: copy.map(|copy| others(storage, files, copy)).unwrap_or_default(),
            ends: BTreeMap::new(),
            plan: &mut plan,
        };
        log.plan();
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

struct Log<'a> {
    storage: &'a dyn Storage,
    files: &'a LogFiles,
    verdict: LogVerdict,
    others: BTreeMap<Offset, Other>,
    /// Where the log stands at the end of each own segment, once it is mended.
    ends: BTreeMap<Offset, Chain>,
    plan: &'a mut Plan,
}

impl Log<'_> {
    fn plan(&mut self) {
        if self.verdict.damage.iter().any(|finding| finding.why.is_newer()) {
            // Of a newer release: whatever this one thinks of it may be wrong.
            self.plan.left.append(&mut self.verdict.damage);
            return;
        }
        for entry in &self.files.strangers {
            self.step(&self.files.dir.join(&entry.name), Action::SetAside);
        }
        self.ends.insert(Offset::ZERO, Chain::default());
        let mut lost: Vec<Range<Offset>> = Vec::new();
        let maps = std::mem::take(&mut self.verdict.maps);
        for (at, (segment, context, map)) in maps.iter().enumerate() {
            let foreign = match map.parts.first() {
                Some(Part { label: Label::Foreign { offsets, .. }, .. }) => Some(offsets.clone()),
                Some(_) | None => None,
            };
            if let Some(offsets) = foreign {
                self.step(&segment.path, Action::SetAside);
                lost.extend(offsets);
                continue;
            }
            if is_worthless(map)
                && let Some(steps) = context.end.and_then(|end| self.placements(&(segment.base..end), &maps))
            {
                if map.len > 0 {
                    self.step(&segment.path, Action::SetAside);
                }
                self.plan.steps.extend(steps);
                continue;
            }
            let goal = self.goal(maps.get(at.saturating_add(1)), context);
            self.mend(segment, context, map, goal);
        }
        for finding in std::mem::take(&mut self.verdict.damage) {
            match finding.why {
                Why::Missing => lost.extend(finding.offsets),
                Why::Unreadable(_)
                | Why::ChainBreak { .. }
                | Why::Overlap { .. }
                | Why::Checkpoint { .. }
                | Why::CheckpointFile(_) => self.plan.left.push(finding),
                // What is wrong inside a file was mended or left with the file.
                Why::Header(_)
                | Why::Frame(_)
                | Why::Displaced { .. }
                | Why::Zeros
                | Why::CutShort
                | Why::NoFooter
                | Why::Seal
                | Why::OtherSegment { .. }
                | Why::OtherFrame { .. }
                | Why::Name => {}
            }
        }
        for range in lost {
            self.place(range, &maps);
        }
    }

    fn step(&mut self, path: &Path, action: Action) {
        self.plan.steps.push(Step { path: path.to_path_buf(), log: self.files.log, action });
    }

    /// Where the chain must come to at the end of a segment, if the next one or the checkpoint says so.
    fn goal(
        &self,
        next: Option<&(SegmentPath, Context, SegmentMap)>,
        context: &Context,
    ) -> Option<(Offset, Chain)> {
        let end = context.end?;
        let state = state_of(self.files).filter(|state| state.end == end);
        next.and_then(|(segment, _, map)| begins(segment, map))
            .filter(|(base, _)| *base == end)
            .or(state.map(|state| (state.end, state.chain)))
    }

    fn mend(
        &mut self,
        segment: &SegmentPath,
        context: &Context,
        map: &SegmentMap,
        goal: Option<(Offset, Chain)>,
    ) {
        let path = &segment.path;
        let before = context.base.and_then(|base| self.ends.get(&base).copied());
        let context = Context { chain_start: context.chain_start.or(before), ..*context };
        let mended = self
            .storage
            .open(path, OpenMode::Read)
            .and_then(|file| mend(file, &context, map, goal, self.others.get(&segment.base)));
        let after = match mended {
            Ok(mended) => {
                for action in mended.actions {
                    self.step(path, action);
                }
                mended.map
            }
            Err(_) => map.clone(),
        };
        self.plan.left.extend(after.bad().filter_map(|part| finding(path, self.files.log, part)));
        let end = after.footer.map_or(after.end, |footer| footer.last_offset.plus(1));
        if let Some(chain) = after.footer.map(|footer| footer.chain_end).or(after.chain) {
            self.ends.insert(end, chain);
        }
    }

    /// Puts segments of the other copy where the offsets `range` are missing altogether.
    fn place(&mut self, range: Range<Offset>, maps: &[(SegmentPath, Context, SegmentMap)]) {
        match self.placements(&range, maps) {
            Some(steps) => self.plan.steps.extend(steps),
            None => self.plan.left.push(Finding {
                path: self.files.dir.join(segment::file_name(range.start)),
                log: self.files.log,
                bytes: 0..0,
                offsets: Some(range),
                why: Why::Missing,
            }),
        }
    }

    /// The segments that fill a gap, if the chain proves them at its end.
    fn placements(
        &self,
        range: &Range<Offset>,
        maps: &[(SegmentPath, Context, SegmentMap)],
    ) -> Option<Vec<Step>> {
        let state = state_of(self.files).filter(|state| state.end == range.end);
        let behind = maps.iter().filter_map(|(segment, _, map)| begins(segment, map));
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
            let (len, end, chain_end) = usable(other, range.end, state)?;
            if end <= at {
                return None;
            }
            let action = Action::Place { from: other.path.clone(), len, offsets: at..end };
            let path = self.files.dir.join(segment::file_name(at));
            steps.push(Step { path, log: self.files.log, action });
            (at, chain) = (end, Some(chain_end));
        }
        (at == range.end && chain == Some(goal)).then_some(steps)
    }
}

/// How much of the other copy's segment can be taken: all of it if it is sealed and ends at or below `until`, else up to the
/// checkpoint's end in the active one.
fn usable(other: &Other, until: Offset, state: Option<&LogState>) -> Option<(u64, Offset, Chain)> {
    if let Some(footer) = other.map.footer
        && footer.last_offset < until
    {
        let sound = other.map.is_sound();
        return sound.then_some((other.map.len, footer.last_offset.plus(1), footer.chain_end));
    }
    let state = state?;
    let (_, position) = active_position(state)
        .filter(|(base, _)| Some(*base) == other.map.header.map(|header| header.base))?;
    let context = Context { promise: Promise::UpTo(position), split: Some(position), ..Context::default() };
    let map = map(other.file.as_ref(), &context).ok()?;
    let sound = map.bad().all(|part| part.bytes.start >= position.get());
    let there = map.parts.iter().any(|part| match &part.label {
        Label::Frames { records, chain, .. } => {
            Position(part.bytes.end) == position && (records.end, *chain) == (state.end, state.chain)
        }
        Label::Header
        | Label::Padding
        | Label::Index { .. }
        | Label::Footer
        | Label::TornTail { .. }
        | Label::Damage { .. }
        | Label::Foreign { .. } => false,
    });
    (sound && there).then_some((position.get(), state.end, state.chain))
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

/// Where a segment that is in its place begins, and with which chain.
fn begins(segment: &SegmentPath, map: &SegmentMap) -> Option<(Offset, Chain)> {
    let ours = map.parts.first().is_some_and(|part| part.label == Label::Header);
    map.header.filter(|_| ours).map(|header| (segment.base, header.chain_start))
}
