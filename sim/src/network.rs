//! The network: decides for each message whether, when and how often it arrives.
//!
//! It loses, delays, repeats and (since each delay is its own) reorders. A link can be cut in one
//! direction only. What is on its way when a link is cut arrives all the same, late and unexpected.

use std::collections::BTreeSet;

use tidelog_wire::ids::NodeId;

use crate::chance::Chance;
use crate::settings::NetworkSettings;

/// The network between nodes.
#[derive(Debug)]
pub struct Network {
    chance: Chance,
    settings: NetworkSettings,
    /// From, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Until healed there is neither loss nor long delay.
    calm: bool,
    lost: u64,
    repeated: u64,
}

impl Network {
    /// A whole network with the given weather.
    #[must_use]
    pub fn new(chance: Chance, settings: NetworkSettings) -> Self {
        Self { chance, settings, cut: BTreeSet::new(), calm: false, lost: 0, repeated: 0 }
    }

    /// When the copies of a message arrive, counted from now: none if it is lost.
    pub fn arrivals(&mut self, from: NodeId, to: NodeId) -> Vec<u64> {
        if self.cut.contains(&(from, to)) {
            return Vec::new();
        }
        if self.calm {
            return vec![self.chance.between(50, 500)];
        }
        if self.chance.permille(self.settings.loss_permille) {
            self.lost = self.lost.saturating_add(1);
            return Vec::new();
        }
        let mut arrivals = vec![self.chance.duration(self.settings.delay_micros)];
        if self.chance.permille(self.settings.repeat_permille) {
            self.repeated = self.repeated.saturating_add(1);
            arrivals.push(self.chance.duration(self.settings.delay_micros.saturating_mul(4)));
        }
        arrivals
    }

    /// Cuts a link in one direction.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Joins all links again; the weather stays.
    pub fn join(&mut self) {
        self.cut.clear();
    }

    /// Whether the link is cut in this direction.
    #[must_use]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Joins everything, and from now on loses and delays nothing.
    pub fn heal(&mut self) {
        self.join();
        self.calm = true;
    }

    /// Messages lost and repeated so far.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.lost, self.repeated)
    }
}
