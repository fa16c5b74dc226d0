use std::collections::BTreeMap;

use tidelog_wire::ids::{ChannelUuid, NodeId};

use super::*;
use crate::entry::NewChannel;
use crate::outcome::Outcome;

#[derive(Default)]
struct Done {
    open: BTreeSet<(GroupId, LogId)>,
    closed: BTreeMap<(GroupId, Generation), LeaderEpoch>,
}

impl Done {
    /// What the groups' leaders would do with their proposals.
    fn carry_out(&mut self, catalogue: &mut Catalogue, proposals: Vec<(GroupId, Command)>) {
        for (group, command) in proposals {
            match command.clone() {
                Command::OpenLogs { logs } => {
                    self.open.extend(logs.into_iter().map(|open| (group, open.log)));
                }
                Command::CloseLogs { generations } => {
                    self.closed
                        .extend(generations.into_iter().map(|closed| ((group, closed), LeaderEpoch(5))));
                }
                Command::Meta(command) => assert_eq!(catalogue.apply(command), Outcome::Noted),
                Command::Append { .. }
                | Command::SetLogStart { .. }
                | Command::ExpireProducers { .. }
                | Command::SetCursor { .. }
                | Command::DeleteCursor { .. }
                | Command::RaiseApplyVersion { .. } => {
                    panic!("{command:?}")
                }
            }
        }
    }
}

impl GroupProgress for Done {
    fn is_open(&self, group: GroupId, log: LogId) -> bool {
        self.open.contains(&(group, log))
    }
    fn closed(&self, group: GroupId, generation: Generation) -> Option<LeaderEpoch> {
        self.closed.get(&(group, generation)).copied()
    }
}

fn leading(groups: impl IntoIterator<Item = u64>) -> BTreeSet<GroupId> {
    groups.into_iter().map(GroupId).collect()
}

fn with_channel() -> (Catalogue, Generation) {
    let mut catalogue = Catalogue::genesis(&[GroupId(1), GroupId(2)], &[0, 1, 2].map(NodeId));
    let created = catalogue.apply(MetaCommand::CreateChannels(vec![NewChannel {
        name: "orders".to_owned(),
        uuid: ChannelUuid(1),
        partitions: 3,
        replicas: None,
        segment_bytes: 1 << 20,
    }]));
    let Outcome::ChannelsCreated(created) = created else { panic!("{created:?}") };
    (catalogue, created[0].clone().unwrap())
}

/// A channel goes through its life on nodes that lead one group each: each leader does its part and reports it.
/// Afterwards nothing is left to propose.
#[test]
fn a_channel_is_opened_reported_closed_and_gone() {
    let (mut catalogue, generation) = with_channel();
    let mut done = Done::default();
    assert!(reconcile(&catalogue, &done, &leading([3])).is_empty(), "it carries none of its logs");
    for leader in [1, 2] {
        for step in ["open", "report"] {
            let proposals = reconcile(&catalogue, &done, &leading([leader]));
            assert_eq!(proposals.len(), 1, "group {leader}: {step}");
            done.carry_out(&mut catalogue, proposals);
        }
    }
    assert_eq!(catalogue.channel_of(generation).unwrap().state, ChannelState::Active);
    assert!(reconcile(&catalogue, &done, &leading([0, 1, 2])).is_empty());
    // And the way back.
    catalogue.apply(MetaCommand::DeleteChannels(vec![generation]));
    for leader in [2, 1] {
        for step in ["close", "report"] {
            let proposals = reconcile(&catalogue, &done, &leading([leader]));
            assert_eq!(proposals.len(), 1, "group {leader}: {step}");
            done.carry_out(&mut catalogue, proposals);
        }
    }
    assert_eq!(catalogue.channel_of(generation), None);
    assert!(reconcile(&catalogue, &done, &leading([0, 1, 2])).is_empty());
}

/// The report does not need the group's own leader: what is applied is committed, wherever it is seen.
#[test]
fn the_meta_leader_reports_what_it_sees_applied() {
    let (mut catalogue, generation) = with_channel();
    let mut done = Done::default();
    let opened = reconcile(&catalogue, &done, &leading([1, 2]));
    done.carry_out(&mut catalogue, opened);
    let reports = reconcile(&catalogue, &done, &leading([0]));
    assert_eq!(reports.len(), 2);
    done.carry_out(&mut catalogue, reports);
    assert_eq!(catalogue.channel_of(generation).unwrap().state, ChannelState::Active);
}

/// Deleted before it was ever open: its groups close what they never opened, so that an `OpenLogs`
/// still under way finds the door shut.
#[test]
fn a_channel_deleted_before_it_was_open_is_closed_all_the_same() {
    let (mut catalogue, generation) = with_channel();
    catalogue.apply(MetaCommand::DeleteChannels(vec![generation]));
    let proposals = reconcile(&catalogue, &Done::default(), &leading([0, 1, 2]));
    let close = Command::CloseLogs { generations: vec![generation] };
    assert_eq!(proposals, [(GroupId(1), close.clone()), (GroupId(2), close)]);
}

#[test]
fn a_node_that_leads_nothing_proposes_nothing() {
    let (catalogue, _) = with_channel();
    assert!(reconcile(&catalogue, &Done::default(), &leading([])).is_empty());
}
