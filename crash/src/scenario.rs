//! What the enumeration asks of a workload.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::Storage;

/// A promise that was not kept, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl Broken {
    /// Something that must not fail did: for `map_err`.
    pub fn by<E: Display>(doing: &str) -> impl FnOnce(E) -> Self {
        let doing = doing.to_owned();
        move |error| Self(format!("{doing}: {error}"))
    }
}

/// Fails with `what` unless it is `true`.
///
/// # Errors
/// [`Broken`], with the words of `what`.
pub fn holds(is: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if is { Ok(()) } else { Err(Broken(what())) }
}

/// A workload, and how what a crash leaves of it is held to what it was promised.
pub trait Scenario: Sync {
    /// What has been acknowledged, and what was asked for and may have happened.
    type Promise: Clone + Send + Sync + 'static;
    /// What is open while a process lives. Dropping it is that process's orderly end.
    type Held;

    /// Its name: one word, never changed, since whoever repeats a state names it.
    fn name(&self) -> &'static str;

    /// The disk before the workload, and what is promised of it.
    ///
    /// # Errors
    /// [`Broken`] if not even that can be made.
    fn begin(&self) -> Result<(SimDisk, Self::Promise), Broken>;

    /// The workload, on a disk that never fails. It tells what is promised from then on: **before** it
    /// asks for something (it may have happened), and when that is acknowledged (it must have).
    ///
    /// # Errors
    /// [`Broken`] if anything in it fails.
    fn work(
        &self,
        storage: &Arc<dyn Storage>,
        promise: Self::Promise,
        tell: &dyn Fn(Self::Promise),
    ) -> Result<(), Broken>;

    /// Starts on what is there and checks it. Returns what holds from now on: what was found counts as
    /// acknowledged, because it is shown.
    ///
    /// # Errors
    /// [`Broken`].
    fn open(
        &self,
        storage: &Arc<dyn Storage>,
        promise: &Self::Promise,
    ) -> Result<(Self::Held, Self::Promise), Broken>;

    /// Goes on working, and is acknowledged more; tells what as [`Scenario::work`] does.
    ///
    /// # Errors
    /// [`Broken`].
    fn go_on(
        &self,
        held: &mut Self::Held,
        promise: &Self::Promise,
        tell: &dyn Fn(Self::Promise),
    ) -> Result<Self::Promise, Broken>;

    /// Whether the file must have the same bytes after every further start. Those of a start's own
    /// count (the boot epoch, raft-engine's first batch) do not.
    fn is_steady(&self, path: &Path) -> bool;
}
