//! Machines against a simulated disk: determinism, restarts, producers, and lives of a channel.

mod cursors;
mod many;
mod random;
mod world;

use std::path::Path;

use bytes::Bytes;
use tidelog_engine::log::LogError;
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Lasting, Operation};
use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, Offset, ProducerId, TimestampMs};
use world::{DATA_GROUP, World, append, close, log, open, plain};

use super::*;
use crate::entry::{MetaCommand, NewChannel};

fn offsets(outcome: &Outcome) -> (u64, u64, bool) {
    let Outcome::Appended { base_offset, last_offset, duplicate, .. } = outcome else {
        panic!("{outcome:?}")
    };
    (base_offset.get(), last_offset.get(), *duplicate)
}

/// Offsets are dense whatever else is in the raft log, and append times never fall.
#[test]
fn batches_get_dense_offsets_and_times_that_never_fall() {
    let mut world = World::new(1);
    world.apply(open(1));
    assert_eq!(offsets(&world.apply(plain(1, 3, 100))), (0, 2, false));
    world.apply_nothing();
    world.apply(Command::ExpireProducers { log: log(1), before: TimestampMs(0) });
    let outcome = world.apply(plain(1, 2, 50));
    assert_eq!(offsets(&outcome), (3, 4, false));
    let Outcome::Appended { append_time, .. } = outcome else { panic!() };
    assert_eq!(append_time, TimestampMs(100), "the leader's clock went back");
}

/// A producer's retry is answered with the offsets of the batch that stands in the log.
#[test]
fn a_retry_is_answered_and_not_appended() {
    let mut world = World::new(1);
    world.apply(open(1));
    let first = world.apply(append(1, 7, 0, 0, 3));
    world.apply(append(1, 7, 0, 3, 2));
    let retry = world.apply(append(1, 7, 0, 0, 3));
    assert_eq!(offsets(&retry), (0, 2, true));
    let (Outcome::Appended { chain: one, .. }, Outcome::Appended { chain: other, .. }) = (first, retry)
    else {
        panic!()
    };
    assert_eq!(one, other);
    assert_eq!(world.reader(1).end(), Offset(5));
}

#[test]
fn gaps_are_refused_and_older_epochs_are_fenced() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(append(1, 7, 0, 0, 3));
    assert_eq!(
        world.apply(append(1, 7, 0, 4, 1)),
        Outcome::Refused(Refusal::OutOfOrderSequence { producer: ProducerId(7), expected: 3, found: 4 })
    );
    world.apply(append(1, 7, 1, 0, 1));
    assert_eq!(
        world.apply(append(1, 7, 0, 3, 1)),
        Outcome::Refused(Refusal::ProducerFenced { producer: ProducerId(7), current: 1, found: 0 })
    );
    assert_eq!(world.reader(1).end(), Offset(4));
}

/// An entry of a deleted life that comes late is refused, and so is one that would open its logs again.
#[test]
fn a_closed_generation_stays_closed_while_the_next_life_goes_on() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 2, 1));
    world.apply(close(1));
    world.apply(open(2));
    // Late entries of the first life.
    assert_eq!(world.apply(plain(1, 2, 2)), Outcome::Refused(Refusal::LogClosed { log: log(1) }));
    assert_eq!(world.apply(open(1)), Outcome::LogsOpened, "asked twice is no harm");
    assert_eq!(world.apply(plain(1, 2, 2)), Outcome::Refused(Refusal::LogClosed { log: log(1) }));
    assert_eq!(world.apply(close(1)), Outcome::LogsClosed);
    // The second life begins at 0.
    assert_eq!(offsets(&world.apply(plain(2, 1, 3))), (0, 0, false));
    assert_eq!(world.machines.closed(DATA_GROUP, Generation(1)), Some(LeaderEpoch(1)));
    assert!(world.machines.reader(log(1)).is_none());
}

#[test]
fn an_unknown_log_and_a_trim_beyond_the_end_are_refused() {
    let mut world = World::new(1);
    assert_eq!(world.apply(plain(9, 1, 1)), Outcome::Refused(Refusal::LogUnknown { log: log(9) }));
    world.apply(open(1));
    world.apply(plain(1, 4, 1));
    let trim = |start| Command::SetLogStart { log: log(1), start: Offset(start) };
    assert_eq!(world.apply(trim(3)), Outcome::LogStartSet { start: Offset(3) });
    assert_eq!(world.apply(trim(1)), Outcome::LogStartSet { start: Offset(3) });
    assert!(matches!(world.apply(trim(5)), Outcome::Refused(Refusal::OffsetOutOfRange { .. })));
}

