//! From what the catalogue intends to what groups must still do: a pure function.
//!
//! 1. For each group that this node leads: open the logs of channels being created that are not open
//!    there, and close the generations being deleted that are not closed there.
//! 2. If this node leads the meta group too: report the channels whose logs are all open, or all closed.
//!
//! It looks only at what is applied **here**, which is committed, so what it sees done is done for ever.
//! What it sees not done may be done already: every proposal is idempotent, so proposing once too often
//! costs an entry and nothing else. Each call proposes a bounded number of things; the next call goes on.
//!
//! Not here: when to call it, and that a proposal which is still on its way is not repeated at once.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_wire::ids::{Generation, GroupId, LeaderEpoch, LogId};

use super::catalogue::Catalogue;
use super::channel::{Channel, ChannelState};
use crate::entry::{Command, LOGS_PER_ENTRY_MAX, MetaCommand, OpenLog};

/// Most reports to the meta group in one call.
pub const MARKS_MAX: usize = 256;

/// What a group has done so far, as applied on this node.
pub trait GroupProgress {
    /// Whether the log is open.
    fn is_open(&self, group: GroupId, log: LogId) -> bool;
    /// The generation's last leader epoch, if all of its logs in the group are closed for ever.
    fn closed(&self, group: GroupId, generation: Generation) -> Option<LeaderEpoch>;
}

/// What to propose, and to which group, on a node that leads `leading`.
#[must_use]
pub fn reconcile(
    catalogue: &Catalogue,
    progress: &impl GroupProgress,
    leading: &BTreeSet<GroupId>,
) -> Vec<(GroupId, Command)> {
    let mut wanted = Wanted::default();
    for channel in catalogue.channels() {
        match channel.state {
            ChannelState::Creating => wanted.see_creating(channel, progress, leading),
            ChannelState::Deleting => wanted.see_deleting(channel, progress, leading),
            ChannelState::Active | ChannelState::Deleted => {}
        }
    }
    wanted.into_commands()
}

#[derive(Default)]
struct Wanted {
    open: BTreeMap<GroupId, Vec<OpenLog>>,
    close: BTreeMap<GroupId, Vec<Generation>>,
    marks: Vec<MetaCommand>,
}

impl Wanted {
    fn see_creating(
        &mut self,
        channel: &Channel,
        progress: &impl GroupProgress,
        leading: &BTreeSet<GroupId>,
    ) {
        let mut all_open = true;
        for (log, group) in channel.logs() {
            if progress.is_open(group, log) {
                continue;
            }
            all_open = false;
            if leading.contains(&group) {
                let open =
                    OpenLog { log, segment_bytes: channel.segment_bytes, epoch_base: channel.epoch_base };
                push_bounded(self.open.entry(group).or_default(), LOGS_PER_ENTRY_MAX, open);
            }
        }
        if all_open && leading.contains(&GroupId::META) {
            let mark = MetaCommand::MarkActive { generation: channel.generation };
            push_bounded(&mut self.marks, MARKS_MAX, mark);
        }
    }

    fn see_deleting(
        &mut self,
        channel: &Channel,
        progress: &impl GroupProgress,
        leading: &BTreeSet<GroupId>,
    ) {
        let generation = channel.generation;
        let groups: BTreeSet<GroupId> = channel.groups.iter().copied().collect();
        let mut last_epoch = Some(LeaderEpoch(channel.epoch_base));
        for group in groups {
            let closed = progress.closed(group, generation);
            if closed.is_none() && leading.contains(&group) {
                push_bounded(self.close.entry(group).or_default(), LOGS_PER_ENTRY_MAX, generation);
            }
            last_epoch = last_epoch.zip(closed).map(|(highest, closed)| highest.max(closed));
        }
        if let Some(last_epoch) = last_epoch.filter(|_| leading.contains(&GroupId::META)) {
            push_bounded(&mut self.marks, MARKS_MAX, MetaCommand::MarkDeleted { generation, last_epoch });
        }
    }

    fn into_commands(self) -> Vec<(GroupId, Command)> {
        let open = self.open.into_iter().map(|(group, logs)| (group, Command::OpenLogs { logs }));
        let close =
            self.close.into_iter().map(|(group, generations)| (group, Command::CloseLogs { generations }));
        let marks = self.marks.into_iter().map(|mark| (GroupId::META, Command::Meta(mark)));
        open.chain(close).chain(marks).collect()
    }
}

fn push_bounded<T>(items: &mut Vec<T>, max: usize, item: T) {
    if items.len() < max {
        items.push(item);
    }
}

#[cfg(test)]
mod tests;
