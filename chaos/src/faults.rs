//! What is done to a running cluster, and in which order.
//!
//! All kinds are shuffled like a deck of cards and done one after the other; then the deck is shuffled anew. So each kind
//! comes before any comes twice, and a seed is an order. Each fault begins with a cluster that is whole and ends with one:
//! the network is healed, what was killed is started again, all nodes are ready, and every steady log acknowledges
//! something new. A cluster that does not come back has broken a promise too.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::cluster::{Begin, How};
use crate::dice::Dice;
use crate::error::ChaosError;
use crate::network::Rule;
use crate::stage::Stage;

/// Between a kill and the next start, in milliseconds.
const DEAD_MS: (u64, u64) = (200, 3000);
/// How long a node is paused, or the network is bad, in milliseconds.
const BAD_MS: (u64, u64) = (800, 4000);
/// By how much datagrams are late, in milliseconds.
const LATE_MS: (u64, u64) = (20, 120);
/// How many in a hundred datagrams are lost: at least, and above that.
const LOSS_PERCENT: (u64, u64) = (5, 26);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL of a node that leads something.
    KillLeader,
    /// SIGKILL of any node.
    Kill,
    /// SIGKILL of all nodes at once: the system's cache stays.
    KillAll,
    /// SIGSTOP of a node, and SIGCONT.
    Pause,
    /// A node is cut off from the others, in both directions.
    Isolate,
    /// A node is not heard by one other, which it hears.
    OneWay,
    /// A node is heard by nobody, and hears all.
    Mute,
    /// All datagrams of a node are late.
    Delay,
    /// Many datagrams of a node are lost.
    Loss,
    /// Each node in turn is told to stop, and started again.
    RollingRestart,
    /// A node loses its directory and joins anew.
    Wipe,
    /// A node's directory is replaced by a copy of some seconds before.
    OldCopy,
    /// Nodes are added, and as many are removed.
    Membership,
    /// The power of all nodes is cut at once.
    PowerCut,
    /// Every sync of one disk takes long.
    SlowDisk,
    /// One disk is full.
    FullDisk,
}

impl Fault {
    /// Those for a cluster on plain folders, with the proxy in between.
    pub const ON_PROCESSES: [Self; 13] = [
        Self::KillLeader,
        Self::Pause,
        Self::Isolate,
        Self::Kill,
        Self::OneWay,
        Self::Loss,
        Self::RollingRestart,
        Self::Mute,
        Self::Delay,
        Self::KillAll,
        Self::Wipe,
        Self::OldCopy,
        Self::Membership,
    ];
    /// Those for a cluster on disks whose power can be cut.
    pub const ON_DISKS: [Self; 5] =
        [Self::PowerCut, Self::SlowDisk, Self::PowerCut, Self::FullDisk, Self::PowerCut];
}

/// Nothing gets through.
const CUT: Rule = Rule { cut: true, loss_percent: 0, delay: Duration::ZERO };

/// In which directions the network is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ways {
    Both,
    /// From the node only.
    From,
}

/// An endless row of faults.
#[derive(Debug)]
pub struct Deck {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
    dice: Dice,
}

impl Deck {
    /// Of these kinds. The first of them is drawn first of all, so that the shortest run does what its phase is there for.
    #[must_use]
    pub fn new(kinds: &[Fault], mut dice: Dice) -> Self {
        let mut left: Vec<Fault> = kinds.iter().skip(1).copied().collect();
        dice.shuffle(&mut left);
        left.extend(kinds.first());
        Self { kinds: kinds.to_vec(), left, dice }
    }

