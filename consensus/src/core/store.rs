//! What raft reads: terms and tail from memory, older entries from the raft log.
//!
//! raft stops the process on most errors of its storage. So none is ever returned but the three it
//! handles: `Compacted` (it then sends a snapshot), `SnapshotTemporarilyUnavailable`, and, only where
//! the context allows it, `LogTemporarilyUnavailable`. Any other failure answers with **no entries**,
//! which every caller in raft takes, and is remembered: the replica takes it up right after and stops
//! before anything that was built on it leaves.
//!
//! Reads for lagging followers have a budget a tick. What exceeds it is put off, not refused: raft
//! is asked again at the next tick.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{GroupId, RaftIndex};

use super::error::HaltReason;
use super::tail::{Tail, entry_bytes};
use super::terms::Terms;
use crate::raft_log::RaftLog;

/// Most reads that are put off at once; raft asks again for what is beyond.
const DEFERRED_MAX: usize = 64;

/// The storage of one replica.
pub(super) struct ReplicaStore {
    group: GroupId,
    log: Arc<dyn RaftLog>,
    pub(super) conf: ConfState,
    hard_state: HardState,
    pub(super) terms: Terms,
    pub(super) tail: Tail,
    pub(super) offer: Option<Snapshot>,
    wants_offer: Cell<bool>,
    /// The last entry that changed the members: a snapshot of an earlier one may lack some.
    members_since: RaftIndex,
    failure: RefCell<Option<HaltReason>>,
    deferred: RefCell<Vec<GetEntriesContext>>,
    budget: Cell<u64>,
}

impl ReplicaStore {
    pub(super) fn new(
        group: GroupId,
        log: Arc<dyn RaftLog>,
        conf: ConfState,
        hard_state: HardState,
        terms: Terms,
    ) -> Self {
        let tail = Tail::new(terms.last_index().saturating_add(1));
        let members_since = terms.base().index;
        Self {
            group,
            log,
            conf,
            hard_state,
            terms,
            tail,
            offer: None,
            wants_offer: Cell::new(false),
            members_since,
            failure: RefCell::new(None),
            deferred: RefCell::new(Vec::new()),
            budget: Cell::new(0),
        }
    }

    /// Takes the entries of a ready, from which moment on they are answered from memory.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        self.terms.replace(entries);
        self.tail.replace(entries);
    }

    /// Begins anew behind a snapshot.
    pub(super) fn restart_at(&mut self, snapshot: EntryId, conf: ConfState) {
        self.terms = Terms::new(snapshot);
        self.tail = Tail::new(snapshot.index.get().saturating_add(1));
        self.conf = conf;
        self.offer = None;
        self.members_since = snapshot.index;
    }

    /// The entry at `index` changed the members.
    pub(super) const fn members_changed(&mut self, index: u64) {
        self.members_since = RaftIndex(index);
    }

    /// Whether there is nothing: no checkpoint was ever applied.
    pub(super) fn is_blank(&self) -> bool {
        self.terms.base().index == RaftIndex::ZERO
    }

    /// A read that failed since the last call.
    pub(super) fn take_failure(&self) -> Option<HaltReason> {
        self.failure.take()
    }

    /// If raft wanted to send a snapshot and none was fit: what one must have applied.
    pub(super) fn take_wants_offer(&self) -> Option<RaftIndex> {
        let at_least = self.terms.base().index.max(self.members_since);
        self.wants_offer.replace(false).then_some(at_least)
    }

    /// Gives the reads of lagging followers a new budget, and returns those that were put off.
    pub(super) fn renew_budget(&self, bytes: u64) -> Vec<GetEntriesContext> {
        self.budget.set(bytes);
        self.deferred.take()
    }

    fn first(&self) -> u64 {
        self.terms.base().index.get().saturating_add(1)
    }

    fn read_log(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>, HaltReason> {
        let unreadable =
            |message: String| HaltReason::LogUnreadable { group: self.group, low: RaftIndex(low), message };
        let entries = self
            .log
            .entries(self.group, RaftIndex(low), RaftIndex(high), bytes_max)
            .map_err(|error| unreadable(error.to_string()))?;
        if entries.is_empty() {
            return Err(unreadable("no entry was returned".to_owned()));
        }
        for (entry, index) in entries.iter().zip(low..) {
            let expected = self.terms.term(index);
            if entry.index != index || expected.is_none_or(|term| term.get() != entry.term) {
                return Err(unreadable(format!(
                    "entry {} of term {} came back for entry {index} of term {expected:?}",
                    entry.index, entry.term
                )));
            }
        }
        Ok(entries)
    }
}

/// Whether a snapshot with these members is fit for `replica`: it would not take one that it is not in.
fn names(conf: &ConfState, replica: u64) -> bool {
    let lists = [&conf.voters, &conf.voters_outgoing, &conf.learners];
    lists.iter().any(|list| list.contains(&replica))
}

impl Storage for ReplicaStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if let Some(entries) = self.tail.slice(low, high, bytes_max) {
            return Ok(entries);
        }
        let may_wait = context.can_async();
        if may_wait && self.budget.get() == 0 {
            let mut deferred = self.deferred.borrow_mut();
            if deferred.len() < DEFERRED_MAX {
                deferred.push(context);
            }
            return Err(StorageError::LogTemporarilyUnavailable.into());
        }
        match self.read_log(low, high.min(self.tail.first()), bytes_max) {
            Ok(entries) => {
                if may_wait {
                    let read = entries.iter().map(entry_bytes).fold(0, u64::saturating_add);
                    self.budget.set(self.budget.get().saturating_sub(read));
                }
                Ok(entries)
            }
            Err(reason) => {
                self.failure.borrow_mut().get_or_insert(reason);
                Ok(Vec::new())
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.terms.term(index) {
            Some(term) => Ok(term.get()),
            None if index < self.first() => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.terms.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let base = self.terms.base().index.get();
        if let Some(offer) = &self.offer
            && offer.get_metadata().index >= base.max(request_index)
            && names(offer.get_metadata().get_conf_state(), to)
        {
            return Ok(offer.clone());
        }
        self.wants_offer.set(true);
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
