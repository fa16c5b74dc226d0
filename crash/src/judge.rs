//! Holds one state to its promise.
//!
//! 1. It opens, and what was acknowledged is there ([`Scenario::open`]).
//! 2. The power is cut at once: every record that this start showed is there again, in the same bytes. (A file
//!    that it had no more use for may come back; the next start has no more use for it either.)
//! 3. It opens a second time to the same bytes (of those files of which a scenario says so), takes more work, and
//!    acknowledges it.
//! 4. The power is cut: what was acknowledged is there.
//!
//! A panic in any of it is a broken promise too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_engine::sim_disk::{Crash, SimDisk};

use crate::recorder::{LeftOut, Recorder};
use crate::scenario::{Broken, Scenario, formatted, holds};
use crate::trace::Trace;

fn at<T>(stage: &str, done: Result<T, Broken>) -> Result<T, Broken> {
    done.map_err(|Broken(what)| Broken(format!("{stage}: {what}")))
}

fn without_panic<T>(work: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(Broken(format!("panicked: {}", words.unwrap_or_else(|| "without words".to_owned()))))
    })
}

/// Hash of those bytes that no further start may change.
fn steady<S: Scenario>(scenario: &S, disk: &SimDisk) -> u64 {
    disk.fingerprint_of(&|path| scenario.is_steady(path))
}

/// Hash of what recovery made of a disk. What it set aside and what it reported are as many as there are ways to tear, and
/// say nothing of what is served.
fn recovery(disk: &SimDisk) -> u64 {
    const SERVED: [&str; 3] = ["/data/logs", "/data/raft", "/data/checkpoints"];
    disk.fingerprint_of(&|path| SERVED.iter().any(|served| path.starts_with(served)))
}

/// `disk` after a power cut that loses everything unsynced.
fn cut(disk: &SimDisk) -> SimDisk {
    let cut = disk.fork();
    cut.crash(Crash::LoseUnsynced);
    cut
}

/// See the module. Returns a hash of what recovery made of the state.
///
/// # Errors
/// [`Broken`], with the stage at which it was.
pub fn judge<S: Scenario>(scenario: &S, crashed: &SimDisk, promise: &S::Promise) -> Result<u64, Broken> {
    without_panic(|| {
        let disk = crashed.fork();
        let (held, shown) = at("opening", scenario.open(&disk.storage(), promise))?;
        let recovered = recovery(&disk);
        let steadied = steady(scenario, &disk);
        let cut_at_once = cut(&disk);
        drop(held);
        let (mut held, again) = at("opening again", scenario.open(&disk.storage(), &shown))?;
        holds(steady(scenario, &disk) == steadied, || "opening again changed bytes".to_owned())?;
        let more = at("going on", scenario.go_on(&mut held, &again, &|_| ()))?;
        let cut_later = cut(&disk);
        drop(held);
        drop(at("after a power cut that followed the start", scenario.open(&cut_at_once.storage(), &shown))?);
        drop(at("after a power cut that followed more work", scenario.open(&cut_later.storage(), &more))?);
        Ok(recovered)
    })
}

/// The shorter form for states of which there are very many: it opens, and what was acknowledged is there.
///
/// # Errors
/// [`Broken`].
pub fn opens<S: Scenario>(scenario: &S, crashed: &SimDisk, promise: &S::Promise) -> Result<u64, Broken> {
    without_panic(|| {
        let disk = crashed.fork();
        let (held, _) = at("opening", scenario.open(&disk.storage(), promise))?;
        let recovered = recovery(&disk);
        drop(held);
        Ok(recovered)
    })
}

/// Records a start on `crashed`, and some work after it.
///
/// # Errors
/// [`Broken`], as [`judge`].
pub fn record_recovery<S: Scenario>(
    scenario: &S,
    crashed: &SimDisk,
    promise: &S::Promise,
    left_out: LeftOut,
) -> Result<Trace<S::Promise>, Broken> {
    without_panic(|| {
        let disk = crashed.fork();
        let recorder = Recorder::new(&disk, promise.clone(), left_out);
        let (mut held, shown) = at("opening", scenario.open(&recorder.storage(), promise))?;
        recorder.promise(shown.clone());
        let tell = |promise| recorder.promise(promise);
        let more = at("going on", scenario.go_on(&mut held, &shown, &tell))?;
        recorder.promise(more);
        let trace = recorder.taken();
        drop(held);
        Ok(trace)
    })
}

/// Records the whole workload, to its orderly end.
///
/// # Errors
/// [`Broken`] if the workload fails on a disk that does not.
pub fn record<S: Scenario>(scenario: &S, left_out: LeftOut) -> Result<Trace<S::Promise>, Broken> {
    without_panic(|| {
        let recorder = Recorder::new(&formatted()?, S::Promise::default(), left_out);
        let tell = |promise| recorder.promise(promise);
        at("working", scenario.work(&recorder.storage(), &tell))?;
        Ok(recorder.taken())
    })
}
