//! Which offsets of a log are known to be damaged: rising ranges that neither touch nor overlap.

use std::ops::Range;

use tidelog_wire::ids::Offset;

use crate::storage::Position;

/// Offsets that no good frame of a segment holds, and the bytes of its file in which they would lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) offsets: Range<Offset>,
    pub(crate) bytes: Range<u64>,
}

impl Hole {
    /// From where the last good frame before it ends to where the next one begins.
    pub(crate) const fn between(from: (Offset, Position), to: (Offset, Position)) -> Self {
        Self { offsets: from.0..to.0, bytes: from.1.get()..to.1.get() }
    }
}

/// A set of damaged ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    ranges: Vec<Range<Offset>>,
}

impl Damage {
    /// Adds a range; says whether any of it was not known.
    pub(crate) fn mark(&mut self, range: Range<Offset>) -> bool {
        if range.start >= range.end || self.covers(&range) {
            return false;
        }
        let mut merged = range;
        self.ranges.retain(|known| {
            let apart = known.end < merged.start || merged.end < known.start;
            if !apart {
                merged.start = merged.start.min(known.start);
                merged.end = merged.end.max(known.end);
            }
            apart
        });
        let at = self.ranges.partition_point(|known| known.start < merged.start);
        self.ranges.insert(at, merged);
        true
    }

    fn covers(&self, range: &Range<Offset>) -> bool {
        self.ranges.iter().any(|known| known.start <= range.start && range.end <= known.end)
    }

    /// The range that holds `offset`.
    pub(crate) fn at(&self, offset: Offset) -> Option<Range<Offset>> {
        self.ranges.iter().find(|known| known.contains(&offset)).cloned()
    }

    /// Forgets what lies below `start`, which nobody can ask for any more.
    pub(crate) fn forget_below(&mut self, start: Offset) {
        self.ranges.retain_mut(|known| {
            known.start = known.start.max(start);
            known.start < known.end
        });
    }

    pub(crate) fn ranges(&self) -> Vec<Range<Offset>> {
        self.ranges.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let mut damage = Damage::default();
        assert!(damage.mark(Offset(10)..Offset(20)));
        assert!(damage.mark(Offset(30)..Offset(40)));
        assert!(!damage.mark(Offset(12)..Offset(20)), "known already");
        assert!(damage.mark(Offset(20)..Offset(30)));
        assert_eq!(damage.ranges(), [Offset(10)..Offset(40)]);
        damage.forget_below(Offset(35));
        assert_eq!(damage.ranges(), [Offset(35)..Offset(40)]);
        assert_eq!(damage.at(Offset(40)), None);
    }
}
