//! The workloads: small ones, of which every state is tried, and larger ones, which are sampled.

mod embedded;
mod install;
mod node;
mod raft;
mod records;
#[cfg(test)]
mod tests;

use tidelog_consensus::raft_log::EngineLogOptions;

use self::embedded::{Embedded, Step, log};
use self::node::Node;
use self::raft::{Raft, Step as R};
use crate::recorder::LeftOut;
use crate::replay::{Replayed, State};
use crate::run::{Outcome, Plan, run};
use crate::scenario::{Broken, Scenario};

/// The names of all workloads, in the order in which they are run.
pub const NAMES: [&str; 8] = ["first", "sizes", "rolls", "lives", "raft", "recycled", "node", "install"];

/// Those of which a state takes many times as long to judge.
const COSTLY: [&str; 3] = ["sizes", "node", "install"];
/// How many times as many states are tried of each of the others.
const CHEAPER: u32 = 4;

const A: tidelog_wire::ids::LogId = log(7, 0);
const B: tidelog_wire::ids::LogId = log(7, 1);
const A_AGAIN: tidelog_wire::ids::LogId = log(9, 0);

/// A log's first batches: few enough that every state is tried.
const FIRST: Embedded = Embedded::small(
    "first",
    &[
        Step::Open(A),
        Step::Append(A, 1, 20),
        Step::Append(A, 2, 300),
        Step::Durable(A, 1, 700),
        Step::Append(A, 1, 1),
        Step::Idle(A),
        Step::Append(A, 1, 1_500),
        Step::Append(A, 3, 100),
    ],
);

/// From one byte to more than a prefill.
const SIZES: Embedded = Embedded {
    segment_bytes: 4 << 20,
    ..Embedded::small(
        "sizes",
        &[
            Step::Open(A),
            Step::Durable(A, 1, 1),
            Step::Append(A, 1, 400),
            Step::Append(A, 1, 512),
            Step::Durable(A, 4, 5_000),
            Step::Append(A, 1, 60_000),
            Step::Durable(A, 1, 900_000),
            Step::Append(A, 1, 700_000),
            Step::Durable(A, 1, 3),
            Step::Idle(A),
        ],
    )
};

/// Two logs over many small segments: sealed, rolled, marked, trimmed, emptied, stopped and started.
const ROLLS: Embedded = Embedded::small(
    "rolls",
    &[
        Step::Open(A),
        Step::Open(B),
        Step::Append(A, 3, 600),
        Step::Append(B, 1, 2_500),
        Step::Durable(A, 3, 600),
        Step::Append(A, 1, 3_500),
        Step::Durable(B, 1, 2_500),
        Step::Append(A, 2, 500),
        Step::Idle(A),
        Step::Trim(A),
        Step::Append(B, 1, 10),
        Step::Durable(A, 1, 3_900),
        Step::Append(A, 1, 200),
        Step::Restart,
        Step::Append(A, 1, 3_000),
        Step::Append(B, 5, 300),
        Step::Purge(B),
        Step::Durable(B, 1, 100),
        Step::Append(A, 1, 3_000),
        Step::Durable(A, 1, 100),
        Step::Trim(A),
        Step::Append(A, 1, 50),
        Step::Append(B, 1, 50),
    ],
);

/// A log is removed, and its name's next life begins beside what is left of it.
const LIVES: Embedded = Embedded::small(
    "lives",
    &[
        Step::Open(A),
        Step::Open(B),
        Step::Durable(A, 2, 1_000),
        Step::Durable(A, 2, 1_500),
        Step::Append(B, 1, 300),
        Step::Trim(A),
        Step::Remove(A),
        Step::Open(A_AGAIN),
        Step::Append(A_AGAIN, 1, 800),
        Step::Durable(A_AGAIN, 1, 30),
        Step::Restart,
        Step::Durable(A_AGAIN, 3, 1_200),
        Step::Append(A_AGAIN, 1, 2_000),
        Step::Durable(B, 1, 60),
    ],
);

