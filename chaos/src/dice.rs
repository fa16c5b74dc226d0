//! Choices that follow from a seed (SplitMix64: small, and good enough here).
//!
//! The same seed draws the same faults in the same order. Real processes do not take the same time twice, so a seed repeats
//! what was done to a cluster, not what came of it.

use std::time::Duration;

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Choices that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A source of its own: what it draws changes nothing here.
    pub const fn split(&mut self) -> Self {
        Self::new(self.draw())
    }

    /// One of `0..count`; 0 if there is none.
    pub fn below(&mut self, count: u64) -> u64 {
        self.draw().checked_rem(count).unwrap_or(0)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A time between the two, in milliseconds.
    pub fn between_ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least.saturating_add(self.below(most.saturating_sub(least).saturating_add(1))))
    }

    /// One of `choices`, unless there are none.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> Option<T> {
        let count = u64::try_from(choices.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(self.below(count)).unwrap_or(usize::MAX);
        choices.get(index).cloned()
    }

    /// The same in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let count = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
            let other = usize::try_from(self.below(count)).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_and_another_draws_otherwise() {
        let draws = |seed| {
            let mut dice = Dice::new(seed);
            let mut order: Vec<u8> = (0..50).collect();
            dice.shuffle(&mut order);
            (order, dice.between_ms(10, 20), dice.pick(&[1, 2, 3]))
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7).0, draws(8).0);
    }

    #[test]
    fn whatever_is_drawn_is_within_its_bounds() {
        let mut dice = Dice::new(1);
        for _ in 0..1000 {
            assert!(dice.below(3) < 3);
            let time = dice.between_ms(10, 12);
            assert!((10..=12).contains(&time.as_millis()));
        }
        assert_eq!(dice.pick::<u8>(&[]), None);
        assert_eq!(dice.below(0), 0);
    }
}
