//! From what a replica's files say to a running raft, or to the reason why it must not run.
//!
//! Amnesia is looked for here: a log that lost its end would let the replica vote twice, or count as a
//! copy of entries that it no longer has. What is looked at, and which evidence keeps a replica from
//! running, is one table ([`table`]). The votes can never be ahead of the raft log by themselves, because
//! the log is synced *before* the votes file.
//!
//! Evidence that only peers have is looked for in [`check`](super::check).

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::eraftpb::HardState;
use raft::{Config, RawNode, ReadOnlyOption};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{NodeId, RaftIndex, ReplicaId, Term};

use super::config::{CheckpointFacts, CoreLimits, ReplicaStart, Ticks};
use super::error::HaltReason;
use super::logging::raft_logger;
use super::members::{check_members, conf_state};
use super::store::ReplicaStore;
use super::terms::Terms;
use crate::raft_log::{RaftLog, Span};

pub(super) mod table;

use table::{Join, State, Verdict, Voted, decide};

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
    let terms = terms(start);
    check(start, &terms)?;
    let hard_state = hard_state(start);
    let conf = conf_state(&start.checkpoint.members);
    let durable_vote = (hard_state.term, hard_state.vote);
    let mut store = ReplicaStore::new(group, log, conf, hard_state, terms);
    store.members_changed(start.checkpoint.applied.index.get());
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

fn count(ticks: u32) -> usize {
    usize::try_from(ticks).unwrap_or(usize::MAX)
}

/// Who belongs to the group. A blank replica knows nobody, and learns it from its snapshot.
fn members(start: &ReplicaStart) -> Result<BTreeMap<ReplicaId, NodeId>, HaltReason> {
    if start.is_blank() {
        return Ok(BTreeMap::new());
    }
    let bad = |found: String| HaltReason::BadMembers { group: start.group, found };
    let facts = &start.checkpoint.members;
    check_members(facts).map_err(bad)?;
    // With a log of its own it was removed: it stands for no election, but somebody who does not know that the
    // removal is committed may still need its vote, and it can vouch for its log.
    if !facts.contains(start.replica) && start.log.span.is_none() {
        return Err(bad(format!("{facts:?} lack replica {} of this node", start.replica)));
    }
    let placed = facts.replicas.iter().filter(|(replica, _)| facts.contains(*replica));
    Ok(placed.copied().collect())
}

/// The terms of what the raft log holds, on the entry before it as a base.
fn terms(start: &ReplicaStart) -> Terms {
    let (applied, log) = (start.checkpoint.applied, &start.log);
    // What a blank replica's log may hold is of no use without a checkpoint, and goes with the first snapshot.
    let Some(span) = log.span.filter(|_| !start.is_blank()) else { return Terms::new(applied) };
    // The entry before the first may be of unknown term: then the first itself serves as the base.
    let base = if span.first > applied.index {
        applied
    } else {
        EntryId { index: span.first, term: log.term(span.first).unwrap_or(Term(0)) }
    };
    Terms::loaded(base, &log.terms, span.last)
}

/// The row that decides about a start.
#[cfg(test)]
pub(super) fn row_of(start: &ReplicaStart) -> &'static table::Row {
    let last = terms(start).last();
    decide(join(start, last), state(start, last), voted(start))
}

fn join(start: &ReplicaStart, last: EntryId) -> Join {
    let CheckpointFacts { applied, last_durable: durable, .. } = start.checkpoint;
    if start.log.replica.is_some_and(|replica| replica != start.replica) {
        return Join::Others;
    }
    if start.log.install.is_some() {
        return Join::Marked;
    }
    if start.is_blank() {
        return Join::Blank;
    }
    let Some(span) = start.log.span else {
        return if durable > applied { Join::Emptied } else { Join::Empty };
    };
    if span.first.get() > applied.index.get().saturating_add(1) {
        Join::BeginsLate
    } else if span.last < applied.index {
        Join::EndsEarly
    } else if span.first <= applied.index && start.log.term(applied.index) != Some(applied.term) {
        Join::OtherTerm
    } else if (last.term, last.index) < (durable.term, durable.index) {
        // Entries that were durable and not committed may have been replaced, but only by a later term.
        Join::LostDurable
    } else {
        Join::Whole
    }
}

