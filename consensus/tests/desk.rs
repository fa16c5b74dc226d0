//! The races at a desk, in many orders: what is brought is done, once, in the order of each bringer, whoever does it.
//!
//! The desk's own file is built here with a scheduler's locks, which decides at each of them which thread goes on. An order
//! that fails is printed and can be run again.

#![cfg(test)]
#![expect(dead_code, reason = "the files are the runtime's; not all of them is used here")]

#[path = "../src/runtime/desk.rs"]
mod desk;
mod locks {
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::{PoisonError, TryLockError};
}

use std::time::Duration;

use desk::{Desk, NotTaken, Waited, Worked, Worker};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Orders that each race is run in.
const ORDERS: usize = 3_000;
/// Points of an order at which another thread may be preferred.
const DEPTH: usize = 3;

/// Writes down what it is given, and whether two ever worked at a time.
struct Clerk {
    done: Arc<Mutex<Vec<(usize, usize)>>>,
    working: Arc<AtomicUsize>,
}

impl Worker<(usize, usize)> for Clerk {
    type After = usize;

    fn work(&mut self, items: &mut Vec<(usize, usize)>) -> usize {
        assert_eq!(self.working.fetch_add(1, Ordering::SeqCst), 0, "one works at a time");
        let count = items.len();
        self.done.lock().unwrap().append(items);
        self.working.fetch_sub(1, Ordering::SeqCst);
        count
    }
}

type Noted = Arc<Mutex<Vec<(usize, usize)>>>;
type Shared = Arc<Desk<(usize, usize), Clerk>>;

fn desk() -> (Shared, Noted) {
    let done: Noted = Arc::default();
    let desk = Arc::new(Desk::new(2, 100));
    desk.seat(Clerk { done: Arc::clone(&done), working: Arc::default() });
    (desk, done)
}

/// All that `bringers` brought, each in its order.
fn complete(done: &Noted, bringers: usize, each: usize) {
    let done = done.lock().unwrap().clone();
    for bringer in 0..bringers {
        let of: Vec<_> =
            done.iter().filter(|(from, _)| *from == bringer).map(|(_, number)| *number).collect();
        assert_eq!(of, (0..each).collect::<Vec<_>>(), "of bringer {bringer}");
    }
    assert_eq!(done.len(), bringers * each);
}

/// Nobody is left to look once all bringers are gone, and nothing may wait then.
#[test]
fn what_is_brought_while_another_lets_go_is_done() {
    let race = || {
        let (desk, done) = desk();
        let bringers: Vec<_> = (0..3)
            .map(|bringer| {
                let desk = Arc::clone(&desk);
                thread::spawn(move || {
                    for number in 0..2 {
                        desk.put((bringer, number));
                        assert_eq!(desk.work(u32::MAX, |count| assert!(count > 0)), Worked::Done);
                    }
                })
            })
            .collect();
        for bringer in bringers {
            bringer.join().unwrap();
        }
        complete(&done, 3, 2);
    };
    shuttle::check_pct(race, ORDERS, DEPTH);
    shuttle::check_random(race, ORDERS);
}

/// Who has done its rounds leaves the rest to the desk's thread, which nobody has to wait for.
#[test]
fn what_a_bringer_leaves_the_called_thread_does() {
    let race = || {
        let (desk, done) = desk();
        let thread = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                while desk.wait(Duration::MAX) == Waited::Open {
                    while desk.work(1, drop) == Worked::Left {}
                }
            })
        };
        let bringers: Vec<_> = (0..2)
            .map(|bringer| {
                let desk = Arc::clone(&desk);
                thread::spawn(move || {
                    for number in 0..2 {
                        desk.put((bringer, number));
                        // Odd ones are not for bringers to do.
                        let may = |_: &Clerk, items: &[(usize, usize)]| {
                            items.iter().all(|(_, number)| number % 2 == 0)
                        };
                        if desk.work_if(1, may, drop) == Worked::Left {
                            desk.call();
                        }
                    }
                })
            })
            .collect();
        for bringer in bringers {
            bringer.join().unwrap();
        }
        desk.close();
        thread.join().unwrap();
        complete(&done, 2, 2);
    };
    shuttle::check_pct(race, ORDERS, DEPTH);
    shuttle::check_random(race, ORDERS);
}

/// A full desk refuses offers and takes answers; once closed it takes neither, and what waits is done all the same.
#[test]
fn offers_stop_at_the_limits_and_at_the_end() {
    let race = || {
        let (desk, done) = desk();
        let offered = Arc::new(AtomicUsize::new(0));
        let bringers: Vec<_> = (0..2)
            .map(|bringer| {
                let (desk, offered) = (Arc::clone(&desk), Arc::clone(&offered));
                thread::spawn(move || match desk.offer((bringer, 0), 60) {
                    Ok(()) => {
                        offered.fetch_add(1, Ordering::SeqCst);
                        desk.work(u32::MAX, drop);
                    }
                    Err(why) => assert!(matches!(why, NotTaken::Full | NotTaken::Closed)),
                })
            })
            .collect();
        desk.close();
        for bringer in bringers {
            bringer.join().unwrap();
        }
        assert_eq!(done.lock().unwrap().len(), offered.load(Ordering::SeqCst));
        assert!(desk.leave().is_some());
        assert_eq!(desk.work(1, drop), Worked::Left, "nobody is seated");
    };
    shuttle::check_random(race, ORDERS);
}
