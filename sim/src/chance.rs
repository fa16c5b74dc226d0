//! All randomness of a run, from one seed. (SplitMix64: small, fast, and good enough to choose faults.)
//!
//! Each part of the world draws from a stream of its own, so that a change in one part does not
//! shift the luck of all others.

/// A stream of choices.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(0x9e37_79b9_7f4a_7c15) }
    }

    /// Another stream, which depends on this one's seed and the label only through this draw.
    pub const fn fork(&mut self, label: u64) -> Self {
        Self::new(self.draw() ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..count`; 0 if `count` is 0.
    pub fn below(&mut self, count: u64) -> u64 {
        self.draw().checked_rem(count).unwrap_or(0)
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low.saturating_add(self.below(span))
    }

    /// True this many times in a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// True one time in `count`.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// One of `choices`; `None` if there is none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let count = u64::try_from(choices.len()).unwrap_or(0);
        choices.get(usize::try_from(self.below(count)).ok()?).copied()
    }

    /// A duration that is mostly near `usual`, and now and then ten or a hundred times longer.
    pub fn duration(&mut self, usual: u64) -> u64 {
        let length = match self.below(100) {
            0 => usual.saturating_mul(100),
            1..=4 => usual.saturating_mul(10),
            _ => usual,
        };
        self.between(length / 2, length.saturating_mul(3) / 2)
    }
}
