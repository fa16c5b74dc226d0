//! Rounds of read-index, and who waits for them.
//!
//! All reads that arrive between two readies share one round. Its context names replica, boot epoch
//! and round, so that neither another replica's round nor one of an earlier life of this node is
//! taken for it: the index of an old round would let a read miss what was acknowledged since.
//!
//! raft drops a round silently when there is no leader, or the leader has not committed in its term.
//! The caller asks again by deadline; here the oldest rounds give way to new ones.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_wire::ids::{BootEpoch, ReplicaId};

use super::io::Token;

/// Bytes of a round's context.
pub(super) const READ_CONTEXT_BYTES: usize = 24;

/// The rounds of one replica.
#[derive(Debug)]
pub(super) struct Reads {
    replica: ReplicaId,
    boot: BootEpoch,
    next: u64,
    waiting: Vec<Token>,
    rounds: BTreeMap<u64, Vec<Token>>,
    rounds_max: usize,
}

impl Reads {
    pub(super) const fn new(replica: ReplicaId, boot: BootEpoch, rounds_max: usize) -> Self {
        Self { replica, boot, next: 0, waiting: Vec::new(), rounds: BTreeMap::new(), rounds_max }
    }

    /// `token` will be part of the next round.
    pub(super) fn ask(&mut self, token: Token) {
        self.waiting.push(token);
    }

    pub(super) const fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether anybody waits for an answer.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || !self.rounds.is_empty()
    }

    /// Begins a round for all that wait: its context, or `None` if nobody does.
    pub(super) fn begin(&mut self) -> Option<Bytes> {
        if self.waiting.is_empty() {
            return None;
        }
        let round = self.next;
        self.next = self.next.wrapping_add(1);
        self.rounds.insert(round, std::mem::take(&mut self.waiting));
        while self.rounds.len() > self.rounds_max {
            self.rounds.pop_first();
        }
        let mut context = Vec::with_capacity(READ_CONTEXT_BYTES);
        context.extend_from_slice(&self.replica.get().to_le_bytes());
        context.extend_from_slice(&self.boot.get().to_le_bytes());
        context.extend_from_slice(&round.to_le_bytes());
        Some(context.into())
    }

    /// The round with this context is answered: who waited for it?
    pub(super) fn answered(&mut self, context: &[u8]) -> Vec<Token> {
        let (Some(replica), Some(boot), Some(round)) =
            (number(context, 0), number(context, 8), number(context, 16))
        else {
            return Vec::new();
        };
        if replica != self.replica.get() || boot != self.boot.get() {
            return Vec::new();
        }
        self.rounds.remove(&round).unwrap_or_default()
    }

    /// Nobody waits for `token` any more.
    pub(super) fn forget(&mut self, token: Token) {
        self.waiting.retain(|held| *held != token);
        self.rounds.retain(|_, tokens| {
            tokens.retain(|held| *held != token);
            !tokens.is_empty()
        });
    }

    /// Everyone who waits.
    pub(super) fn drain(&mut self) -> Vec<Token> {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(std::mem::take(&mut self.rounds).into_values().flatten());
        all
    }
}

fn number(context: &[u8], at: usize) -> Option<u64> {
    if context.len() != READ_CONTEXT_BYTES {
        return None;
    }
    let bytes = context.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_an_earlier_life_is_not_taken_for_one_of_this() {
        let mut before = Reads::new(ReplicaId(1), BootEpoch(4), 8);
        before.ask(Token(1));
        let stale = before.begin().unwrap();
        let mut now = Reads::new(ReplicaId(1), BootEpoch(5), 8);
        now.ask(Token(2));
        now.ask(Token(3));
        let context = now.begin().unwrap();
        assert_eq!(now.begin(), None);
        assert_eq!(now.answered(&stale), []);
        assert_eq!(now.answered(&context), [Token(2), Token(3)]);
        assert_eq!(now.answered(&context), [], "only once");
        assert_eq!(now.answered(b"short"), []);
    }

    #[test]
    fn rounds_without_answer_give_way() {
        let mut reads = Reads::new(ReplicaId(1), BootEpoch(1), 2);
        let contexts: Vec<_> = (0..3)
            .map(|n| {
                reads.ask(Token(n));
                reads.begin().unwrap()
            })
            .collect();
        assert_eq!(reads.answered(&contexts[0]), []);
        assert_eq!(reads.answered(&contexts[2]), [Token(2)]);
    }
}
