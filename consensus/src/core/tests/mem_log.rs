//! A raft log in memory: what was written to it is what a crash leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raft::eraftpb::{Entry, HardState};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

use crate::raft_log::{
    GroupLog, GroupWrite, InstallChange, InstallMark, RaftLog, RaftLogError, Span, TermRun,
};

#[derive(Clone, Debug, Default)]
pub(super) struct MemLog(Arc<Mutex<BTreeMap<GroupId, Group>>>);

#[derive(Clone, Debug, Default)]
struct Group {
    entries: BTreeMap<u64, Entry>,
    hard_state: HardState,
    install: Option<InstallMark>,
    replica: Option<ReplicaId>,
    broken: bool,
}

impl MemLog {
    pub(super) fn term_at(&self, group: GroupId, index: u64) -> Option<u64> {
        self.0.lock().unwrap().get(&group)?.entries.get(&index).map(|entry| entry.term)
    }

    pub(super) fn last(&self, group: GroupId) -> u64 {
        let groups = self.0.lock().unwrap();
        groups.get(&group).and_then(|group| group.entries.keys().last().copied()).unwrap_or(0)
    }

    /// Loses everything from `index` on, as a disk that lied would.
    pub(super) fn lose_from(&self, group: GroupId, index: u64) {
        self.0.lock().unwrap().entry(group).or_default().entries.split_off(&index);
    }

    /// From now on entries of `group` cannot be read.
    pub(super) fn break_reads(&self, group: GroupId) {
        self.0.lock().unwrap().entry(group).or_default().broken = true;
    }
}

impl RaftLog for MemLog {
    fn write(&self, writes: &[GroupWrite], _sync: bool) -> Result<(), RaftLogError> {
        let mut groups = self.0.lock().unwrap();
        for write in writes {
            let group = groups.entry(write.group).or_default();
            if write.clear {
                *group = Group { replica: group.replica, ..Group::default() };
            }
            group.replica = write.replica.or(group.replica);
            if let Some(first) = write.entries.first() {
                group.entries.split_off(&first.index);
                let end = group.entries.keys().last().map_or(first.index, |last| last + 1);
                assert_eq!(end, first.index, "a write leaves no gap");
            }
            for entry in &write.entries {
                group.entries.insert(entry.index, entry.clone());
            }
            if let Some(hard_state) = &write.hard_state {
                group.hard_state = hard_state.clone();
            }
            match write.install {
                InstallChange::Keep => {}
                InstallChange::Set(mark) => group.install = Some(mark),
                InstallChange::Remove => group.install = None,
            }
        }
        Ok(())
    }

    fn load(&self, group: GroupId) -> Result<GroupLog, RaftLogError> {
        let groups = self.0.lock().unwrap();
        let Some(group) = groups.get(&group) else { return Ok(GroupLog::default()) };
        let mut terms: Vec<TermRun> = Vec::new();
        for entry in group.entries.values() {
            if terms.last().is_none_or(|run| run.term.get() != entry.term) {
                terms.push(TermRun { first: RaftIndex(entry.index), term: Term(entry.term) });
            }
        }
        let first = group.entries.keys().next().copied();
        let last = group.entries.keys().last().copied();
        let span =
            first.zip(last).map(|(first, last)| Span { first: RaftIndex(first), last: RaftIndex(last) });
        Ok(GroupLog {
            span,
            terms,
            hard_state: group.hard_state.clone(),
            install: group.install,
            replica: group.replica,
        })
    }

    fn entries(
        &self,
        group: GroupId,
        low: RaftIndex,
        high: RaftIndex,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, RaftLogError> {
        let groups = self.0.lock().unwrap();
        let held = groups.get(&group).filter(|held| !held.broken);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (_, entry) in held.iter().flat_map(|held| held.entries.range(low.get()..high.get())) {
            bytes += u64::try_from(entry.data.len() + entry.context.len()).unwrap();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        if entries.is_empty() {
            return Err(RaftLogError::Missing { group, asked: low, end: low });
        }
        Ok(entries)
    }

    fn compact(&self, group: GroupId, first_kept: RaftIndex) -> Result<(), RaftLogError> {
        let mut groups = self.0.lock().unwrap();
        let group = groups.entry(group).or_default();
        group.entries = group.entries.split_off(&first_kept.get());
        Ok(())
    }

    fn purge(&self) -> Result<Vec<GroupId>, RaftLogError> {
        Ok(Vec::new())
    }

    fn groups(&self) -> Vec<GroupId> {
        self.0.lock().unwrap().keys().copied().collect()
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
