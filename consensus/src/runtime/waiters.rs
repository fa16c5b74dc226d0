//! Who waits for which proposal or read, by token.
//!
//! A waiter is entered before its proposal is handed to the core, and leaves exactly once: answered by
//! apply with an outcome, by the core with a reason, or by its own deadline.
//!
//! Not here: when a proposal's fate is known (`crate::core`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidelog_wire::ids::{NodeId, RaftIndex};
use tokio::sync::oneshot;

use crate::core::{ChangeRefusal, ProposeFailure, Token};
use crate::outcome::Outcome;

/// Why a proposal or a read has no outcome. Except where it says so, it never will have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads the group, or none does.
    #[error("this node does not lead the group; it is led by {leader:?}")]
    NotLeader {
        /// Where to try.
        leader: Option<NodeId>,
    },
    /// Another entry was committed in its place.
    #[error("another leader's entry was committed in its place")]
    Superseded,
    /// A limit is reached; try again shortly.
    #[error("as much is waiting as may wait; try again shortly")]
    Busy,
    /// The group is not here, does not take part, or has not settled.
    #[error("the group is not ready on this node")]
    NotReady,
    /// Larger than any entry may be.
    #[error("the entry is larger than any entry may be")]
    TooLarge,
    /// The disk of this node is full; reads, trims and deletions go on.
    #[error("the disk of this node is full")]
    DiskFull,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// Members cannot change in this way, or not now.
    #[error("{0}")]
    Members(ChangeRefusal),
    /// Its time is over, or its fate can no longer be seen from here: **it may or may not have committed**.
    #[error("no answer in time: it may or may not have committed")]
    MayHaveCommitted,
}

impl From<ProposeFailure> for ProposeError {
    fn from(failure: ProposeFailure) -> Self {
        match failure {
            ProposeFailure::NotLeader { leader } => Self::NotLeader { leader },
            ProposeFailure::Superseded => Self::Superseded,
            ProposeFailure::Busy => Self::Busy,
            ProposeFailure::NotReady => Self::NotReady,
            ProposeFailure::TooLarge => Self::TooLarge,
            ProposeFailure::Members(why) => Self::Members(why),
            ProposeFailure::MayHaveCommitted => Self::MayHaveCommitted,
        }
    }
}

/// What a waiter is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The command was applied.
    Outcome(Outcome),
    /// Apply up to here, then read.
    ReadIndex(RaftIndex),
    /// Neither.
    Failed(ProposeError),
}

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<Token, oneshot::Sender<Told>>>,
}

impl Waiters {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<Token, oneshot::Sender<Told>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that nobody had before in this process.
    pub(super) fn token(&self) -> Token {
        Token(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins to wait.
    pub(super) fn enter(&self) -> (Token, oneshot::Receiver<Told>) {
        let token = self.token();
        let (tell, told) = oneshot::channel();
        self.locked().insert(token, tell);
        (token, told)
    }

    /// Tells whoever waits for `token`; nobody may.
    pub(super) fn tell(&self, token: Token, told: Told) {
        let waiter = self.locked().remove(&token);
        if let Some(waiter) = waiter {
            // An error says that the waiter has gone meanwhile.
            drop(waiter.send(told));
        }
    }

    /// Stops waiting; whether somebody still did.
    pub(super) fn leave(&self, token: Token) -> bool {
        self.locked().remove(&token).is_some()
    }

    /// Tells everybody.
    pub(super) fn tell_all(&self, error: ProposeError) {
        for (_, waiter) in std::mem::take(&mut *self.locked()) {
            drop(waiter.send(Told::Failed(error)));
        }
    }
}
