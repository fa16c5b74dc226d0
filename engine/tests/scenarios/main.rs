//! The engine seen from outside: what a caller was promised, held against what it gets back.

#[cfg(test)]
mod append_and_read;
#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod crash_enumeration;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod golden_files;
#[cfg(test)]
mod harm;
#[cfg(test)]
mod lost_starts;
#[cfg(test)]
mod model;
#[cfg(test)]
mod offline_compare;
#[cfg(test)]
mod offline_doubts;
#[cfg(test)]
mod offline_names;
#[cfg(test)]
mod offline_repair;
#[cfg(test)]
mod offline_strangers;
#[cfg(test)]
mod offline_verify;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod recovery_report;
#[cfg(test)]
mod recovery_rows;
#[cfg(test)]
mod recovery_under_consensus;
#[cfg(test)]
mod seals;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod world;
