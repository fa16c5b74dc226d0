//! The locks of the desk: the standard library's. The test of its races (`tests/desk.rs`) builds the same file with
//! a scheduler's locks in their place, which decides at each of them which thread goes on.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
