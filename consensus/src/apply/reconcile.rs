//! From what the catalogue intends to what groups must still do with their logs: a pure function.
//!
//! For each group that this node leads, and that still owes the catalogue a report:
//! 1. Open the logs of channels being created that are not open there, and close the generations being
//!    deleted that are not closed there.
//! 2. Report the channels whose logs there are all open, or all closed. The report is for the meta group; a node
//!    that does not lead it asks the one that does. A node that leads the meta group reports for each group of
//!    which it has a replica, so one more way is open.
//!
//! It looks only at what is applied **here**, which is committed, so what it sees done is done for ever.
//! What it sees not done may be done already: every proposal is idempotent, so proposing once too often
//! costs an entry and nothing else. Each call proposes a bounded number of things; the next call goes on. It
//! looks at nothing but channels that are being created or deleted: when there are none it costs nothing,
//! however many channels there are.
//!
//! Not here: when to call it, and that a proposal which is still on its way is not repeated at once.

use std::collections::BTreeSet;

use tidelog_wire::ids::{Generation, GroupId, LeaderEpoch, LogId};

use super::catalogue::Catalogue;
use super::channel::{Channel, ChannelState};
use crate::entry::{Command, LOGS_PER_ENTRY_MAX, MetaCommand, OpenLog};

/// Most logs whose producers are expired in one call, of each group.
pub const EXPIRATIONS_MAX: usize = 64;

/// The newest rules of apply that all nodes with a replica of the group know; 0 while one of them has not said.
pub(super) fn version_known(catalogue: &Catalogue, group: GroupId) -> u16 {
    let nodes = catalogue.group(group).into_iter().flat_map(|placement| placement.replicas.values());
    let versions =
        nodes.map(|replica| catalogue.node(replica.node).map_or(0, |record| record.apply_version_max));
    versions.min().unwrap_or(0)
}

/// What a group has done so far, as applied on this node; of a group without a replica here nothing is.
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
    let leads_meta = leading.contains(&GroupId::META);
    let mut commands = Vec::new();
    for group in catalogue.groups_owing() {
        let leads = leading.contains(&group);
        if !leads && !leads_meta {
            continue;
        }
        let mut wanted = Wanted::default();
        for channel in catalogue.owed_by(group) {
            wanted.see(group, channel, progress);
        }
        commands.extend(wanted.into_commands(group, leads));
    }
    commands
}

#[derive(Default)]
struct Wanted {
    open: Vec<OpenLog>,
    close: Vec<Generation>,
    opened: Vec<Generation>,
    closed: Vec<(Generation, LeaderEpoch)>,
}

impl Wanted {
    fn see(&mut self, group: GroupId, channel: &Channel, progress: &impl GroupProgress) {
        match channel.state {
            ChannelState::Creating => self.see_creating(group, channel, progress),
            ChannelState::Deleting => self.see_deleting(group, channel.generation, progress),
            ChannelState::Active | ChannelState::Deleted => {}
        }
    }

    fn see_creating(&mut self, group: GroupId, channel: &Channel, progress: &impl GroupProgress) {
        let mut all_open = true;
        for log in channel.logs_on(group).filter(|log| !progress.is_open(group, *log)) {
            all_open = false;
            let open = OpenLog { log, segment_bytes: channel.segment_bytes, epoch_base: channel.epoch_base };
            push_bounded(&mut self.open, open);
        }
        if all_open {
            push_bounded(&mut self.opened, channel.generation);
        }
    }

    fn see_deleting(&mut self, group: GroupId, generation: Generation, progress: &impl GroupProgress) {
        match progress.closed(group, generation) {
            Some(last_epoch) => push_bounded(&mut self.closed, (generation, last_epoch)),
            None => push_bounded(&mut self.close, generation),
        }
    }

    fn into_commands(self, group: GroupId, leads: bool) -> impl Iterator<Item = (GroupId, Command)> {
        let Self { open, close, opened, closed } = self;
        let open = (leads && !open.is_empty()).then_some(Command::OpenLogs { logs: open });
        let close = (leads && !close.is_empty()).then_some(Command::CloseLogs { generations: close });
        let report = (!opened.is_empty() || !closed.is_empty())
            .then_some(Command::Meta(MetaCommand::ReportLogs { group, opened, closed }));
        let to_group = open.into_iter().chain(close).map(move |command| (group, command));
        to_group.chain(report.map(|report| (GroupId::META, report)))
    }
}

fn push_bounded<T>(items: &mut Vec<T>, item: T) {
    if items.len() < LOGS_PER_ENTRY_MAX {
        items.push(item);
    }
}

#[cfg(test)]
mod tests;
