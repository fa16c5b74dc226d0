//! Faults of disks: the power of all nodes is cut, a disk is slow, a disk is full.
//!
//! A power cut:
//! 1. Each disk stops at some operation, drawn by chance among the next ones: in the midst of a group of writes, between a
//!    write and its sync, between a rename and the sync of its directory. Whatever a node acknowledged before rests on syncs
//!    that were carried out before; whatever it tries after fails, so it acknowledges nothing more that rests on this disk.
//! 2. All processes are killed.
//! 3. What was not synced is lost, torn or kept, on each disk by other choices, and what is left is mounted again.
//! 4. All nodes start. Everything acknowledged before must be there, which the check at the end of the phase tells.
//!
//! The disks do not stop in the same instant, but within a few operations. That is a case that a real machine room has
//! too, and it takes nothing away: a record is acknowledged only when a quorum of disks has it, whenever each of them stops.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Begin;
use crate::error::ChaosError;
use crate::stage::Stage;

/// Operations within which a disk stops.
const WITHIN_CHANGES: u64 = 400;
/// A disk with nothing to do is stopped after this.
const STOP_WAITS: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// By how much each sync of a slow disk takes longer.
const SLOW: Duration = Duration::from_millis(60);

impl Stage {
    pub(crate) async fn cut_power(&mut self) -> Result<(), ChaosError> {
        for disk in self.disks.values() {
            disk.stop_after(self.dice.below(WITHIN_CHANGES));
        }
        let deadline = Instant::now() + STOP_WAITS;
        while self.disks.values().any(|disk| !disk.is_stopped()) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for disk in self.disks.values().filter(|disk| !disk.is_stopped()) {
            disk.stop_after(0);
        }
        self.kill_all().await?;
        for disk in self.disks.values_mut() {
            self.disks_that_lost += u64::from(disk.cut(self.dice.draw())?);
        }
        for node in self.nodes.clone() {
            self.cluster.start(node, Begin::Resume)?;
        }
        Ok(())
    }

    pub(crate) async fn slow_disk(&mut self, node: u64, (least, most): (u64, u64)) {
        let Some(disk) = self.disks.get(&node) else { return };
        disk.set_sync_waits(SLOW);
        tokio::time::sleep(self.dice.between_ms(least, most)).await;
        disk.set_sync_waits(Duration::ZERO);
    }

    /// A node may end when its disk refuses a write that it cannot do without; with room again it is started again.
    pub(crate) async fn fill_disk(&mut self, node: u64, (least, most): (u64, u64)) -> Result<(), ChaosError> {
        let Some(disk) = self.disks.get(&node) else { return Ok(()) };
        disk.set_full(true);
        tokio::time::sleep(self.dice.between_ms(least, most)).await;
        disk.set_full(false);
        Ok(())
    }
}
