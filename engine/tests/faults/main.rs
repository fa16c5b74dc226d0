//! Faults that are not crashes, injected at every call site of the storage trait.
//!
//! No fault may give wrong data, a panic, or a log so stuck that its neighbours stop too. After a failed
//! sync a log is fenced and says so. With the disk mended everything that was promised and that the fault
//! did not itself destroy is there, and the log takes appends again. The outcomes are in `docs/faults.md`.

#[cfg(test)]
mod consensus;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod enumeration;
#[cfg(test)]
mod outcome;
#[cfg(test)]
mod promise;
#[cfg(test)]
mod sites;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod world;
