//! A cluster under load, and everything that a fault may lay hands on.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_client::Client;
use tidelog_wire::ids::{LogId, NodeId};
use tokio::time::Instant;

use crate::cluster::{Cluster, How};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::error::ChaosError;
use crate::faults::{COME_BACK, Fault};
use crate::load::{Load, STEADY};
use crate::network::Proxy;

/// Between two looks at what was acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A cluster under load.
#[derive(Debug)]
pub struct Stage {
    /// Its processes.
    pub cluster: Cluster,
    /// Nodes that are part of it.
    pub nodes: Vec<u64>,
    /// Between the nodes.
    pub proxy: Proxy,
    /// Under the nodes, if they are not on plain folders.
    pub disks: BTreeMap<u64, Disk>,
    /// Disks of which a power cut took something.
    pub disks_that_lost: u64,
    /// For questions.
    pub client: Client,
    /// What is written.
    pub load: Load,
    /// For whatever a fault leaves open.
    pub dice: Dice,
}

impl Stage {
    /// The node that leads some steady log now, as the nodes know.
    pub async fn leader(&mut self) -> Option<u64> {
        let (name, _) = self.dice.pick(&STEADY)?;
        let channel = self.client.channel(name).await.ok()?;
        let partition = self.dice.pick(&channel.partitions)?;
        partition.leader.map(NodeId::get)
    }

    /// Waits until all nodes are ready and every steady log has acknowledged something new.
    ///
    /// # Errors
    /// [`ChaosError::Late`], [`ChaosError::Ended`].
    pub async fn become_whole(&mut self, fault: Fault) -> Result<(), ChaosError> {
        for node in self.cluster.revive()? {
            // A process may end on a disk that refuses to write; it must not on anything else.
            if fault != Fault::FullDisk {
                self.cluster.note_ended(node, &format!("in or after {fault:?}"));
            }
        }
        let nodes = self.nodes.clone();
        self.cluster.ready(&nodes).await?;
        self.progress().await
    }

    /// Waits until every steady log has acknowledged something new.
    ///
    /// # Errors
    /// [`ChaosError::Late`].
    pub async fn progress(&mut self) -> Result<(), ChaosError> {
        let logs = self.steady_logs().await?;
        let counts = |load: &Load| -> Vec<u64> {
            let ledger = load.ledger();
            logs.iter().map(|log| ledger.count_in(*log)).collect()
        };
        let before = counts(&self.load);
        let deadline = Instant::now() + COME_BACK;
        loop {
            let now = counts(&self.load);
            let stuck = logs.iter().zip(before.iter().zip(&now)).find(|(_, (before, now))| now <= before);
            let Some((log, _)) = stuck else { return Ok(()) };
            if Instant::now() > deadline {
                let what = format!("log {log} acknowledges a new record after the cluster was healed");
                return Err(ChaosError::Late { what, seconds: COME_BACK.as_secs() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn steady_logs(&self) -> Result<Vec<LogId>, ChaosError> {
        let deadline = Instant::now() + COME_BACK;
        let names: Vec<String> = STEADY.iter().map(|(name, _)| (*name).to_owned()).collect();
        loop {
            match self.client.metadata(Some(names.clone())).await {
                Ok(info) if info.channels.len() == names.len() => {
                    let partitions = info.channels.iter().flat_map(|channel| &channel.partitions);
                    return Ok(partitions.map(|partition| partition.log).collect());
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Ok(_) if Instant::now() > deadline => {
                    let what = "the steady channels are in the metadata".to_owned();
                    return Err(ChaosError::Late { what, seconds: COME_BACK.as_secs() });
                }
                Ok(_) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Every process ends, whatever it does.
    ///
    /// # Errors
    /// [`ChaosError::Signal`].
    pub async fn kill_all(&mut self) -> Result<(), ChaosError> {
        for node in self.nodes.clone() {
            self.cluster.signal(node, How::Kill)?;
        }
        for node in self.nodes.clone() {
            self.cluster.end(node, How::Kill).await?;
        }
        Ok(())
    }
}
