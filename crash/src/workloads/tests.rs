use super::{NAMES, Task, named};
use crate::judge;
use crate::recorder::LeftOut;
use crate::scenario::Scenario;
use crate::states::Choice;

/// How often each recovery is recorded again.
const AGAIN: usize = 2;

/// A workload, and at each of its points the recovery from a killed process, are recorded again and again.
struct Repeat;

impl Task for Repeat {
    type Output = ();

    fn with<S: Scenario>(&self, scenario: &S) {
        let name = scenario.name();
        let first = judge::record(scenario, LeftOut::Nothing).unwrap();
        let again = judge::record(scenario, LeftOut::Nothing).unwrap();
        assert!(first.operations == again.operations, "the workload {name} does something else each time");
        for point in first.points() {
            let crashed = Choice::Process.crash(&first.disk_at(point).unwrap());
            let promise = first.promised(point).unwrap();
            let record =
                || judge::record_recovery(scenario, &crashed, promise, LeftOut::Nothing).unwrap().operations;
            let recovery = record();
            for _ in 0..AGAIN {
                assert!(
                    recovery == record(),
                    "the recovery at point {point} of {name} is not always the same"
                );
            }
        }
    }
}

/// The story: raft-engine read its two queues on a thread each, and the one that came first cut its torn tail first. A second crash is
/// named by how many operations of the recovery came before it, so the sums of two runs differed, and the command
/// printed beside a violation might have made a state that keeps every promise.
#[test]
fn a_workload_and_each_recovery_do_the_same_whenever_they_are_recorded() {
    for name in NAMES {
        named(name, &Repeat, false).unwrap();
    }
}
