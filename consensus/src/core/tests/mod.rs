//! The core against three nodes of its own kind, a log in memory and a network that obeys the test.

mod changes;
mod cluster;
mod hostile;
mod mem_log;
mod members;
mod pace;
mod quiet;
mod rows;
mod scenarios;
mod schedules;
mod snapshots;
mod starts;