#[test]
fn groups_take_only_their_own_kind_of_command() {
    let mut world = World::new(1);
    let mint = || Command::Meta(MetaCommand::MintProducer);
    assert_eq!(world.apply(mint()), Outcome::Refused(Refusal::WrongGroup { group: DATA_GROUP }));
    assert_eq!(world.apply_meta(open(1)), Outcome::Refused(Refusal::WrongGroup { group: GroupId::META }));
    assert_eq!(world.apply_meta(mint()), Outcome::ProducerMinted(ProducerId(1)));
}

/// Applied, not checkpointed, crashed: everything is applied again over the frames that are there already,
/// and ends in the same bytes.
#[test]
fn replay_over_frames_that_are_there_gives_the_same_bytes() {
    for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::PowerCut { seed: 5 }] {
        let mut world = World::new(1);
        world.apply(open(1));
        for number in 0..10 {
            world.apply(append(1, 7, 0, number * 2, 2));
        }
        world.checkpoint();
        for number in 10..40 {
            world.apply(append(1, 7, 0, number * 2, 2));
        }
        let before = world.state_bytes();
        let outcomes = world.outcomes.clone();
        world.crash_and_replay(crash);
        assert_eq!(world.state_bytes(), before, "{crash:?}");
        assert_eq!(world.outcomes, outcomes, "{crash:?}");
        assert_eq!(world.reader(1).end(), Offset(80));
    }
}

/// A replica that cannot write stands still; it neither skips the entry nor goes on behind it.
#[test]
fn a_replica_that_cannot_write_stands_still() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 1, 1));
    let fault = Fault::next(Operation::Write, Failure::Io).on_path("logs");
    world.disk.inject(Fault { lasting: Lasting::Always, ..fault });
    let at = world.machines.applied(DATA_GROUP).unwrap();
    let applied = world.machines.apply(world.next_task(plain(1, 1, 2)));
    assert!(matches!(applied.stopped, Some(ApplyError::CannotWrite { .. })), "{:?}", applied.stopped);
    assert_eq!(applied.applied, at);
    world.disk.clear_faults();
    let again = world.machines.apply(world.next_task(plain(1, 1, 2)));
    assert!(matches!(again.stopped, Some(ApplyError::StandsStill { .. })), "{:?}", again.stopped);
    assert!(world.machines.checkpoint_job(DATA_GROUP, at).is_none(), "it does not count in checkpoints");
}

/// A full disk passes: the same entry is given again and applied.
#[test]
fn a_full_disk_stops_apply_until_there_is_room() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 1, 1));
    world.disk.set_free_bytes(0);
    let task = world.next_task(plain(1, 1, 2));
    let applied = world.machines.apply(task.clone());
    assert!(applied.stopped.is_some_and(|error| error.may_pass()));
    world.disk.set_free_bytes(1 << 30);
    let again = world.machines.apply(task);
    assert!(again.stopped.is_none());
    assert_eq!(offsets(&again.outcomes[0].1), (1, 1, false));
}

/// To empty a log its segment is ended, and a disk too full for that stopped the group for good. It
/// passes like a batch that finds no room.
#[test]
fn a_disk_too_full_to_empty_a_log_stops_apply_until_there_is_room() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 1, 1));
    world.disk.set_free_bytes(0);
    let task = world.next_task(Command::SetLogStart { log: log(1), start: Offset(1) });
    let stopped = world.machines.apply(task.clone()).stopped.unwrap();
    assert!(
        matches!(stopped, ApplyError::CannotChange { source: LogError::DiskFull { .. }, .. }),
        "{stopped}"
    );
    assert!(stopped.may_pass());
    world.disk.set_free_bytes(1 << 30);
    let again = world.machines.apply(task);
    assert!(again.stopped.is_none());
    assert_eq!(again.outcomes[0].1, Outcome::LogStartSet { start: Offset(1) });
    assert_eq!(world.reader(1).start(), Offset(1));
}

/// Only written checkpoints kept files: a trim that was applied while one was being made unlinked what it
/// was about to name, and the next start found holes. The job keeps them; one that is given up lets go.
#[test]
fn a_trim_unlinks_nothing_that_a_checkpoint_under_way_names() {
    for finished in [true, false] {
        let mut world = World::new(1);
        world.apply(open(1));
        for number in 0..100 {
            world.apply(plain(1, 2, number));
        }
        let durable = world.machines.applied(DATA_GROUP).unwrap();
        let job = world.machines.checkpoint_job(DATA_GROUP, durable).unwrap();
        let first = Path::new("/data/logs/1/0/00000000000000000000.seg").to_path_buf();
        world.apply(Command::SetLogStart { log: log(1), start: Offset(200) });
        assert!(world.disk.files().contains(&first), "the job names it");
        if finished {
            world.machines.checkpoint_done(&job.run().unwrap()).unwrap();
            assert!(world.disk.files().contains(&first), "the checkpoint names it");
            let before = world.state_bytes().0;
            world.crash_and_replay(Crash::PowerCut { seed: 1 });
            assert_eq!(world.state_bytes().0, before);
        } else {
            drop(job);
            assert!(!world.disk.files().contains(&first), "nothing names it any more");
        }
    }
}

