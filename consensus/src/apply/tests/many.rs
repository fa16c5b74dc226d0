//! Groups that carry very many logs.

use tidelog_engine::sim_disk::Call;

use super::world::{World, append, log, plain};
use super::*;

/// Syncs of segments since the last look.
fn syncs(world: &World) -> usize {
    let of_segment = |call: &&Call| call.operation == Operation::Sync && call.path.starts_with("/data/logs");
    world.disk.calls().iter().filter(of_segment).count()
}

/// A checkpoint of a group with very many logs syncs those that were written since the one before, and no other.
#[test]
fn a_checkpoint_syncs_only_what_changed() {
    const LOGS: u64 = 300;
    let mut world = World::new(1);
    let logs = (1..=LOGS)
        .map(|generation| entry::OpenLog { log: log(generation), segment_bytes: 1 << 20, epoch_base: 0 })
        .collect();
    world.apply(Command::OpenLogs { logs });
    for generation in 1..=LOGS {
        world.apply(append(generation, 7, 0, 0, 1));
    }
    world.disk.note_calls();
    world.checkpoint();
    assert_eq!(syncs(&world), usize::try_from(LOGS).unwrap());
    world.disk.note_calls();
    for generation in [3, 77, 250] {
        world.apply(plain(generation, 1, 9));
    }
    world.checkpoint();
    assert_eq!(syncs(&world), 3);
}
