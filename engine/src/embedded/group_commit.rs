//! Group commit: threads that want batches durable at the same time share one write and one sync.
//!
//! 1. Each puts its wish into the queue. Who finds nobody leading leads; the others wait, each at a
//!    bell of its own.
//! 2. The leader takes the whole queue as its group, writes the batches in it with one call, and syncs.
//!    Meanwhile the next group gathers: the more threads wait, the more one sync serves. Nobody waits
//!    for company.
//! 3. When its group is dropped each of it is told, and then the lead goes to the first who came meanwhile.
//!    Each is woken once, with the outcome in its hand: nobody wakes to find that it was not meant. In this
//!    order those who were told first may be back with their next wish before the next group is closed.
//!    How much that helps has not been shown: on busy processors the two orders could not be told apart.
//!
//! A leader that panics drops its group too: nobody waits for ever, whoever did not fail already is told that
//! what became of its batch is not known, and somebody else leads. Who lends the leader its task fences the log.
//!
//! Nothing is allocated for a wish once as many threads as ever wait at once have waited: bells and the
//! queue are used again.
//!
//! Not here: what a group is written with and how it is synced (`crate::embedded`).

use std::io;
use std::path::PathBuf;

use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{LogId, TimestampMs};

use crate::embedded::EmbeddedError;
use crate::locks::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::log::{AppendError, Appended, SyncError};

/// Bells kept for threads to come.
const SPARE_BELLS_MAX: usize = 256;

/// What became of a wish: where its batch stands, if it had one.
pub(crate) type Outcome = Result<Option<Appended>, EmbeddedError>;

/// What one thread wants to be durable.
#[derive(Debug)]
pub(crate) struct Wish {
    /// A batch and the time of its append. `None`: whatever was appended before.
    pub(crate) batch: Option<(Batch, TimestampMs)>,
    /// What came of it; `None` until the leader knows.
    pub(crate) outcome: Option<Outcome>,
    bell: Arc<Bell>,
}

/// Where one thread waits.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    call: Option<Call>,
    waited_for: bool,
}

#[derive(Debug)]
enum Call {
    Lead,
    Told(Outcome),
}

/// The threads that wait for a log.
#[derive(Debug)]
pub(crate) struct Queue {
    log: LogId,
    /// The log's directory.
    path: Arc<PathBuf>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wishes: Vec<Wish>,
    /// Somebody leads. If nobody does, nobody waits.
    led: bool,
    spare_wishes: Vec<Wish>,
    spare_bells: Vec<Arc<Bell>>,
}

/// The wishes that one write and one sync serve. Dropping it ends the lead.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    queue: &'a Queue,
    pub(crate) wishes: Vec<Wish>,
}

impl Queue {
    pub(crate) fn new(log: LogId, path: Arc<PathBuf>) -> Self {
        Self { log, path, waiting: Mutex::default() }
    }

    /// What those are told of whom nobody knows whether their batch is on the disk.
    pub(crate) fn unknown(&self) -> EmbeddedError {
        let source = io::Error::other("the write or sync that served this one among others failed");
        SyncError::Failed { path: self.path.to_path_buf(), action: "make durable", source }.into()
    }

    /// Waits until `batch`, or what was appended before, is durable or is known not to be. If it falls to
    /// this thread to lead, `lead` is called once to give every wish of a group its outcome.
    pub(crate) fn wish(
        &self,
        batch: Option<(&Batch, TimestampMs)>,
        lead: impl FnOnce(&mut Group<'_>),
    ) -> Outcome {
        let (bell, leads) = self.enter(batch);
        let outcome = if leads { None } else { bell.wait() };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                let mut group = self.group();
                lead(&mut group);
                drop(group);
                // The leader's own wish is the first of its group, so it was told just now.
                bell.wait().unwrap_or(Err(AppendError::Fenced { log: self.log }.into()))
            }
        };
        let mut waiting = self.waiting();
        if waiting.spare_bells.len() < SPARE_BELLS_MAX {
            waiting.spare_bells.push(bell);
        }
        outcome
    }

    /// Puts a wish into the queue, and says whether who made it leads.
    fn enter(&self, batch: Option<(&Batch, TimestampMs)>) -> (Arc<Bell>, bool) {
        let mut waiting = self.waiting();
        let bell = waiting.spare_bells.pop().unwrap_or_default();
        let batch = batch.map(|(batch, now)| (batch.clone(), now));
        waiting.wishes.push(Wish { batch, outcome: None, bell: Arc::clone(&bell) });
        let leads = !waiting.led;
        waiting.led = true;
        (bell, leads)
    }

    /// A group of wishes for which nobody waits.
    #[cfg(test)]
    pub(crate) fn group_of(&self, batches: &[Option<(&Batch, TimestampMs)>]) -> Group<'_> {
        for batch in batches {
            self.enter(*batch);
        }
        self.group()
    }

    fn group(&self) -> Group<'_> {
        let mut waiting = self.waiting();
        let next = std::mem::take(&mut waiting.spare_wishes);
        Group { queue: self, wishes: std::mem::replace(&mut waiting.wishes, next) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        // What was written before a panic is not known to be durable.
        let panicking = std::thread::panicking();
        for wish in self.wishes.drain(..) {
            let outcome = wish.outcome.filter(|outcome| !panicking || outcome.is_err());
            wish.bell.ring(Call::Told(outcome.unwrap_or_else(|| Err(self.queue.unknown()))));
        }
        let mut waiting = self.queue.waiting();
        waiting.spare_wishes = std::mem::take(&mut self.wishes);
        let next = waiting.wishes.first().map(|wish| Arc::clone(&wish.bell));
        waiting.led = next.is_some();
        drop(waiting);
        if let Some(next) = next {
            next.ring(Call::Lead);
        }
    }
}

impl Bell {
    fn ring(&self, call: Call) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.call = Some(call);
        let waited_for = state.waited_for;
        drop(state);
        // Ringing asks the system, whether anybody hears or not; a leader's own bell is never waited at.
        if waited_for {
            self.rung.notify_one();
        }
    }

    /// Waits for a call. `None`: to lead.
    fn wait(&self) -> Option<Outcome> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            state.waited_for = state.call.is_none();
            match state.call.take() {
                Some(Call::Lead) => return None,
                Some(Call::Told(outcome)) => return Some(outcome),
                None => state = self.rung.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests;
