//! Nodes that come, go, come back empty, and are upgraded.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::Stream;
use crate::cluster::{Cluster, number, output, tidelog, turn};

/// The node's state in `cluster status`.
fn state(status: &Value, node: u64) -> Option<&str> {
    let nodes = status.pointer("/nodes")?.as_array()?;
    let found = nodes.iter().find(|found| found.get("id").and_then(Value::as_u64) == Some(node))?;
    found.get("state")?.as_str()
}

/// docs/operations/grow.md, a cluster of `up`: from one node to three while records go in.
#[test]
fn a_cluster_grows_from_one_node_to_three_under_load() {
    let cluster = Cluster::of(1);
    let mut stream = Stream::begin(&cluster);
    let added = cluster.json(&["cluster", "add-node", "--dir", cluster.text()]);
    assert_eq!(number(&added, "/node"), 1);
    stream.go_on(500);
    let added = cluster.json(&["cluster", "add-node", "--dir", cluster.text()]);
    assert_eq!(number(&added, "/node"), 2);
    stream.go_on(500);
    let status = cluster.json(&["cluster", "status"]);
    for node in 0..3 {
        assert_eq!(state(&status, node), Some("active"), "{status}");
    }
    assert_eq!(status.pointer("/under_way"), Some(&Value::Array(Vec::new())), "{status}");
    stream.finish(&cluster, &[0, 1, 2]);
    // Any one of three may die now, the one that was the whole cluster too.
    cluster.kill(&cluster.status(), 0);
    cluster.json(&["channel", "create", "afterwards"]);
    cluster.up();
}

/// A process that is stopped with its test.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Stops what `add-node` started in a folder of its own.
struct StoppedNode(std::path::PathBuf);

impl Drop for StoppedNode {
    fn drop(&mut self) {
        let record = std::fs::read_to_string(self.0.join("process.toml")).unwrap_or_default();
        let pid =
            record.lines().find_map(|line| line.strip_prefix("pid = ")).and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
        }
    }
}

/// docs/operations/grow.md, from one node to three: a bare `tidelogd`, its own authority, folders of their own.
#[test]
fn a_bare_server_grows_by_its_own_authority() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = std::path::Path::new(env!("CARGO_BIN_EXE_tidelog")).with_file_name("tidelogd");
    let bare = Command::new(server)
        .args(["--base-port", "0", "--data-dir"])
        .arg(&data)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _bare = Stopped(bare);
    let profile = data.join("client.toml");
    let run = |arguments: &[&str]| {
        let output = output(tidelog().arg("--profile").arg(&profile).args(arguments).arg("--json"));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            serde_json::from_slice::<Value>(&output.stdout).unwrap_or(Value::Null),
            errors,
            output.status.success(),
        )
    };
    let mut created = (Value::Null, String::new(), false);
    for _ in 0..600 {
        created = run(&["channel", "create", "flights"]);
        if created.2 {
            break;
        }
    }
    assert!(created.2, "{created:?}");
    let ca = data.join("tls");
    let folders: Vec<_> = (1..3).map(|node| dir.path().join(format!("node-{node}"))).collect();
    let _nodes: Vec<_> = folders.iter().cloned().map(StoppedNode).collect();
    for folder in &folders {
        let folder = folder.to_str().unwrap();
        let added = run(&["cluster", "add-node", "--node-dir", folder, "--ca", ca.to_str().unwrap()]);
        assert!(added.2, "{added:?}");
    }
    let (status, errors, _) = run(&["cluster", "status"]);
    for node in 0..3 {
        assert_eq!(state(&status, node), Some("active"), "{status} {errors}");
    }
    let compared = run(&["cluster", "compare"]);
    assert!(compared.2, "{compared:?}");
}

/// docs/operations/shrink.md: a drained node takes nothing with it, and its process is stopped at the end.
#[test]
fn a_node_leaves_when_everything_is_off_it() {
    let cluster = Cluster::of(4);
    let mut stream = Stream::begin(&cluster);
    cluster.json(&["cluster", "remove-node", "3", "--dir", cluster.text()]);
    stream.go_on(500);
    let status = cluster.json(&["cluster", "status"]);
    assert_eq!(state(&status, 3), Some("removed"), "{status}");
    let again = cluster.json(&["cluster", "remove-node", "3", "--dir", cluster.text()]);
    assert_eq!(number(&again, "/node"), 3, "called again it is done already");
    stream.finish(&cluster, &[0, 1, 2]);

    let refused = cluster.refused(2, &["cluster", "remove-node", "77"]);
    assert!(refused.contains("E3212"), "{refused}");
}

/// docs/operations/shrink.md: what would be unsafe is refused with the reason, and nothing is changed.
#[test]
fn the_last_node_cannot_be_removed() {
    let cluster = Cluster::of(1);
    let refused = cluster.refused(1, &["cluster", "remove-node", "0", "--dir", cluster.text()]);
    assert!(refused.contains("E2123") && refused.contains("the only one"), "{refused}");
    let status = cluster.json(&["cluster", "status"]);
    assert_eq!(state(&status, 0), Some("active"), "{status}");
    cluster.json(&["channel", "create", "flights"]);
}

