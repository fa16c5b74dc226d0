//! For tests: a node's engine on a simulated disk, with one group that carries one log.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::Codec;
use tidelog_wire::ids::{
    ClusterId, Generation, GroupId, Incarnation, LogId, NodeId, Partition, RaftIndex, Term, TimestampMs,
};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use crate::apply::{Machines, genesis_checkpoint};
use crate::core::{ApplyTask, Committed};
use crate::entry::{self, Command, OpenLog};

pub(super) const GROUP: GroupId = GroupId(1);
pub(super) const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

pub(super) fn committed(index: u64, command: Command) -> Committed {
    let (context, data) = entry::encode(command);
    let mut entry = raft::eraftpb::Entry { index, term: 2, ..raft::eraftpb::Entry::default() };
    entry.context = context.into();
    entry.data = data;
    Committed { index: RaftIndex(index), term: Term(2), token: None, members: None, entry }
}

fn batch(value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new(Codec::None, BuilderLimits::default());
    assert_eq!(batch.push(TimestampMs(1), None, Some(value), &[]).unwrap(), Pushed::Taken);
    batch.build(None).unwrap().into_bytes()
}

/// An entry that appends one record.
pub(super) fn append(index: u64) -> Committed {
    committed(index, Command::Append { log: LOG, append_time: TimestampMs(1), batch: batch(b"paid") })
}

/// The machines of a node that has applied entry 3: its log holds a batch that nobody has synced yet.
pub(super) fn machines_with_a_batch(disk: &SimDisk) -> (Arc<Engine>, Machines) {
    let identity = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
    Engine::format(&disk.storage(), Path::new("/data"), identity).unwrap();
    let options = Options { reserve_bytes: 0, ..Options::consensus(TimestampMs(0)) };
    let engine = Engine::open(disk.storage(), Path::new("/data"), options).unwrap();
    for group in [GroupId::META, GROUP] {
        engine.write_checkpoint(&genesis_checkpoint(group, &[NodeId(0)], &[GROUP])).unwrap();
    }
    let mut machines = Machines::open(Arc::clone(&engine), &[GroupId::META, GROUP]).unwrap();
    let open = Command::OpenLogs { logs: vec![OpenLog { log: LOG, segment_bytes: 1 << 20, epoch_base: 0 }] };
    let entries = vec![committed(2, open), append(3)];
    assert!(machines.apply(ApplyTask { group: GROUP, entries }).stopped.is_none());
    (engine, machines)
}
