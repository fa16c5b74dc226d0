//! Which proposals of this node are in the log, and what became of them.
//!
//! A proposal is decided when an entry is **committed** at its index: with its term it is this very
//! entry, with another term it never will be. Losing leadership, or seeing the entry overwritten
//! here, decides nothing: a later leader may still have it.

use std::collections::BTreeMap;

use super::io::Token;

/// Proposals of unknown fate, by (index, term).
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_entry: BTreeMap<(u64, u64), Token>,
    by_token: BTreeMap<Token, (u64, u64)>,
}

/// What the commit of one entry decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    /// The proposal that is this entry.
    pub(super) committed: Option<Token>,
    /// Proposals that wanted its place.
    pub(super) superseded: Vec<Token>,
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.by_entry.len()
    }

    /// `token` names the entry at `index` with `term`.
    pub(super) fn note(&mut self, index: u64, term: u64, token: Token) {
        if let Some(old) = self.by_entry.insert((index, term), token) {
            self.by_token.remove(&old);
        }
        if let Some(old) = self.by_token.insert(token, (index, term)) {
            self.by_entry.remove(&old);
        }
    }

    /// An entry is committed: whom does it concern?
    pub(super) fn decide(&mut self, index: u64, term: u64) -> Decided {
        let mut decided = Decided::default();
        while let Some((&(at, of), &token)) = self.by_entry.first_key_value() {
            if at > index {
                break;
            }
            self.by_entry.remove(&(at, of));
            self.by_token.remove(&token);
            if (at, of) == (index, term) {
                decided.committed = Some(token);
            } else {
                decided.superseded.push(token);
            }
        }
        decided
    }

    /// Everything at or below `index`, whose entries this replica will not see.
    pub(super) fn drain_to(&mut self, index: u64) -> Vec<Token> {
        self.decide(index, u64::MAX).superseded
    }

    /// Nobody waits for `token` any more.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(entry) = self.by_token.remove(&token) {
            self.by_entry.remove(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_proposals_for_one_index_are_told_apart_by_term() {
        let mut tokens = Tokens::default();
        tokens.note(5, 1, Token(10));
        tokens.note(6, 1, Token(11));
        tokens.note(5, 3, Token(12));
        assert_eq!(tokens.decide(4, 1), Decided::default());
        assert_eq!(tokens.decide(5, 3), Decided { committed: Some(Token(12)), superseded: vec![Token(10)] },);
        assert_eq!(tokens.decide(6, 3), Decided { committed: None, superseded: vec![Token(11)] });
        assert_eq!(tokens.len(), 0);
    }

    #[test]
    fn a_forgotten_token_is_not_answered() {
        let mut tokens = Tokens::default();
        tokens.note(5, 1, Token(10));
        tokens.forget(Token(10));
        tokens.forget(Token(99));
        assert_eq!(tokens.decide(5, 1), Decided::default());
    }
}
