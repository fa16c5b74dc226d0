//! Snapshots between simulated nodes: how a follower catches up whose entries are gone from every log.

use tidelog_consensus::core::{FetchSnapshot, InstallSnapshot, Persist};
use tidelog_wire::ids::{GroupId, NodeId};

use crate::oracle::Violation;
use crate::world::World;

impl World {
    /// What a core asks for about snapshots.
    pub(crate) fn snapshot_effects(
        &mut self,
        node: NodeId,
        exports: Vec<GroupId>,
        fetches: Vec<FetchSnapshot>,
        installs: Vec<InstallSnapshot>,
    ) -> Result<(), Violation> {
        let _unused = (node, exports, fetches, installs);
        Ok(())
    }

    pub(crate) fn after_persist(&mut self, _node: NodeId, _persists: &[Persist]) -> Result<(), Violation> {
        Ok(())
    }

    pub(crate) fn snapshot_step(
        &mut self,
        _node: NodeId,
        _life: u64,
        _group: GroupId,
    ) -> Result<(), Violation> {
        Ok(())
    }
}
