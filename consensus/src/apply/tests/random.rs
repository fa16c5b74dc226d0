//! Random sequences of commands: whatever is applied, restarting anywhere ends in the same bytes, and so
//! does another machine that was given the same.

use proptest::prelude::*;

use super::world::{World, append, close, log, open, plain};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    NewTerm,
    Checkpoint,
    Crash(Crash),
}

fn any_step() -> impl Strategy<Value = Step> {
    let generation = 1_u64..4;
    let crash = prop_oneof![
        Just(Crash::ProcessOnly),
        Just(Crash::LoseUnsynced),
        any::<u64>().prop_map(|seed| Crash::PowerCut { seed }),
    ];
    prop_oneof![
        3 => generation.clone().prop_map(|generation| Step::Apply(open(generation))),
        1 => generation.clone().prop_map(|generation| Step::Apply(close(generation))),
        8 => (generation.clone(), 1..20_i32, 0..99_i64)
            .prop_map(|(generation, count, time)| Step::Apply(plain(generation, count, time))),
        8 => (generation.clone(), 1..3_i64, 0..2_i16, 0..6_i32, 1..3_i32).prop_map(
            |(generation, producer, epoch, sequence, count)| Step::Apply(append(
                generation, producer, epoch, sequence, count
            ))
        ),
        2 => (generation.clone(), 0..40_u64).prop_map(|(generation, start)| Step::Apply(
            Command::SetLogStart { log: log(generation), start: Offset(start) }
        )),
        1 => (generation.clone(), 0..99_i64).prop_map(|(generation, before)| Step::Apply(
            Command::ExpireProducers { log: log(generation), before: TimestampMs(before) }
        )),
        2 => (generation.clone(), "[abc]", 0..40_u64).prop_map(|(generation, name, offset)| Step::Apply(
            Command::SetCursor { log: log(generation), name, offset: Offset(offset) }
        )),
        1 => (generation, "[abc]").prop_map(|(generation, name)| Step::Apply(
            Command::DeleteCursor { log: log(generation), name }
        )),
        1 => Just(Step::NewTerm),
        2 => Just(Step::Checkpoint),
        2 => crash.prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn checkpoints_and_crashes_anywhere_change_nothing(steps in prop::collection::vec(any_step(), 1..70)) {
        let mut straight = World::new(1);
        let mut troubled = World::new(2);
        for step in steps {
            match step {
                Step::Apply(command) => {
                    let outcome = straight.apply(command.clone());
                    prop_assert_eq!(outcome, troubled.apply(command));
                }
                Step::NewTerm => {
                    straight.term += 1;
                    troubled.term += 1;
                }
                Step::Checkpoint => {
                    if troubled.machines.checkpoint_job(DATA_GROUP, EntryId::default()).is_some() {
                        troubled.checkpoint();
                    }
                }
                Step::Crash(crash) => {
                    troubled.crash_and_replay(crash);
                    prop_assert_eq!(&straight.outcomes, &troubled.outcomes);
                }
            }
        }
        let checkpoint = |world: &World| world.state_bytes().0;
        if let (Some(one), Some(other)) = (checkpoint(&straight), checkpoint(&troubled)) {
            prop_assert_eq!(one, other);
        }
        for generation in 1..4 {
            let read = |world: &World| world.machines.reader(log(generation)).map(|reader| {
                let all = reader.read(reader.start(), 1 << 20).unwrap().batches;
                let cursors = world.machines.readers().cursors(log(generation));
                (reader.start(), reader.end(), all, cursors)
            });
            prop_assert_eq!(read(&straight), read(&troubled));
        }
    }
}
