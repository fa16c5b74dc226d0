//! From what a replica's files say to a running raft, or to the reason why it must not run.
//!
//! Amnesia is looked for here: a log that lost its end would let the replica vote twice, or count as a
//! copy of entries that it no longer has. Evidence, each with its own [`HaltReason`]:
//! - an install mark that nobody finished;
//! - a durable vote that the raft log does not know: the log is synced *before* the votes file, so
//!   the votes can never be ahead by themselves;
//! - a checkpoint that has applied, or had seen durable, entries which the log neither holds nor has
//!   replaced by entries of a later term;
//! - a log that begins behind the checkpoint's end, or a hard state beyond its entries.
//!
//! Evidence that only peers have is looked for in [`check`](super::check).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::eraftpb::{ConfState, HardState};
use raft::{Config, RawNode, ReadOnlyOption};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::check::MEMBERS_MAX;
use super::config::{CheckpointFacts, CoreLimits, ReplicaStart, Ticks};
use super::error::HaltReason;
use super::logging::raft_logger;
use super::store::ReplicaStore;
use super::terms::Terms;
use crate::raft_log::{GroupLog, RaftLog};

/// A replica about to run.
pub(super) struct Started {
    pub(super) raw: RawNode<ReplicaStore>,
    pub(super) members: BTreeMap<ReplicaId, NodeId>,
    pub(super) durable_vote: (u64, u64),
}

/// Checks everything, then builds the raft.
pub(super) fn start(
    start: &ReplicaStart,
    log: Arc<dyn RaftLog>,
    ticks: &Ticks,
    limits: &CoreLimits,
) -> Result<Started, HaltReason> {
    let group = start.group;
    let members = members(start)?;
    if let Some(mark) = &start.log.install {
        return Err(HaltReason::InstallUnfinished { group, index: mark.index });
    }
    let terms = terms(group, &start.checkpoint, &start.log)?;
    let hard_state = hard_state(start, &terms)?;
    let conf = conf_state(&start.checkpoint.voters, &start.checkpoint.learners);
    let durable_vote = (hard_state.term, hard_state.vote);
    let store = ReplicaStore::new(group, log, conf, hard_state, terms);
    let config = Config {
        id: start.replica.get(),
        election_tick: count(ticks.election_min),
        heartbeat_tick: count(ticks.heartbeat),
        applied: start.checkpoint.applied.index.get(),
        max_size_per_msg: limits.message_bytes_max,
        max_inflight_msgs: limits.inflight_max,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: count(ticks.election_min),
        max_election_tick: count(ticks.election_max).saturating_add(1),
        read_only_option: ReadOnlyOption::Safe,
        skip_bcast_commit: false,
        // It would merge messages beyond every size limit.
        batch_append: false,
        priority: 0,
        max_uncommitted_size: limits.uncommitted_bytes_max,
        max_committed_size_per_ready: limits.committed_bytes_per_ready_max,
    };
    let raw = RawNode::new(&config, store, &raft_logger(group))
        .map_err(|error| HaltReason::BadMembers { group, found: error.to_string() })?;
    Ok(Started { raw, members, durable_vote })
}

/// raft's form of the members.
pub(super) fn conf_state(voters: &[ReplicaId], learners: &[ReplicaId]) -> ConfState {
    let numbers = |ids: &[ReplicaId]| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
    let mut conf = ConfState::default();
    conf.set_voters(numbers(voters));
    conf.set_learners(numbers(learners));
    conf
}

fn count(ticks: u32) -> usize {
    usize::try_from(ticks).unwrap_or(usize::MAX)
}

fn members(start: &ReplicaStart) -> Result<BTreeMap<ReplicaId, NodeId>, HaltReason> {
    let bad = |found: String| HaltReason::BadMembers { group: start.group, found };
    let facts = &start.checkpoint;
    let listed: Vec<_> = facts.voters.iter().chain(&facts.learners).copied().collect();
    let distinct: BTreeSet<_> = listed.iter().copied().collect();
    let placed: BTreeMap<_, _> = facts.replicas.iter().copied().collect();
    if facts.voters.is_empty() || distinct.len() != listed.len() || listed.len() > MEMBERS_MAX {
        return Err(bad(format!("{listed:?} are none, too many, or named twice")));
    }
    if !distinct.contains(&start.replica) || distinct.contains(&ReplicaId(0)) {
        return Err(bad(format!(
            "{listed:?} lack replica {} of this node, or name replica 0",
            start.replica
        )));
    }
    if let Some(lost) = distinct.iter().find(|id| !placed.contains_key(id)) {
        return Err(bad(format!("replica {lost} is on no node")));
    }
    Ok(placed.into_iter().filter(|(id, _)| distinct.contains(id)).collect())
}

fn terms(group: GroupId, facts: &CheckpointFacts, log: &GroupLog) -> Result<Terms, HaltReason> {
    let applied = facts.applied;
    let missing =
        |expected: EntryId, found: String| HaltReason::DurableEntryMissing { group, expected, found };
    let Some(span) = log.span else {
        if facts.last_durable > applied {
            return Err(missing(facts.last_durable, "is empty".to_owned()));
        }
        return Ok(Terms::new(applied));
    };
    if span.first.get() > applied.index.get().saturating_add(1) {
        return Err(HaltReason::LogBeginsLate { group, applied: applied.index, first: span.first });
    }
    if span.last < applied.index {
        return Err(missing(applied, format!("ends at entry {}", span.last)));
    }
    // The entry before the first may be of unknown term: then the first itself serves as the base.
    let base = if span.first > applied.index {
        applied
    } else {
        let held = log.term(applied.index);
        if held != Some(applied.term) {
            return Err(missing(applied, format!("has that entry with term {held:?}")));
        }
        EntryId { index: span.first, term: log.term(span.first).unwrap_or(Term(0)) }
    };
    let terms = Terms::loaded(base, &log.terms, span.last);
    // Entries that were durable and not committed may have been replaced, but only by a later term.
    let last = terms.last();
    let durable = facts.last_durable;
    if (last.term, last.index) < (durable.term, durable.index) {
        return Err(missing(durable, format!("ends with entry {last}")));
    }
    Ok(terms)
}

fn hard_state(start: &ReplicaStart, terms: &Terms) -> Result<HardState, HaltReason> {
    let group = start.group;
    let written = &start.log.hard_state;
    let applied = start.checkpoint.applied;
    let last = terms.last();
    if written.commit > last.index.get() {
        let expected = last.index.get();
        return Err(HaltReason::HardStateMismatch {
            group,
            field: "commit",
            found: written.commit,
            expected,
        });
    }
    if start.log.span.is_some() && written.term < last.term.get() {
        let expected = last.term.get();
        return Err(HaltReason::HardStateMismatch { group, field: "term", found: written.term, expected });
    }
    if let Some(vote) = &start.vote {
        let voted = vote.vote.map_or(0, ReplicaId::get);
        let same_term_other_vote = vote.term.get() == written.term && voted != 0 && voted != written.vote;
        if vote.term.get() > written.term || same_term_other_vote {
            let log_term = Term(written.term);
            return Err(HaltReason::VotesAhead { group, vote_term: vote.term, log_term });
        }
    }
    let mut hard_state = written.clone();
    if hard_state.term < applied.term.get() {
        hard_state.term = applied.term.get();
        hard_state.vote = 0;
    }
    hard_state.commit = hard_state.commit.max(applied.index.get());
    Ok(hard_state)
}

/// The index of an entry, for raft's plain numbers.
pub(super) const fn entry_id(index: u64, term: u64) -> EntryId {
    EntryId { index: RaftIndex(index), term: Term(term) }
}