/// docs/operations/replace.md: an emptied directory comes back under new replica numbers, filled from the others.
#[test]
fn a_node_whose_disk_is_lost_is_replaced_and_filled_from_the_others() {
    let cluster = Cluster::start();
    let mut stream = Stream::begin(&cluster);
    let replicas = |status: &Value, node: u64| -> Vec<u64> {
        let groups = status.pointer("/groups").and_then(Value::as_array).cloned().unwrap_or_default();
        let members = groups.iter().filter_map(|group| group.get("members")?.as_array().cloned()).flatten();
        members
            .filter(|member| member.get("node").and_then(Value::as_u64) == Some(node))
            .filter_map(|member| member.get("replica").and_then(Value::as_u64))
            .collect()
    };
    let before = replicas(&cluster.json(&["cluster", "status"]), 1);
    cluster.kill(&cluster.status(), 1);
    std::fs::remove_dir_all(cluster.dir().join("node-1/data")).unwrap();
    stream.go_on(500);
    cluster.json(&["cluster", "replace-node", "1", "--dir", cluster.text()]);
    let status = cluster.json(&["cluster", "status"]);
    let after = replicas(&status, 1);
    assert_eq!(before.len(), after.len(), "{status}");
    assert!(
        before.iter().all(|replica| !after.contains(replica)),
        "no number is used again: {before:?} {after:?}"
    );
    stream.finish(&cluster, &[0, 1, 2]);
}

/// docs/operations/upgrade.md: one node after the other, leaders first handed over.
#[test]
fn nodes_are_restarted_one_after_the_other_under_load() {
    let cluster = Cluster::start();
    let mut stream = Stream::begin(&cluster);
    for node in 0..3 {
        let number = node.to_string();
        cluster.json(&["cluster", "transfer-leader", "--node", &number]);
        cluster.json(&["restart-node", "--dir", cluster.text(), "--node", &number]);
        stream.go_on(400);
        let status = cluster.json(&["cluster", "status"]);
        let version = status.pointer(&format!("/nodes/{node}/version")).and_then(Value::as_str);
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{status}");
        assert!(number_of(&status, node) > 0, "each node's apply version is shown: {status}");
    }
    stream.finish(&cluster, &[0, 1, 2]);
}

fn number_of(status: &Value, node: u64) -> u64 {
    number(status, &format!("/nodes/{node}/apply_version"))
}

/// A thousand channels are one request, and each name is told what came of it.
#[test]
fn a_thousand_channels_are_made_at_once_and_a_taken_name_is_told() {
    let cluster = Cluster::start();
    let made = cluster.json(&["channel", "create", "many", "--count", "1000"]);
    assert_eq!(number(&made, "/created"), 1000);
    let refused = cluster.refused(1, &["channel", "create", "many-7", "another"]);
    assert!(refused.contains("E3235") && refused.contains("1 of 2"), "{refused}");
    let listed = cluster.json(&["channel", "list"]);
    assert_eq!(listed.pointer("/channels").and_then(Value::as_array).map(Vec::len), Some(1001));
}

/// docs/operations/lost-quorum.md: with a majority away nothing is acknowledged and nothing lost; with it back everything is there.
#[test]
fn without_a_majority_nothing_is_acknowledged_and_a_replacement_is_refused() {
    let cluster = Cluster::start();
    let stream = Stream::begin(&cluster);
    let status =
        cluster.wait_until("the first records", |status| crate::cluster::high_watermark(status) == 500);
    for node in [1, 2] {
        cluster.kill(&status, node);
    }
    let told = cluster.wait_for(
        &["cluster", "replace-node", "1", "--dir", cluster.text()],
        "the loss is noticed",
        |answer| answer.get("error").is_some(),
    );
    let text = told.get("error").and_then(Value::as_str).unwrap_or_default();
    assert!(text.contains("E3233"), "{text}");
    cluster.up();
    stream.finish(&cluster, &[0, 1, 2]);
}

/// A cursor is durable: it stands where it was set when its leader has died, and is gone with its channel.
#[test]
fn a_cursor_outlives_its_leader_and_not_its_channel() {
    let cluster = Cluster::start();
    cluster.json(&["channel", "create", "flights"]);
    cluster.json(&["cursor", "set", "flights", "reader", "0"]);
    let status = cluster.status();
    let leader = number(&status, "/channels/0/partitions/0/leader");
    cluster.kill(&status, leader);
    let found = cluster.json(&["cursor", "get", "flights", "reader"]);
    assert_eq!(number(&found, "/offset"), 0);
    let listed = cluster.json(&["cursor", "list", "flights"]);
    assert_eq!(listed.pointer("/cursors/0/name").and_then(Value::as_str), Some("reader"), "{listed}");
    cluster.up();
    cluster.json(&["channel", "delete", "flights"]);
    cluster.json(&["channel", "create", "flights"]);
    let refused = cluster.refused(1, &["cursor", "get", "flights", "reader"]);
    assert!(refused.contains("E3236"), "{refused}");
}