/// An entry of an unknown version stops the group; entries that skip one are refused as a bug.
#[test]
fn unknown_and_misplaced_entries_stop_apply() {
    let mut world = World::new(1);
    world.apply(open(1));
    let mut task = world.next_task(plain(1, 1, 1));
    task.entries[0].entry.set_context(Bytes::from_static(&[9, 0, 1, 0]));
    let applied = world.machines.apply(task);
    assert!(matches!(applied.stopped, Some(ApplyError::Entry(entry::EntryError::UnknownVersion { .. }))));

    let mut world = World::new(2);
    let mut task = world.next_task(open(1));
    task.entries[0].index = RaftIndex(99);
    assert!(matches!(world.machines.apply(task).stopped, Some(ApplyError::OutOfOrder { .. })));
}

/// A damaged batch stops the group here: to refuse it could make this replica differ from the others.
/// One that is whole and against the rules is refused, the same everywhere.
#[test]
fn a_damaged_batch_stops_apply_and_a_bad_one_is_refused() {
    let mut world = World::new(1);
    world.apply(open(1));
    let batch = |bytes: Vec<u8>| Command::Append {
        log: log(1),
        append_time: TimestampMs(1),
        batch: Bytes::from(bytes),
    };
    let mut bad = world::batch_bytes(-1, -1, -1, 2).to_vec();
    bad[22] |= 0b10_0000; // A control batch, its checksum put right.
    let crc = crc32c::crc32c(&bad[21..]);
    bad[17..21].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(world.apply(batch(bad)), Outcome::Refused(Refusal::InvalidBatch { .. })));
    let mut damaged = world::batch_bytes(-1, -1, -1, 2).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let applied = world.machines.apply(world.next_task(batch(damaged)));
    assert!(matches!(applied.stopped, Some(ApplyError::DamagedBatch { .. })));
}

/// A channel from intent to open logs, through the machines themselves.
#[test]
fn reconcile_brings_logs_to_what_the_catalogue_intends() {
    let mut world = World::new(1);
    let created = world.apply_meta(Command::Meta(MetaCommand::CreateChannels(vec![NewChannel {
        name: "orders".to_owned(),
        uuid: ChannelUuid(1),
        partitions: 2,
        replicas: None,
        segment_bytes: 1 << 20,
    }])));
    let Outcome::ChannelsCreated(created) = created else { panic!("{created:?}") };
    let generation = created[0].clone().unwrap();
    world.reconcile();
    assert_eq!(world.machines.catalogue().channel("orders").unwrap().state, channel::ChannelState::Active);
    assert_eq!(world.machines.readers().logs().len(), 2);
    world.apply_meta(Command::Meta(MetaCommand::DeleteChannels(vec![generation])));
    world.reconcile();
    assert!(world.machines.catalogue().channel("orders").is_none());
    assert!(world.machines.readers().logs().is_empty());
}

/// Files of a deleted channel stay as long as a kept checkpoint names them, and then go.
#[test]
fn files_of_a_closed_log_go_when_no_kept_checkpoint_names_them() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 2, 1));
    world.checkpoint();
    world.apply(close(1));
    let files =
        |world: &World| world.disk.files().iter().filter(|path| path.starts_with("/data/logs")).count();
    assert_eq!(files(&world), 1);
    world.checkpoint();
    assert_eq!(files(&world), 1, "the older checkpoint still names it");
    world.apply_nothing();
    world.checkpoint();
    assert_eq!(files(&world), 0);
}

/// Leader epoch is epoch base plus term, and ends with its range.
#[test]
fn the_term_of_an_entry_decides_the_leader_epoch() {
    let mut world = World::new(1);
    world.apply(Command::OpenLogs {
        logs: vec![entry::OpenLog { log: log(1), segment_bytes: 1 << 20, epoch_base: 40 }],
    });
    world.term = 3;
    world.apply(plain(1, 2, 1));
    let read = world.reader(1).read(Offset(0), 1 << 20).unwrap();
    let header = tidelog_wire::batch::BatchHeader::parse(&read.batches[0]).unwrap();
    assert_eq!(header.leader_epoch, 43);
    world.term = u64::from(u32::MAX);
    assert_eq!(world.apply(plain(1, 1, 1)), Outcome::Refused(Refusal::EpochExhausted { log: log(1) }));
}
