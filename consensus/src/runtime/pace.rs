//! When each group takes its next checkpoint: after so many bytes or so long, when old entries are in the
//! way, and a last time before a stop. Never two of one group at once.
//!
//! A group owes one last checkpoint, not more: entries that come meanwhile are in the raft log, and a disk
//! that refused is not asked again. So a stop ends, however fast entries come.
//!
//! Not here: what a checkpoint is (`crate::apply`), and making it durable (`super::keeper`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidelog_wire::ids::GroupId;

/// When a group is checkpointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPace {
    /// After this many bytes of entries.
    pub bytes: u64,
    /// After this time, if there is anything new.
    pub interval: Duration,
}

impl Default for CheckpointPace {
    fn default() -> Self {
        Self { bytes: 64 << 20, interval: Duration::from_secs(30) }
    }
}

#[derive(Debug, Default)]
struct Progress {
    bytes: u64,
    since: Duration,
    soon: bool,
    running: bool,
}

/// The groups, and how far each is from its next checkpoint.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: CheckpointPace,
    groups: BTreeMap<GroupId, Progress>,
    /// Once told to finish: the groups that have not begun their last checkpoint.
    owed: Option<BTreeSet<GroupId>>,
}

impl Pacer {
    pub(super) fn new(pace: CheckpointPace, groups: &[GroupId], now: Duration) -> Self {
        let begin = |group: &GroupId| (*group, Progress { since: now, ..Progress::default() });
        Self { pace, groups: groups.iter().map(begin).collect(), owed: None }
    }

    /// The group is here from now on.
    pub(super) fn add(&mut self, group: GroupId, now: Duration) {
        self.groups.entry(group).or_insert_with(|| Progress { since: now, ..Progress::default() });
    }

    /// The group is gone, and owes nothing.
    pub(super) fn remove(&mut self, group: GroupId) {
        self.groups.remove(&group);
        if let Some(owed) = &mut self.owed {
            owed.remove(&group);
        }
    }

    /// Entries of this size were applied. Whether the group's checkpoint fell due by that.
    pub(super) fn applied(&mut self, group: GroupId, bytes: u64) -> bool {
        let Some(progress) = self.groups.get_mut(&group) else { return false };
        let before = progress.bytes;
        progress.bytes = progress.bytes.saturating_add(bytes);
        before < self.pace.bytes && progress.bytes >= self.pace.bytes && !progress.running
    }

    /// Old entries of the group are in the way.
    pub(super) fn soon(&mut self, group: GroupId) {
        if let Some(progress) = self.groups.get_mut(&group) {
            progress.soon = true;
        }
    }

    /// From now on each group takes one last checkpoint.
    pub(super) fn finish(&mut self) {
        self.owed = Some(self.groups.keys().copied().collect());
    }

    /// The groups whose checkpoint is due now. Of those for which there was something to write the caller
    /// says so: see [`Pacer::began`].
    pub(super) fn due(&mut self, now: Duration) -> Vec<GroupId> {
        let mut due = Vec::new();
        for (group, progress) in &mut self.groups {
            let paced = progress.soon
                || progress.bytes >= self.pace.bytes
                || now.saturating_sub(progress.since) >= self.pace.interval;
            if progress.running || !self.owed.as_mut().map_or(paced, |owed| owed.remove(group)) {
                continue;
            }
            *progress = Progress { since: now, ..Progress::default() };
            due.push(*group);
        }
        due
    }

    /// A checkpoint of the group is on its way.
    pub(super) fn began(&mut self, group: GroupId) {
        if let Some(progress) = self.groups.get_mut(&group) {
            progress.running = true;
        }
    }

    /// It is written, or could not be.
    pub(super) fn ended(&mut self, group: GroupId) {
        if let Some(progress) = self.groups.get_mut(&group) {
            progress.running = false;
        }
    }

    /// Told to finish, and every group has taken its last checkpoint or had nothing to write.
    pub(super) fn is_finished(&self) -> bool {
        self.owed.as_ref().is_some_and(BTreeSet::is_empty)
            && self.groups.values().all(|progress| !progress.running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];
    const PACE: CheckpointPace = CheckpointPace { bytes: 100, interval: Duration::from_secs(30) };

    fn pacer() -> Pacer {
        Pacer::new(PACE, &GROUPS, Duration::ZERO)
    }

    #[test]
    fn a_checkpoint_is_due_after_bytes_or_time_or_when_entries_are_in_the_way() {
        let mut pacer = pacer();
        assert_eq!(pacer.due(Duration::from_secs(1)), []);
        assert!(!pacer.applied(GROUPS[0], 99), "not yet");
        assert!(pacer.applied(GROUPS[0], 1), "now");
        assert!(!pacer.applied(GROUPS[0], 1), "that is known");
        assert_eq!(pacer.due(Duration::from_secs(2)), [GROUPS[0]]);
        pacer.soon(GROUPS[1]);
        assert_eq!(pacer.due(Duration::from_secs(3)), [GROUPS[1]]);
        assert_eq!(pacer.due(Duration::from_secs(31)), []);
        assert_eq!(pacer.due(Duration::from_secs(32)), [GROUPS[0]]);
    }

    #[test]
    fn a_group_takes_one_checkpoint_at_a_time() {
        let mut pacer = pacer();
        pacer.soon(GROUPS[0]);
        assert_eq!(pacer.due(Duration::ZERO), [GROUPS[0]]);
        pacer.began(GROUPS[0]);
        pacer.soon(GROUPS[0]);
        assert_eq!(pacer.due(Duration::ZERO), []);
        pacer.ended(GROUPS[0]);
        assert_eq!(pacer.due(Duration::ZERO), [GROUPS[0]]);
    }

    /// A node told to stop under load had always one more checkpoint due when the last one was written,
    /// until its time to stop was over and it was killed.
    #[test]
    fn under_load_a_stop_takes_one_last_checkpoint_of_each_group() {
        let mut pacer = pacer();
        pacer.soon(GROUPS[0]);
        assert_eq!(pacer.due(Duration::ZERO), [GROUPS[0]]);
        pacer.began(GROUPS[0]);
        pacer.finish();
        let mut taken = Vec::new();
        for round in 0..10 {
            for group in GROUPS {
                pacer.applied(group, 10 * PACE.bytes);
            }
            for group in pacer.due(Duration::from_secs(round * 60)) {
                pacer.began(group);
                taken.push(group);
            }
            assert_eq!(pacer.is_finished(), round > 2, "round {round}");
            if round < 2 {
                pacer.ended(GROUPS[0]);
            }
            if round == 2 {
                GROUPS.iter().for_each(|group| pacer.ended(*group));
            }
        }
        taken.sort();
        assert_eq!(taken, GROUPS);
    }
}
