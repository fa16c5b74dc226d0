//! One scenario for each row of the table, on a node alone: its raft log is spoiled between two starts.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{OpenMode, Position, Storage};

use super::*;
use crate::core::Role;
use crate::runtime::one_node::{config, serves};
use crate::runtime::{Node, NodeHandle};

const GROUP: GroupId = GroupId(1);

/// The directory of a node that has served, and was killed.
async fn served() -> (TempDir, NodeConfig) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(&dir)).await.unwrap();
    serves(&node).await;
    node.abandon().await;
    let config = config(&dir);
    (dir, config)
}

fn halted(node: &NodeHandle) -> Vec<GroupId> {
    let statuses = node.group_status();
    statuses.iter().filter(|status| status.role == Role::Halted).map(|status| status.group).collect()
}

/// Writes over the beginning of a raft log file that is not the last.
fn spoil(config: &NodeConfig) {
    let raft = config.data_dir.join("raft");
    let names = OsStorage.list(&raft).unwrap();
    let last = names.iter().rfind(|found| found.name.ends_with(".raftlog")).unwrap();
    let number: u64 = last.name.trim_end_matches(".raftlog").parse().unwrap();
    OsStorage.open(&raft.join(format!("{:016}.raftlog", number + 1)), OpenMode::CreateNew).unwrap();
    let file = OsStorage.open(&raft.join(&last.name), OpenMode::ReadWrite).unwrap();
    file.write_at(Position(0), &[&[0x5a; 16]]).unwrap();
}

/// Pieces in quarantine whose name shows where they come from.
fn pieces(data: &Path, origin: &str) -> usize {
    let names = OsStorage.list(&data.join("quarantine")).unwrap();
    names.iter().filter(|found| found.name.ends_with(&format!("-{origin}.piece"))).count()
}

const SCENARIOS: &[&str] =
    &["raft_log_read", "raft_log_damaged", "raft_log_refused", "raft_log_of_a_group_lost"];

#[tokio::test]
async fn raft_log_read() {
    let (_dir, config) = served().await;
    let node = Node::start(config).await.unwrap();
    assert_eq!(halted(&node), []);
    node.abandon().await;
}

#[tokio::test]
async fn raft_log_damaged() {
    let (_dir, config) = served().await;
    spoil(&config);
    let node = Node::start(config.clone()).await.unwrap();
    let notes = node.recovery_notes();
    assert!(notes.iter().any(|note| note.starts_with("E1102")), "{notes:?}");
    assert_eq!(pieces(&config.data_dir, "raft"), 1);
    // The votes file knows what the raft log promised.
    assert_eq!(halted(&node), [GroupId::META, GROUP]);
    node.abandon().await;
}

#[tokio::test]
async fn raft_log_refused() {
    let (_dir, config) = served().await;
    let raft = config.data_dir.join("raft");
    let away = config.data_dir.join("raft.away");
    OsStorage.rename(&raft, &away).unwrap();
    drop(OsStorage.open(&raft, OpenMode::CreateNew).unwrap());
    let error = Node::start(config.clone()).await.unwrap_err();
    assert!(error.to_string().starts_with("E1101"), "{error}");
    // Nothing was changed: with the directory back in its place the node is what it was.
    OsStorage.remove(&raft).unwrap();
    OsStorage.rename(&away, &raft).unwrap();
    let node = Node::start(config).await.unwrap();
    assert_eq!(halted(&node), []);
    node.abandon().await;
}

/// The hard state of one group is not what this release writes. The other group goes on.
#[tokio::test]
async fn raft_log_of_a_group_lost() {
    let (_dir, config) = served().await;
    let engine = raft_engine::Engine::open(raft_engine::Config {
        dir: config.data_dir.join("raft").to_str().unwrap().to_owned(),
        ..raft_engine::Config::default()
    })
    .unwrap();
    let mut batch = raft_engine::LogBatch::default();
    batch.put(GROUP.get(), b"hard-state".to_vec(), b"spoiled".to_vec()).unwrap();
    engine.write(&mut batch, true).unwrap();
    drop(engine);
    let node = Node::start(config).await.unwrap();
    assert_eq!(halted(&node), [GROUP]);
    let notes = node.recovery_notes();
    assert!(notes.iter().any(|note| note.contains("E1102") && note.contains("hard-state")), "{notes:?}");
    node.abandon().await;
}

#[test]
fn every_sight_meets_exactly_one_row_and_every_row_has_its_scenario() {
    for part in [Part::Whole, Part::OneGroup] {
        for seen in [Seen::Read, Seen::Damaged, Seen::Refused] {
            let rows = TABLE.iter().filter(|row| row.holds(part, seen)).count();
            assert_eq!(rows, 1, "{part:?}, {seen:?}");
        }
    }
    let rows: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, SCENARIOS.iter().copied().collect());
}

/// `docs/recovery.md` shows the table row by row: those of the code, and no others.
#[test]
fn the_documentation_shows_the_same_rows() {
    let shown_row =
        |row: &Row| format!("| {} | {:?} | {:?} | {:?} |", row.name, row.parts, row.seen, row.verdict);
    let rows: Vec<String> = TABLE.iter().map(shown_row).collect();
    let text = include_str!("../../../../../docs/recovery.md");
    let shown: Vec<&str> = text.lines().filter(|line| line.starts_with("| raft_log_")).collect();
    assert_eq!(shown, rows, "as they should be:\n{}", rows.join("\n"));
}

/// Story: the start set a damaged raft log aside through a quarantine of its own, beside the engine's. Neither
/// knew what the other had set aside at this start, so a large raft log pushed out what the engine had moved there a
/// moment before, which is to be kept until the next start.
#[tokio::test]
async fn a_large_raft_log_does_not_push_out_what_the_same_start_set_aside() {
    let (_dir, config) = served().await;
    let stray = config.data_dir.join("checkpoints").join("1").join("stray");
    OsStorage.open(&stray, OpenMode::CreateNew).unwrap().write_at(Position(0), &[b"somebody's"]).unwrap();
    spoil(&config);
    // More than the quarantine may hold, of which the disk has to give one block.
    let large = config.data_dir.join("raft").join("large");
    OsStorage.open(&large, OpenMode::CreateNew).unwrap().write_at(Position(2 << 30), &[b"end"]).unwrap();
    let node = Node::start(config.clone()).await.unwrap();
    assert_eq!(pieces(&config.data_dir, "raft"), 1);
    assert_eq!(pieces(&config.data_dir, "checkpoints-1-stray"), 1);
    node.abandon().await;
}
