//! Old lives of a channel never return, whatever a follower has missed or lost. Each test is named for what it prevents;
//! docs/generations.md says which fence it holds.

use tidelog_consensus::entry::{Command, MetaCommand};
use tidelog_consensus::outcome::Outcome;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_wire::ids::{Generation, GroupId, LogId, Offset};

use super::nodes::{Cluster, PATIENCE, read_all};

/// The follower that is away in all of these.
const AWAY: usize = 2;

/// Three nodes with one data group, whose raft log soon forgets.
async fn forgetful() -> Cluster {
    Cluster::bootstrap_with(3, |config| {
        config.tuning.checkpoints.bytes = 2_000;
        config.data_groups = 1;
    })
    .await
}

impl Cluster {
    async fn append_many(&self, log: LogId, name: &str, count: u64) {
        for number in 0..count {
            let outcome = self.append(log, &format!("{name} {number}")).await;
            assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
        }
    }

    /// Ends a channel's life, once no running node has its logs any more.
    async fn delete(&self, generation: Generation) {
        let command = || Command::Meta(MetaCommand::DeleteChannels(vec![generation]));
        self.propose(GroupId::META, command).await;
        for handle in self.handles() {
            let mut statuses = handle.watch_statuses();
            let gone = async {
                while handle.logs().iter().any(|log| log.generation == generation) {
                    statuses.changed().await.unwrap();
                }
            };
            assert!(
                tokio::time::timeout(PATIENCE, gone).await.is_ok(),
                "generation {generation} is still open"
            );
        }
    }

    /// Writes to `log` until nobody who runs has the entries any more that `AWAY` lacks; the log's end then.
    async fn until_forgotten(&self, log: LogId, mut end: u64, behind: tidelog_wire::ids::RaftIndex) -> u64 {
        let group = self.group_of(log);
        while (0..AWAY).any(|node| self.status(node, group).first <= behind) {
            self.append(log, &format!("filler {end}")).await;
            end += 1;
            assert!(end < 5_000, "nothing is forgotten");
        }
        end
    }

    /// Names of a log's segments on a node's disk.
    fn segments(&self, node: usize, log: LogId) -> Vec<String> {
        let logs = self.data_dir(node).join("logs");
        let dir = logs.join(log.generation.to_string()).join(log.partition.to_string());
        let mut names: Vec<_> =
            OsStorage.list(&dir).unwrap_or_default().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    }

    /// Waits until `AWAY` has no file of that log any more; appends to `other` meanwhile, which brings checkpoints.
    async fn files_go(&self, log: LogId, other: LogId) {
        let gone = async {
            while !self.segments(AWAY, log).is_empty() {
                self.append(other, "and another").await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, gone).await.is_ok(), "{:?}", self.segments(AWAY, log));
    }
}

/// A follower has an older life of a name than the snapshot that it gets. The old one is not served any more, and its
/// files go.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_does_not_leave_an_older_life_of_a_name_behind() {
    let mut cluster = forgetful().await;
    let old = cluster.create_channel("flights", 1).await;
    cluster.append_many(old, "old", 20).await;
    cluster.caught_up(AWAY, old, Offset(20)).await;
    let behind = cluster.status(AWAY, cluster.group_of(old)).last;
    cluster.kill(AWAY).await;
    cluster.delete(old.generation).await;
    let new = cluster.create_channel("flights", 1).await;
    assert_ne!(new.generation, old.generation);
    cluster.append_many(new, "new", 7).await;
    let end = cluster.until_forgotten(new, 7, behind).await;
    cluster.start(AWAY).await;
    cluster.caught_up(AWAY, new, Offset(end)).await;
    assert!(cluster.node(AWAY).reader(old).is_none(), "the old life is served");
    assert_eq!(read_all(cluster.node(AWAY), new), read_all(cluster.node(0), new));
    cluster.files_go(old, new).await;
}

