//! What the enumeration asks of a workload.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity};
use tidelog_wire::ids::{ClusterId, Incarnation, NodeId};

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

/// Where the data directory of every workload is.
#[must_use]
pub fn data() -> &'static Path {
    Path::new("/data")
}

/// A disk with a formatted data directory.
///
/// # Errors
/// [`Broken`] if not even that can be made.
pub fn formatted() -> Result<SimDisk, Broken> {
    let disk = SimDisk::new(0);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    Engine::format(&disk.storage(), data(), new).map_err(Broken::by("format"))?;
    Ok(disk)
}

/// A workload, and how what a crash leaves of it is held to what it was promised.
pub trait Scenario: Sync {
    /// What has been acknowledged, and what was asked for and may have happened.
    ///
    /// By default what holds of a data directory that was just formatted.
    type Promise: Clone + Default + Send + Sync + 'static;
    /// What is open while a process lives. Dropping it is that process's orderly end.
    type Held;

    /// Its name: one word, never changed, since whoever repeats a state names it.
    fn name(&self) -> &'static str;

    /// The workload, on a disk that never fails, with a data directory that was just formatted. It tells what is promised from then on: **before** it
    /// asks for something (it may have happened), and when that is acknowledged (it must have).
    ///
    /// # Errors
    /// [`Broken`] if anything in it fails.
    fn work(&self, storage: &Arc<dyn Storage>, tell: &dyn Fn(Self::Promise)) -> Result<(), Broken>;

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

    /// An orderly stop and a new start.
    ///
    /// # Errors
    /// [`Broken`], as [`Scenario::open`].
    fn restart(
        &self,
        held: Self::Held,
        storage: &Arc<dyn Storage>,
        promise: &Self::Promise,
        tell: &dyn Fn(Self::Promise),
    ) -> Result<(Self::Held, Self::Promise), Broken> {
        drop(held);
        let (held, shown) = self.open(storage, promise)?;
        tell(shown.clone());
        Ok((held, shown))
    }

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