fn state(start: &ReplicaStart, last: EntryId) -> State {
    let written = &start.log.hard_state;
    if written.commit > last.index.get() {
        State::CommitBeyond
    } else if written.term < last.term.get() && !is_genesis(start) {
        State::TermBehind
    } else {
        State::Fits
    }
}

/// Nothing was ever written to the raft log: what was applied is what the group began with. Whoever applied more had a term
/// written first, so without one the raft log has forgotten.
fn is_genesis(start: &ReplicaStart) -> bool {
    start.log.span.is_none() && start.checkpoint.applied.index.get() <= 1
}

fn voted(start: &ReplicaStart) -> Voted {
    let written = &start.log.hard_state;
    // What an older replica of the group has voted on this node says nothing of this one.
    let own = start.vote.filter(|vote| vote.replica == start.replica);
    let Some(vote) = own else { return Voted::Known };
    let voted = vote.vote.map_or(0, ReplicaId::get);
    if vote.term.get() > written.term {
        Voted::Later
    } else if vote.term.get() == written.term && voted != 0 && voted != written.vote {
        Voted::Other
    } else {
        Voted::Known
    }
}

/// Lets the replica run, or says why not.
fn check(start: &ReplicaStart, terms: &Terms) -> Result<(), HaltReason> {
    let (group, log) = (start.group, &start.log);
    let CheckpointFacts { applied, last_durable, .. } = start.checkpoint;
    let span = log.span.unwrap_or(Span { first: RaftIndex::ZERO, last: RaftIndex::ZERO });
    let last = terms.last();
    let (join, state) = (join(start, last), state(start, last));
    let row = decide(join, state, voted(start));
    #[cfg(feature = "defects")]
    if crate::defects::plays(crate::defects::Defect::CountAmnesiac) && row.verdict != Verdict::FinishInstall {
        return Ok(());
    }
    let reason = match row.verdict {
        Verdict::Run => return Ok(()),
        Verdict::KeepApart => {
            HaltReason::OthersLog { group, expected: start.replica, found: log.replica.unwrap_or_default() }
        }
        Verdict::FinishInstall => {
            let index = log.install.map_or(RaftIndex::ZERO, |mark| mark.index);
            HaltReason::InstallUnfinished { group, index }
        }
        Verdict::GapBefore => HaltReason::LogBeginsLate { group, applied: applied.index, first: span.first },
        Verdict::EntryMissing => {
            let (expected, found) = match join {
                Join::EndsEarly => (applied, format!("ends at entry {}", span.last)),
                Join::OtherTerm => {
                    (applied, format!("has that entry with term {:?}", log.term(applied.index)))
                }
                Join::Emptied => (last_durable, "is empty".to_owned()),
                Join::LostDurable
                | Join::Others
                | Join::Marked
                | Join::Blank
                | Join::Empty
                | Join::BeginsLate
                | Join::Whole => (last_durable, format!("ends with entry {last}")),
            };
            HaltReason::DurableEntryMissing { group, expected, found }
        }
        Verdict::StateMismatch => {
            let written = &log.hard_state;
            let (field, found, expected) = match state {
                State::CommitBeyond => ("commit", written.commit, last.index.get()),
                State::TermBehind | State::Fits => ("term", written.term, last.term.get()),
            };
            HaltReason::HardStateMismatch { group, field, found, expected }
        }
        Verdict::VoteLost => {
            let vote_term = start.vote.map_or(Term::ZERO, |vote| vote.term);
            HaltReason::VotesAhead { group, vote_term, log_term: Term(log.hard_state.term) }
        }
    };
    tracing::warn!(row = row.name, "{reason}");
    Err(reason)
}

/// What raft begins with: at least what the checkpoint knows.
fn hard_state(start: &ReplicaStart) -> HardState {
    let applied = start.checkpoint.applied;
    let mut hard_state = start.log.hard_state.clone();
    if hard_state.term < applied.term.get() {
        hard_state.term = applied.term.get();
        hard_state.vote = 0;
    }
    hard_state.commit = hard_state.commit.max(applied.index.get());
    if start.is_blank() {
        hard_state.commit = 0;
    }
    hard_state
}

/// The index of an entry, for raft's plain numbers.
pub(super) const fn entry_id(index: u64, term: u64) -> EntryId {
    EntryId { index: RaftIndex(index), term: Term(term) }
}
