//! What becomes of a datagram between two nodes: a pure table, one row for each direction of each pair.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dice::Dice;

/// What one direction between two nodes is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing gets through.
    pub cut: bool,
    /// So many in a hundred are lost.
    pub loss_percent: u64,
    /// The rest takes so much longer.
    pub delay: Duration,
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does not arrive.
    Lost,
    /// It is sent on after that time.
    SentOn(Duration),
}

/// What the network is like; where nothing is said, it is good.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By sender and receiver.
    rows: BTreeMap<(u64, u64), Rule>,
}

impl Rules {
    /// What becomes of the next datagram.
    pub fn fate(&self, from: u64, to: u64, dice: &mut Dice) -> Fate {
        let Some(rule) = self.rows.get(&(from, to)) else { return Fate::SentOn(Duration::ZERO) };
        if rule.cut || (rule.loss_percent > 0 && dice.percent(rule.loss_percent)) {
            return Fate::Lost;
        }
        Fate::SentOn(rule.delay)
    }

    /// One direction of one pair is like this from now on.
    pub fn set(&mut self, from: u64, to: u64, rule: Rule) {
        self.rows.insert((from, to), rule);
    }

    /// The network is good again.
    pub fn heal(&mut self) {
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Rule = Rule { cut: true, loss_percent: 0, delay: Duration::ZERO };

    #[test]
    fn a_cut_in_one_direction_leaves_the_other() {
        let (mut rules, mut dice) = (Rules::default(), Dice::new(1));
        rules.set(0, 1, CUT);
        assert_eq!(rules.fate(0, 1, &mut dice), Fate::Lost);
        assert_eq!(rules.fate(1, 0, &mut dice), Fate::SentOn(Duration::ZERO));
    }

    #[test]
    fn what_is_cut_stays_cut_until_the_network_is_healed() {
        let (mut rules, mut dice) = (Rules::default(), Dice::new(1));
        rules.set(1, 0, CUT);
        assert!((0..100).all(|_| rules.fate(1, 0, &mut dice) == Fate::Lost));
        rules.heal();
        assert_eq!(rules.fate(1, 0, &mut dice), Fate::SentOn(Duration::ZERO));
    }

    #[test]
    fn about_as_many_are_lost_as_the_rule_says_and_the_rest_is_late() {
        let (mut rules, mut dice) = (Rules::default(), Dice::new(1));
        let delay = Duration::from_millis(30);
        rules.set(0, 1, Rule { cut: false, loss_percent: 20, delay });
        let fates: Vec<Fate> = (0..1000).map(|_| rules.fate(0, 1, &mut dice)).collect();
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((150..250).contains(&lost), "{lost} of 1000");
        assert!(fates.iter().all(|fate| *fate == Fate::Lost || *fate == Fate::SentOn(delay)));
    }
}
