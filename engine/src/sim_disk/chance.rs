//! Random choices of the simulated disk: a seed is a run. (SplitMix64: small, and good enough here.)

#[derive(Clone, Debug)]
pub(super) struct Chance {
    state: u64,
}

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..=last`.
    pub(super) const fn up_to(&mut self, last: u64) -> u64 {
        let drawn = self.draw();
        match last.checked_add(1) {
            Some(count) => drawn.wrapping_rem(count),
            None => drawn,
        }
    }

    /// True one time in `count`.
    pub(super) const fn one_in(&mut self, count: u64) -> bool {
        self.up_to(count.saturating_sub(1)) == 0
    }
}