const RAFT_STEPS: &[R] = &[
    R::All { bytes: 20, sync: true },
    R::Write { group: 1, entries: 2, bytes: 500, sync: false },
    R::Write { group: 2, entries: 3, bytes: 200, sync: true },
    R::Write { group: 1, entries: 1, bytes: 2_000, sync: false },
    R::Replace { group: 1, back: 2, entries: 1, sync: true },
    R::Mark { group: 2, set: true },
    R::All { bytes: 1_500, sync: false },
    R::Compact { group: 1, left: 2 },
    R::Write { group: 2, entries: 2, bytes: 1_200, sync: true },
    R::Mark { group: 2, set: false },
    R::Compact { group: 2, left: 1 },
    R::Compact { group: 0, left: 1 },
    R::Purge,
    R::All { bytes: 1_000, sync: true },
    R::Clear { group: 0 },
    R::Write { group: 0, entries: 1, bytes: 50, sync: false },
    R::Write { group: 1, entries: 2, bytes: 1_800, sync: true },
    R::Restart,
    R::All { bytes: 2_500, sync: false },
    R::Compact { group: 1, left: 1 },
    R::Replace { group: 2, back: 1, entries: 3, sync: false },
    R::Compact { group: 2, left: 1 },
    R::Purge,
    R::All { bytes: 3_000, sync: true },
    R::Write { group: 1, entries: 1, bytes: 10, sync: false },
];

/// The raft log, each file made anew.
const RAFT: Raft = Raft { name: "raft", steps: RAFT_STEPS, options: raft::OPTIONS };

/// The raft log as servers have it: files made ahead and used again.
const RECYCLED: Raft = Raft {
    name: "recycled",
    steps: RAFT_STEPS,
    options: EngineLogOptions { prefill_bytes: 12 << 10, ..raft::OPTIONS },
};

/// Raft log, segments, checkpoints and votes together.
const NODE: Node = Node { name: "node", rounds: 15, installs: None };

/// A node that was left behind takes a snapshot over, in which a log it has is gone and another is new.
const INSTALL: Node = Node { name: "install", rounds: 7, installs: Some((5, 30)) };

/// Something to do with a workload, whatever it is.
trait Task {
    type Output;
    fn with<S: Scenario>(&self, scenario: &S) -> Self::Output;
}

fn named<T: Task>(name: &str, task: &T, defect: bool) -> Option<T::Output> {
    if let Some(embedded) = [FIRST, SIZES, ROLLS, LIVES].into_iter().find(|known| known.name == name) {
        return Some(task.with(&Embedded { skips_recovered_sync: defect, ..embedded }));
    }
    if let Some(raft) = [RAFT, RECYCLED].into_iter().find(|known| known.name == name) {
        return Some(task.with(&raft));
    }
    [NODE, INSTALL].into_iter().find(|known| known.name == name).map(|node| task.with(&node))
}

struct RunIt<'a> {
    plan: &'a Plan,
    done: &'a (dyn Fn(usize, usize) + Sync),
}

impl Task for RunIt<'_> {
    type Output = Result<Outcome, Broken>;

    fn with<S: Scenario>(&self, scenario: &S) -> Self::Output {
        let costly = COSTLY.contains(&scenario.name());
        let first = if costly { self.plan.first } else { self.plan.first.times(CHEAPER) };
        run(scenario, &Plan { first, ..*self.plan }, self.done)
    }
}

struct ReplayIt<'a> {
    state: &'a State,
    left_out: LeftOut,
}

impl Task for ReplayIt<'_> {
    type Output = Result<Replayed, Broken>;

    fn with<S: Scenario>(&self, scenario: &S) -> Self::Output {
        self.state.replay(scenario, self.left_out)
    }
}

/// Goes through the workload `name`: see [`run`]. `None` if there is none of that name. With `defect`,
/// recovery does not sync what it keeps (a build with the feature `defects`).
pub fn run_named(
    name: &str,
    plan: &Plan,
    defect: bool,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Option<Result<Outcome, Broken>> {
    named(name, &RunIt { plan, done }, defect)
}

/// Makes a state again: see [`State::replay`]. `None` if there is no such workload.
#[must_use]
pub fn replay(state: &State, left_out: LeftOut, defect: bool) -> Option<Result<Replayed, Broken>> {
    named(&state.workload, &ReplayIt { state, left_out }, defect)
}
