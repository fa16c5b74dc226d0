//! The apply thread and a disk without room.

use std::sync::Mutex;

use tidelog_engine::sim_disk::{Failure, Fault, Operation, SimDisk};
use tidelog_wire::ids::{Offset, RaftIndex, TimestampMs};

use super::super::mailbox::Mailbox;
use super::super::one_log::{GROUP, LOG, append, machines_with_a_batch};
use super::super::pace::CheckpointPace;
use super::*;
use crate::apply::Catalogue;

/// A clock that a test sets.
#[derive(Debug, Default)]
struct SetClock(Mutex<Duration>);

impl Clock for SetClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn wall(&self) -> TimestampMs {
        TimestampMs(0)
    }
}

struct NoInstaller;

impl Installer for NoInstaller {
    fn install(&mut self, _: &mut Machines, _: &InstallSnapshot) -> Result<(), String> {
        Err("nothing is installed here".to_owned())
    }
}

struct World {
    disk: SimDisk,
    clock: Arc<SetClock>,
    raft: Arc<Inbox>,
    thread: ApplyThread,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let (_, machines) = machines_with_a_batch(&disk);
        let clock = Arc::new(SetClock::default());
        let raft = Arc::new(Inbox::new());
        let thread = ApplyThread {
            machines,
            mailbox: Arc::new(ApplyBox::new()),
            raft: Arc::clone(&raft),
            keeper: Arc::new(Mailbox::new()),
            waiters: Arc::new(Waiters::default()),
            board: Arc::new(Board::new(
                Arc::new(Catalogue::genesis(&[GROUP], &[tidelog_wire::ids::NodeId(0)])),
                Vec::new(),
            )),
            clock: Arc::<SetClock>::clone(&clock),
            installer: Box::new(NoInstaller),
            reports: mpsc::channel(1).0,
            state: ApplyState::new(CheckpointPace::default(), &[GROUP], Duration::ZERO),
        };
        Self { disk, clock, raft, thread }
    }

    fn apply(&mut self, index: u64) {
        self.thread.take(ApplyInput::Apply(ApplyTask { group: GROUP, entries: vec![append(index)] }));
    }

    fn later(&mut self) {
        *self.clock.0.lock().unwrap() += STALL_PATIENCE;
        self.thread.try_stalled();
    }

    fn applied(&self) -> RaftIndex {
        self.thread.machines.applied(GROUP).unwrap().index
    }

    /// What the raft thread was told since the last look.
    fn told(&self) -> Vec<Input> {
        self.raft.taken()
    }
}

/// A replica whose apply met a full disk stood still until somebody restarted the node, although writes are
/// to resume by themselves. Now what it could not apply waits, entries that follow queue behind it, the
/// leadership goes elsewhere, and once there is room all are applied, each once.
#[test]
fn a_group_that_found_the_disk_full_goes_on_by_itself_once_there_is_room() {
    let mut world = World::new();
    world.thread.take(ApplyInput::Leads { group: GROUP, here: true });
    world.disk.set_free_bytes(0);
    world.apply(4);
    world.apply(5);
    assert_eq!(world.applied(), RaftIndex(3));
    let told = world.told();
    assert!(
        told.iter().any(|input| matches!(input, Input::TransferLeader { group: GROUP, to: None })),
        "{told:?}"
    );
    world.later();
    assert_eq!(world.applied(), RaftIndex(3));
    let told = world.told();
    assert!(
        !told.iter().any(|input| matches!(input, Input::TransferLeader { .. } | Input::Halt { .. })),
        "{told:?}"
    );

    world.disk.set_free_bytes(1 << 30);
    world.later();
    assert_eq!(world.applied(), RaftIndex(5));
    world.apply(6);
    assert_eq!(world.applied(), RaftIndex(6));
    assert_eq!(world.thread.machines.reader(LOG).unwrap().end(), Offset(4));
}

/// Only a full disk is worth waiting for.
#[test]
fn a_group_that_cannot_be_written_is_halted() {
    let mut world = World::new();
    world.disk.inject(Fault::next(Operation::Write, Failure::Io).on_path(".seg"));
    world.apply(4);
    let told = world.told();
    assert!(told.iter().any(|input| matches!(input, Input::Halt { group: GROUP, .. })), "{told:?}");
    assert!(world.thread.state.stalled.is_empty());
}
