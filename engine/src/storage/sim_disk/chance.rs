//! Choices of the simulated disk: drawn from a seed, so that a seed is a run, or told one by one, so
//! that somebody can go through them all.

/// Where choices come from.
#[derive(Clone, Debug)]
pub(super) enum Chance {
    /// A generator. (SplitMix64: small, and good enough here.)
    Seeded { state: u64 },
    /// The next of a list; the first alternative where the list is at its end.
    Told { path: Vec<u32>, taken: Vec<Decision> },
}

/// One choice that a crash made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which alternative, counted from 0.
    pub chosen: u32,
    /// How many there were.
    pub of: u32,
}

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self::Seeded { state: seed }
    }

    pub(super) fn told(path: &[u32]) -> Self {
        Self::Told { path: path.to_vec(), taken: Vec::new() }
    }

    /// What was chosen, if it was told.
    pub(super) fn taken(self) -> Vec<Decision> {
        match self {
            Self::Seeded { .. } => Vec::new(),
            Self::Told { taken, .. } => taken,
        }
    }

    /// One of `0..=last`.
    pub(super) fn up_to(&mut self, last: u64) -> u64 {
        match self {
            Self::Seeded { state } => {
                let drawn = draw(state);
                match last.checked_add(1) {
                    Some(count) => drawn.wrapping_rem(count),
                    None => drawn,
                }
            }
            Self::Told { path, taken } => {
                let last = u32::try_from(last).unwrap_or(u32::MAX.saturating_sub(1));
                let chosen = path.get(taken.len()).copied().unwrap_or(0).min(last);
                taken.push(Decision { chosen, of: last.saturating_add(1) });
                chosen.into()
            }
        }
    }

    /// True one time in `count`.
    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.up_to(count.saturating_sub(1)) == 0
    }
}

const fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
