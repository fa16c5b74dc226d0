//! Snapshots between two data directories on simulated disks.

mod any_source;
mod formats;
mod hostile;
mod site;
mod switch;
mod transfers;
