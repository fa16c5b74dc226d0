use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tidelog_wire::ids::{Generation, Partition};

use super::*;

const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

fn all_well(group: &mut Group<'_>) -> usize {
    for wish in &mut group.wishes {
        wish.outcome = Some(Ok(None));
    }
    group.wishes.len()
}

/// Waits until so many have joined behind the leader.
fn gather(queue: &Queue, count: usize) {
    while queue.waiting().wishes.len() < count {
        thread::yield_now();
    }
}

/// What comes while one group is served is the next group, whole: five threads share the second.
#[test]
fn whoever_comes_while_a_group_is_served_is_served_by_the_next() {
    let queue = Queue::new(LOG, Arc::default());
    let sizes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let first = queue.wish(None, |group| {
            for _ in 0..5 {
                scope
                    .spawn(|| queue.wish(None, |group| sizes.lock().unwrap().push(all_well(group))).unwrap());
            }
            gather(&queue, 5);
            sizes.lock().unwrap().push(all_well(group));
        });
        first.unwrap();
    });
    assert_eq!(*sizes.lock().unwrap(), [1, 5]);
}

/// A leader that panics leaves nobody waiting: its group is told that its outcome is not known, and the next leads.
#[test]
fn a_leader_that_panics_leaves_nobody_waiting() {
    let queue = Queue::new(LOG, Arc::default());
    thread::scope(|scope| {
        let led = catch_unwind(AssertUnwindSafe(|| {
            queue.wish(None, |_| {
                for _ in 0..2 {
                    // Of these the first leads and gives no outcome to the other.
                    scope.spawn(|| {
                        let told = queue.wish(None, |_| {});
                        assert!(matches!(told, Err(EmbeddedError::Sync(_))), "{told:?}");
                    });
                }
                gather(&queue, 2);
                panic!("a bug in a leader");
            })
        }));
        assert!(led.is_err());
    });
    assert!(
        queue
            .wish(None, |group| {
                all_well(group);
            })
            .is_ok(),
        "nobody leads, so this one does"
    );
}
