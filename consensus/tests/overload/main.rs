//! Overload: many times as much as three nodes take. A program of its own, since it looks at its own memory.

#![cfg(test)]

#[path = "../cluster/nodes.rs"]
#[expect(dead_code, reason = "the clusters of the other tests; not all of what they do is done here")]
mod nodes;

use std::time::Duration;

use bytes::Bytes;
use nodes::{Cluster, PATIENCE, batch};
use tidelog_consensus::entry::Command;
use tidelog_consensus::outcome::Outcome;
use tidelog_consensus::runtime::ProposeError;
use tidelog_wire::ids::TimestampMs;
use tokio::task::JoinSet;

/// Bytes of each batch, about.
const BATCH_BYTES: usize = 16 << 10;
/// Batches that are offered, as fast as they can be: far more than is done in that time.
const OFFERED: usize = 32_768;
/// As many are taken when nothing is known of the rate yet.
const ALWAYS: usize = 256;

/// Resident memory of this process.
#[expect(clippy::disallowed_methods, reason = "the process's own memory, as the system tells it")]
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// What is taken is acknowledged, what is not is told when to come again, and neither queue nor memory grows with what is
/// offered. Afterwards everything goes on as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_with_a_hint_and_memory_stays_flat() {
    let cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    let group = cluster.group_of(log);
    let leader = cluster.leader_of(log).await;
    let node = cluster.node(leader).clone();
    let template = batch(&"x".repeat(BATCH_BYTES));
    for _ in 0..50 {
        cluster.append(log, "warm up").await;
    }

    let before = resident_bytes();
    let (mut most_bytes, mut most_waiting, mut refused) = (0, 0, 0_usize);
    let mut under_way = JoinSet::new();
    let mut taken = 0_u64;
    for number in 0..OFFERED {
        // Memory of its own, as if it had come from a network.
        let batch = Bytes::copy_from_slice(&template);
        let command = Command::Append { log, append_time: TimestampMs(1), batch };
        under_way.spawn(node.submit(group, command, PATIENCE));
        while let Some(done) = under_way.try_join_next() {
            match done.unwrap() {
                Ok(outcome) => {
                    assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
                    taken += 1;
                }
                Err(ProposeError::Busy { retry_after_ms }) => {
                    assert!((1..=1000).contains(&retry_after_ms), "a hint of {retry_after_ms} ms");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if number % 64 == 0 {
            most_waiting = most_waiting.max(node.waiting());
            most_bytes = most_bytes.max(resident_bytes());
            tokio::task::yield_now().await;
        }
    }
    while let Some(done) = under_way.join_next().await {
        match done.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => {
                assert!(matches!(error, ProposeError::Busy { .. }), "{error}");
                refused += 1;
            }
        }
    }

    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    let done = usize::try_from(taken).unwrap();
    assert!(most_waiting <= ALWAYS.max(done), "{most_waiting} waited at a time, {taken} were done in all");
    let grown = most_bytes.saturating_sub(before);
    assert!(grown < OFFERED * BATCH_BYTES / 2, "{grown} bytes more for {} offered", OFFERED * BATCH_BYTES);
    println!("{taken} taken, {refused} refused, {most_waiting} waited at most, {grown} bytes more at most");

    let command = Command::Append { log, append_time: TimestampMs(1), batch: batch("after") };
    let outcome = node.submit(group, command, Duration::from_secs(20)).await;
    assert!(matches!(outcome, Ok(Outcome::Appended { .. })), "{outcome:?}");
    assert_eq!(node.waiting(), 0);
}