    /// The next one; none only if there are no kinds.
    pub fn draw(&mut self) -> Option<Fault> {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
            self.dice.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

impl Stage {
    /// Does it, and waits until the cluster is whole again.
    ///
    /// # Errors
    /// [`ChaosError`]; those that are findings say that the cluster did not come back.
    pub async fn suffer(&mut self, fault: Fault) -> Result<(), ChaosError> {
        let nodes = self.nodes.clone();
        let Some(node) = self.dice.pick(&nodes) else { return Ok(()) };
        let others: Vec<u64> = nodes.iter().copied().filter(|other| *other != node).collect();
        match fault {
            Fault::KillLeader => {
                let leader = self.leader().await.unwrap_or(node);
                self.kill(&[leader]).await?;
            }
            Fault::Kill => self.kill(&[node]).await?,
            Fault::KillAll => self.kill(&nodes).await?,
            Fault::Pause => {
                self.cluster.signal(node, How::Pause)?;
                self.wait(BAD_MS).await;
                self.cluster.signal(node, How::Continue)?;
            }
            Fault::RollingRestart => {
                for node in nodes {
                    self.cluster.end(node, How::Terminate).await?;
                    self.cluster.start_all(&[node], Begin::Resume).await?;
                }
            }
            Fault::Isolate => self.bad_network(node, &others, CUT, Ways::Both).await,
            Fault::Mute => self.bad_network(node, &others, CUT, Ways::From).await,
            Fault::OneWay => {
                let other = self.dice.pick(&others);
                self.bad_network(node, other.as_slice(), CUT, Ways::From).await;
            }
            Fault::Delay => {
                let delay = self.dice.between_ms(LATE_MS.0, LATE_MS.1);
                self.bad_network(node, &others, Rule { delay, ..Rule::default() }, Ways::Both).await;
            }
            Fault::Loss => {
                let loss_percent = LOSS_PERCENT.0 + self.dice.below(LOSS_PERCENT.1);
                self.bad_network(node, &others, Rule { loss_percent, ..Rule::default() }, Ways::Both).await;
            }
            Fault::Wipe => self.wipe(node).await?,
            Fault::OldCopy => self.put_old_copy_back(node).await?,
            Fault::Membership => self.change_members().await?,
            Fault::PowerCut => self.cut_power().await?,
            Fault::SlowDisk => self.slow_disk(node, BAD_MS).await,
            Fault::FullDisk => self.fill_disk(node, BAD_MS).await?,
        }
        self.become_whole(fault).await
    }

    async fn wait(&mut self, (least, most): (u64, u64)) {
        tokio::time::sleep(self.dice.between_ms(least, most)).await;
    }

    async fn kill(&mut self, nodes: &[u64]) -> Result<(), ChaosError> {
        for node in nodes {
            self.cluster.signal(*node, How::Kill)?;
        }
        for node in nodes {
            self.cluster.end(*node, How::Kill).await?;
        }
        self.wait(DEAD_MS).await;
        for node in nodes {
            self.cluster.start(*node, Begin::Resume)?;
        }
        Ok(())
    }

    /// For a while the network between a node and `others` is as `rule` says.
    async fn bad_network(&mut self, node: u64, others: &[u64], rule: Rule, ways: Ways) {
        for other in others {
            self.proxy.rules().set(node, *other, rule);
            if ways == Ways::Both {
                self.proxy.rules().set(*other, node, rule);
            }
        }
        self.wait(BAD_MS).await;
        self.proxy.rules().heal();
    }
}

/// A deadline for one thing, shared by those who wait.
pub(crate) const COME_BACK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_comes_before_any_comes_twice_and_a_seed_is_an_order() {
        let draw = |seed| {
            let mut deck = Deck::new(&Fault::ON_PROCESSES, Dice::new(seed));
            (0..Fault::ON_PROCESSES.len() * 2).filter_map(|_| deck.draw()).collect::<Vec<_>>()
        };
        let drawn = draw(3);
        let first: BTreeSet<_> = drawn[..Fault::ON_PROCESSES.len()].iter().copied().collect();
        assert_eq!(first, Fault::ON_PROCESSES.into_iter().collect());
        assert_eq!(drawn[0], Fault::ON_PROCESSES[0]);
        assert_eq!(drawn, draw(3));
        assert_ne!(drawn, draw(4));
    }
}
