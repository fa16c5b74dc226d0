//! Cursors, rules of apply, and producers that were silent too long.

use super::world::{World, append, close, log, open, plain};
use super::*;

fn set(generation: u64, name: &str, offset: u64) -> Command {
    Command::SetCursor { log: log(generation), name: name.to_owned(), offset: Offset(offset) }
}

fn at(world: &World, generation: u64, name: &str) -> Option<u64> {
    world.machines.readers().cursor(log(generation), name).map(Offset::get)
}

/// A cursor stands where it was set, whatever crashes; a checkpoint keeps it.
#[test]
fn a_cursor_survives_crashes_and_checkpoints() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 10, 1));
    assert_eq!(world.apply(set(1, "billing", 4)), Outcome::CursorSet { offset: Offset(4) });
    world.checkpoint();
    assert_eq!(world.apply(set(1, "audit", 9)), Outcome::CursorSet { offset: Offset(9) });
    assert_eq!(world.apply(set(1, "billing", 7)), Outcome::CursorSet { offset: Offset(7) });
    for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::PowerCut { seed: 3 }] {
        world.crash_and_replay(crash);
        assert_eq!((at(&world, 1, "billing"), at(&world, 1, "audit")), (Some(7), Some(9)), "{crash:?}");
    }
    let delete = |name: &str| Command::DeleteCursor { log: log(1), name: name.to_owned() };
    assert_eq!(world.apply(delete("audit")), Outcome::CursorDeleted);
    assert_eq!(world.apply(delete("audit")), Outcome::CursorDeleted, "said twice");
    assert_eq!(world.machines.readers().cursors(log(1)).unwrap(), [("billing".to_owned(), Offset(7))].into());
}

/// Records that a purge removed do not come back by way of a cursor, and neither does the cursor of a deleted channel.
#[test]
fn a_cursor_answers_the_start_after_a_purge_and_goes_with_its_generation() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 10, 1));
    world.apply(set(1, "billing", 4));
    world.apply(Command::SetLogStart { log: log(1), start: Offset(10) });
    assert_eq!(at(&world, 1, "billing"), Some(10));
    assert_eq!(world.apply(set(1, "billing", 3)), Outcome::CursorSet { offset: Offset(3) }, "said late");
    assert_eq!(at(&world, 1, "billing"), Some(10));
    // The next life of the name has another generation, and no cursor of the one before.
    world.apply(close(1));
    world.apply(open(2));
    assert_eq!((at(&world, 1, "billing"), at(&world, 2, "billing")), (None, None));
    let late = world.apply(set(1, "billing", 1));
    assert_eq!(late, Outcome::Refused(Refusal::LogClosed { log: log(1) }));
    world.checkpoint();
    world.crash_and_replay(Crash::ProcessOnly);
    assert_eq!(at(&world, 2, "billing"), None);
}

#[test]
fn cursors_are_bounded_in_number_name_and_place() {
    let mut world = World::new(1);
    world.apply(open(1));
    world.apply(plain(1, 2, 1));
    assert!(matches!(world.apply(set(1, "a b", 0)), Outcome::Refused(Refusal::InvalidName { .. })));
    assert!(matches!(world.apply(set(1, "a", 3)), Outcome::Refused(Refusal::OffsetOutOfRange { .. })));
    assert!(matches!(world.apply(set(9, "a", 0)), Outcome::Refused(Refusal::LogUnknown { .. })));
    for number in 0..CURSORS_PER_LOG_MAX {
        assert!(matches!(world.apply(set(1, &format!("c{number}"), 2)), Outcome::CursorSet { .. }));
    }
    assert!(matches!(world.apply(set(1, "more", 2)), Outcome::Refused(Refusal::TooManyCursors { .. })));
    assert_eq!(world.apply(set(1, "c0", 1)), Outcome::CursorSet { offset: Offset(1) }, "it is there already");
    world.apply(Command::DeleteCursor { log: log(1), name: "c0".to_owned() });
    assert_eq!(world.apply(set(1, "more", 2)), Outcome::CursorSet { offset: Offset(2) });
}

