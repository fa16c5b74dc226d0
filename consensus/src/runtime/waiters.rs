//! Who waits for which proposal or read, by token.
//!
//! A waiter is entered before its proposal is handed to the core, and leaves exactly once: answered by
//! apply with an outcome, by the core with a reason, or by its own deadline.
//!
//! Not here: when a proposal's fate is known (`crate::core`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    #[error("as much is waiting as may wait; try again in {retry_after_ms} ms")]
    Busy {
        /// Half of what waits should be done by then.
        retry_after_ms: u32,
    },
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

impl ProposeError {
    /// Busy, where nobody can say for how long.
    pub(super) const fn busy() -> Self {
        Self::Busy { retry_after_ms: RETRY_MS }
    }
}

impl From<ProposeFailure> for ProposeError {
    fn from(failure: ProposeFailure) -> Self {
        match failure {
            ProposeFailure::NotLeader { leader } => Self::NotLeader { leader },
            ProposeFailure::Superseded => Self::Superseded,
            ProposeFailure::Busy => Self::busy(),
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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<Token, oneshot::Sender<Told>>,
    /// Outcomes told so far.
    outcomes: u64,
    /// When the rate was last looked at, and how many outcomes there were then.
    looked: (Duration, u64),
    per_second: u64,
}

/// As many may always wait.
const ALWAYS_MAX: usize = 256;
/// Others may wait if their turn should come within this time.
const WAIT_MAX_MS: u64 = 500;
/// How often the rate is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The hint to whoever is refused: at least and at most.
const RETRY_MS: u32 = 20;
const RETRY_MAX_MS: u32 = 1000;

impl State {
    /// Whether one more may wait now. What is done in half a second is measured all the time, and no more than that may wait: so
    /// whoever is taken is served soon, and memory stays flat, however much is asked for.
    fn admit(&mut self, now: Duration) -> Result<(), ProposeError> {
        let waiting = self.waiting.len();
        if waiting < ALWAYS_MAX {
            return Ok(());
        }
        let (at, outcomes) = self.looked;
        let since = now.saturating_sub(at);
        if since >= LOOK_EVERY {
            let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let rate = self.outcomes.saturating_sub(outcomes).saturating_mul(1000).checked_div(ms);
            self.per_second = rate.unwrap_or_default();
            self.looked = (now, self.outcomes);
        }
        let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
        if waiting < self.per_second.saturating_mul(WAIT_MAX_MS) / 1000 {
            return Ok(());
        }
        let half_ms = waiting.saturating_mul(500) / self.per_second.max(1);
        let retry_after_ms = u32::try_from(half_ms).unwrap_or(u32::MAX).clamp(RETRY_MS, RETRY_MAX_MS);
        Err(ProposeError::Busy { retry_after_ms })
    }
}

impl Waiters {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more append may wait now.
    ///
    /// # Errors
    /// [`ProposeError::Busy`].
    pub(super) fn admit(&self, now: Duration) -> Result<(), ProposeError> {
        self.locked().admit(now)
    }

    /// A token that nobody had before in this process.
    pub(super) fn token(&self) -> Token {
        Token(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins to wait.
    pub(super) fn enter(&self) -> (Token, oneshot::Receiver<Told>) {
        let token = self.token();
        let (tell, told) = oneshot::channel();
        self.locked().waiting.insert(token, tell);
        (token, told)
    }

    /// Tells whoever waits for `token`; nobody may.
    pub(super) fn tell(&self, token: Token, told: Told) {
        let waiter = {
            let mut state = self.locked();
            if matches!(told, Told::Outcome(_)) {
                state.outcomes = state.outcomes.saturating_add(1);
            }
            state.waiting.remove(&token)
        };
        if let Some(waiter) = waiter {
            // An error says that the waiter has gone meanwhile.
            drop(waiter.send(told));
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.locked().waiting.len()
    }

    /// Stops waiting; whether somebody still did.
    pub(super) fn leave(&self, token: Token) -> bool {
        self.locked().waiting.remove(&token).is_some()
    }

    /// Tells everybody.
    pub(super) fn tell_all(&self, error: ProposeError) {
        for (_, waiter) in std::mem::take(&mut self.locked().waiting) {
            drop(waiter.send(Told::Failed(error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `count` times at `now`; how many were taken.
    fn flood(waiters: &Waiters, now: Duration, count: usize) -> Vec<oneshot::Receiver<Told>> {
        let mut taken = Vec::new();
        for _ in 0..count {
            match waiters.admit(now) {
                Ok(()) => taken.push(waiters.enter().1),
                Err(error) => assert!(matches!(error, ProposeError::Busy { .. }), "{error}"),
            }
        }
        taken
    }

    fn serve(waiters: &Waiters, count: usize) {
        for _ in 0..count {
            let next = waiters.locked().waiting.keys().next().copied().unwrap();
            waiters.tell(next, Told::Outcome(Outcome::ProducersExpired));
        }
    }

    /// However much is asked for, no more waits than is done in half a second, and whoever is refused is told when to come
    /// again; when less is asked for, nobody is refused.
    #[test]
    fn no_more_waits_than_is_done_in_half_a_second() {
        let waiters = Waiters::default();
        let mut kept = flood(&waiters, Duration::ZERO, 10_000);
        assert_eq!(kept.len(), ALWAYS_MAX, "nothing is known of the rate yet");
        // 200 outcomes every 100 ms, ten times as many asked for.
        for step in 1..50 {
            serve(&waiters, 200);
            kept.extend(flood(&waiters, Duration::from_millis(100 * step), 2_000));
            assert!(waiters.locked().waiting.len() <= 1_000, "at step {step}");
        }
        assert_eq!(waiters.locked().waiting.len(), 1_000);
        let refused = waiters.admit(Duration::from_millis(4_950)).unwrap_err();
        assert_eq!(refused, ProposeError::Busy { retry_after_ms: 250 });
        serve(&waiters, 900);
        assert_eq!(flood(&waiters, Duration::from_secs(60), 100).len(), 100);
    }
}