/// The same by the entries themselves, which are all there.
#[tokio::test(flavor = "multi_thread")]
async fn replay_does_not_leave_an_older_life_of_a_name_behind() {
    let mut cluster = Cluster::bootstrap_with(3, |config| config.data_groups = 1).await;
    let old = cluster.create_channel("flights", 1).await;
    cluster.append_many(old, "old", 20).await;
    cluster.caught_up(AWAY, old, Offset(20)).await;
    cluster.kill(AWAY).await;
    cluster.delete(old.generation).await;
    let new = cluster.create_channel("flights", 1).await;
    cluster.append_many(new, "new", 7).await;
    cluster.start(AWAY).await;
    cluster.caught_up(AWAY, new, Offset(7)).await;
    assert!(cluster.node(AWAY).reader(old).is_none(), "the old life is served");
    assert_eq!(read_all(cluster.node(AWAY), new), read_all(cluster.node(0), new));
}

/// Whoever still writes to the old life is told so, and nothing of it lands in the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_for_an_older_life_does_not_land_in_the_newer_one() {
    let cluster = Cluster::bootstrap_with(1, |config| config.data_groups = 1).await;
    let old = cluster.create_channel("flights", 1).await;
    cluster.append_many(old, "old", 3).await;
    let group = cluster.group_of(old);
    cluster.delete(old.generation).await;
    let new = cluster.create_channel("flights", 1).await;
    let late = || Command::Append {
        log: old,
        append_time: tidelog_wire::ids::TimestampMs(1),
        batch: super::nodes::batch("late"),
    };
    let outcome = cluster.propose(group, late).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    cluster.append_many(new, "new", 2).await;
    assert_eq!(read_all(cluster.node(0), new), ["new 0", "new 1"]);
}

/// A log was purged while a follower was away. It has the records on its disk, and shows none of them again.
#[tokio::test(flavor = "multi_thread")]
async fn records_purged_while_a_follower_was_away_do_not_return() {
    let mut cluster = forgetful().await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append_many(log, "old", 30).await;
    cluster.caught_up(AWAY, log, Offset(30)).await;
    let group = cluster.group_of(log);
    let behind = cluster.status(AWAY, group).last;
    cluster.kill(AWAY).await;
    let purged = cluster.propose(group, || Command::SetLogStart { log, start: Offset(30) }).await;
    assert!(matches!(purged, Outcome::LogStartSet { .. }), "{purged:?}");
    let end = cluster.until_forgotten(log, 30, behind).await;
    cluster.start(AWAY).await;
    cluster.caught_up(AWAY, log, Offset(end)).await;
    let reader = cluster.node(AWAY).reader(log).unwrap();
    assert_eq!(reader.start(), Offset(30));
    assert!(reader.read(Offset(29), 1 << 20).is_err(), "a purged record is served");
    let values = read_all(cluster.node(AWAY), log);
    assert!(values.iter().all(|value| value.starts_with("filler")), "{values:?}");
    assert_eq!(values, read_all(cluster.node(0), log));
}

/// A follower lost its segments and kept its raft log. What it lacks it refuses to serve, by name, and serves nothing else
/// in its place; what is written from then on it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_its_segments_serves_nothing_in_their_place() {
    let mut cluster = forgetful().await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append_many(log, "old", 60).await;
    cluster.caught_up(AWAY, log, Offset(60)).await;
    cluster.stop(AWAY).await;
    cluster.forget_segments(AWAY);
    cluster.start(AWAY).await;
    cluster.append_many(log, "new", 5).await;
    cluster.caught_up(AWAY, log, Offset(65)).await;
    let reader = cluster.node(AWAY).reader(log).unwrap();
    assert!(reader.read(Offset(3), 1 << 20).is_err(), "something is served that is not there");
    let tail = reader.read(Offset(60), 1 << 20).unwrap();
    assert_eq!(tail.next, Offset(65));
    assert_eq!(read_all(cluster.node(0), log).len(), 65);
}
