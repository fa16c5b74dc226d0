//! What is coming, in words: the plan carried out on a copy of the catalogue, as if every group did at once what is
//! intended.

use std::collections::BTreeSet;

use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId};

use super::plan::plan;
use crate::apply::Catalogue;
use crate::entry::{MetaCommand, Want};

/// Most steps that are looked ahead.
const STEPS_MAX: usize = 4096;

/// The moves that the cluster will make by itself, one a line, if nodes stay as they are. Nothing if it is balanced.
#[must_use]
pub fn rebalance(catalogue: &Catalogue, alive: &BTreeSet<NodeId>) -> Vec<String> {
    let mut ahead = catalogue.clone();
    let mut words = Vec::new();
    for _ in 0..STEPS_MAX {
        carry_out(&mut ahead);
        let commands = plan(&ahead, alive);
        if commands.is_empty() {
            break;
        }
        for command in commands {
            words.extend(in_words(&ahead, &command));
            ahead.apply(command);
        }
    }
    words
}

/// Every group that has ever reported has the members that it should have.
fn carry_out(catalogue: &mut Catalogue) {
    let reports: Vec<MetaCommand> = catalogue
        .groups()
        .filter_map(|(group, placement)| {
            let reported = placement.reported.as_ref()?;
            let of_kind = |kind: Want| -> Vec<ReplicaId> {
                placement.wanted().filter(|(_, replica)| replica.want == kind).map(|(id, _)| id).collect()
            };
            let index = RaftIndex(reported.index.get().saturating_add(1));
            let (voters, learners) = (of_kind(Want::Voter), of_kind(Want::Learner));
            Some(MetaCommand::ReportMembers { group, index, voters, outgoing: Vec::new(), learners })
        })
        .collect();
    for report in reports {
        catalogue.apply(report);
    }
}

fn in_words(catalogue: &Catalogue, command: &MetaCommand) -> Option<String> {
    let name = |group: &GroupId| {
        if *group == GroupId::META { "the meta group".to_owned() } else { format!("group {group}") }
    };
    match command {
        MetaCommand::PlaceReplica { group, node, want } => {
            let present = catalogue.group(*group).is_some_and(|placement| placement.on(*node).is_some());
            Some(match (want, present) {
                (Want::Voter, false) => format!("{}: a new replica on node {node}, to vote", name(group)),
                (Want::Voter, true) => format!("{}: the replica on node {node} votes", name(group)),
                (Want::Learner, false) => format!("{}: a new replica on node {node}, a learner", name(group)),
                (Want::Learner | Want::Gone, _) => {
                    format!("{}: the replica on node {node} votes no more", name(group))
                }
            })
        }
        MetaCommand::RetireReplica { group, replica } => {
            let node = catalogue.group(*group)?.replicas.get(replica)?.node;
            Some(format!("{}: the replica on node {node} goes", name(group)))
        }
        MetaCommand::ForgetNode { node } => Some(format!("node {node} is empty and leaves the cluster")),
        MetaCommand::RegisterNode(_)
        | MetaCommand::JoinNode(_)
        | MetaCommand::DrainNode { .. }
        | MetaCommand::CreateGroup { .. }
        | MetaCommand::ReplaceReplica { .. }
        | MetaCommand::ReportMembers { .. }
        | MetaCommand::ReportLogs { .. }
        | MetaCommand::CreateChannels(_)
        | MetaCommand::DeleteChannels(_)
        | MetaCommand::MintProducer => None,
    }
}
