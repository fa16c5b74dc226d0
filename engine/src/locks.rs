//! Locks, atomics and threads of the engine: the standard library's.
//!
//! Under the cargo feature `interleave` they are shuttle's, whose scheduler decides at every one of
//! them which thread goes on. A test then runs the same race over and over, each time in another order,
//! and an order that failed can be run again (`cargo xtask interleavings`). What is built so works inside
//! shuttle only, so the feature is never on in a server.
//!
//! What is shared between threads in the engine therefore comes from here: of a lock of its own the
//! scheduler would know nothing. `Arc`, `Weak` and `OnceLock` are the standard library's in both cases;
//! what initializes a `OnceLock` must take no lock.
//!
//! A lock that was poisoned is taken all the same: the engine changes what a lock guards only after
//! everything that can fail, so a panic elsewhere leaves it whole.

#[cfg(feature = "interleave")]
use shuttle as provider;
#[cfg(not(feature = "interleave"))]
use std as provider;

pub(crate) use provider::sync::{Condvar, Mutex, MutexGuard, atomic};
pub(crate) use provider::thread::{Scope, scope};
pub(crate) use std::sync::{Arc, OnceLock, PoisonError, TryLockError, Weak};

/// Starts a thread of a scope, unless the system gives none.
#[cfg(not(feature = "interleave"))]
pub(crate) fn spawn_in<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    work: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    std::thread::Builder::new().name(name).spawn_scoped(scope, work).map(drop)
}

/// The same of the scheduler's threads, which have no names and are always given.
#[cfg(feature = "interleave")]
pub(crate) fn spawn_in<'scope>(
    scope: &'scope Scope<'scope, '_>,
    _name: String,
    work: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    drop(scope.spawn(work));
    Ok(())
}