/// While an old release is among the nodes, what it does not know is refused, and not agreed on for it to choke on.
#[test]
fn a_group_of_old_rules_takes_no_cursors_until_all_nodes_know_them() {
    let mut world = World::of_version(1, 1);
    world.apply(open(1));
    let refused = Refusal::ApplyVersionTooLow { group: DATA_GROUP, current: 1, needed: 2 };
    assert_eq!(world.apply(set(1, "billing", 0)), Outcome::Refused(refused));
    let raise = |world: &World| -> Vec<Command> {
        let proposals = world.machines.reconcile(&[DATA_GROUP].into());
        proposals.into_iter().map(|(_, command)| command).collect()
    };
    assert_eq!(raise(&world), [], "the node has not said what it knows");
    world.register(1);
    assert_eq!(raise(&world), [], "it knows the old rules only");
    world.register(APPLY_VERSION);
    let proposed = raise(&world);
    assert_eq!(proposed, [Command::RaiseApplyVersion { version: APPLY_VERSION }]);
    let raised = Outcome::ApplyVersionRaised { version: APPLY_VERSION };
    assert_eq!(world.apply(proposed[0].clone()), raised);
    assert_eq!(world.apply(Command::RaiseApplyVersion { version: 1 }), raised, "it never goes back");
    assert_eq!(raise(&world), []);
    assert_eq!(world.apply(set(1, "billing", 0)), Outcome::CursorSet { offset: Offset(0) });
    world.checkpoint();
    world.crash_and_replay(Crash::ProcessOnly);
    assert_eq!(world.apply(set(1, "billing", 0)), Outcome::CursorSet { offset: Offset(0) });
}

/// Rules that this release does not know stop the group here; it does not go on by others.
#[test]
fn unknown_rules_stop_apply() {
    let mut world = World::new(1);
    world.apply(open(1));
    let task = world.next_task(Command::RaiseApplyVersion { version: APPLY_VERSION + 1 });
    let stopped = world.machines.apply(task).stopped;
    assert!(matches!(stopped, Some(ApplyError::UnknownApplyVersion { .. })), "{stopped:?}");
}

/// A producer is forgotten seven days of its log's own time after its last batch, by an entry; one that went on is not,
/// and a log that stands still forgets nobody.
#[test]
fn producers_that_were_silent_too_long_are_expired_by_an_entry() {
    const HOUR: i64 = 3_600_000;
    let mut world = World::new(1);
    world.apply(open(1));
    let batch = |producer, sequence, hours: i64| {
        let command = append(1, producer, 0, sequence, 1);
        let Command::Append { log, batch, .. } = command else { unreachable!() };
        Command::Append { log, batch, append_time: TimestampMs(hours * HOUR) }
    };
    let due = |world: &World| world.machines.reconcile(&[DATA_GROUP].into());
    world.apply(batch(1, 0, 0));
    world.apply(batch(2, 0, 1));
    world.apply(batch(2, 1, 24 * 7 + 1));
    assert_eq!(due(&world), [], "an hour's worth goes at once");
    world.apply(batch(2, 2, 24 * 7 + 2));
    let proposed = due(&world);
    let expire = Command::ExpireProducers { log: log(1), before: TimestampMs(2 * HOUR) };
    assert_eq!(proposed, [(DATA_GROUP, expire.clone())]);
    world.checkpoint();
    world.crash_and_replay(Crash::ProcessOnly);
    assert_eq!(due(&world), proposed, "a new start sees it too");
    assert_eq!(world.apply(expire), Outcome::ProducersExpired);
    assert_eq!(due(&world), []);
    // The forgotten one may begin anywhere; the other is held to its sequence.
    assert!(matches!(world.apply(batch(1, 40, 24 * 8)), Outcome::Appended { duplicate: false, .. }));
    let jump = world.apply(batch(2, 40, 24 * 8));
    assert!(matches!(jump, Outcome::Refused(Refusal::OutOfOrderSequence { .. })), "{jump:?}");
}
