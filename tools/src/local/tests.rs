//! Processes, ports and directories, with programs that stand in for a server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::layout::{Layout, Shape};
use super::ports;
use super::process::{Ending, Identity, NodeProcess};
use super::{Stopped, start, stop};
use crate::error::CliError;
use crate::files::{self, Access};

const LONG: Duration = Duration::from_secs(20);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn sleeper(folder: &Path) -> (NodeProcess, Identity) {
    let process = NodeProcess::of(0, folder);
    let identity = process.start(Path::new("/bin/sleep"), &["600"]).unwrap();
    (process, identity)
}

#[tokio::test]
async fn a_started_process_is_known_until_it_is_stopped() {
    let dir = folder();
    let (process, identity) = sleeper(dir.path());
    assert_eq!(process.running().unwrap(), Some(identity.clone()));
    assert!(!process.ended_within(Duration::from_millis(1)).await.unwrap());

    assert_eq!(process.signal(Ending::Graceful).unwrap(), Some(identity));
    assert!(process.ended_within(LONG).await.unwrap());

    assert_eq!(process.running().unwrap(), None, "a process that ended but was not collected does not run");
    assert_eq!(process.signal(Ending::Kill).unwrap(), None);
}

/// The number on record belongs to another process by now: that one is left alone.
#[tokio::test]
async fn a_process_that_took_over_the_number_is_never_signalled() {
    let dir = folder();
    let mut bystander = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let current = Identity::of(bystander.id()).unwrap().unwrap();
    let text = toml::to_string(&current).unwrap();
    let (key, started) = text.lines().find_map(|line| line.split_once("started = ")).unwrap();
    assert_eq!(key, "");
    let stale = text.replace(&format!("started = {started}"), "started = 1");
    files::replace(&dir.path().join("process.toml"), &stale, Access::Public).unwrap();

    let process = NodeProcess::of(0, dir.path());
    assert_eq!(process.running().unwrap(), None);
    assert_eq!(process.signal(Ending::Kill).unwrap(), None);

    assert!(bystander.try_wait().unwrap().is_none(), "the bystander still runs");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_record_that_is_no_record_is_an_error_that_names_the_file() {
    let dir = folder();
    files::replace(&dir.path().join("process.toml"), "pid = 'x'", Access::Public).unwrap();
    let error = NodeProcess::of(0, dir.path()).running().unwrap_err();
    assert!(matches!(&error, CliError::Layout { path, .. } if path.ends_with("process.toml")), "{error}");
}

#[test]
fn a_free_block_holds_all_ports_of_all_nodes() {
    let base_port = ports::free_block(3, 1).unwrap();
    let nodes: Vec<_> = (0..3).map(|node| ports::addresses(base_port, node).unwrap()).collect();
    assert_eq!(nodes[0].native.port(), base_port);
    assert_eq!(nodes[2].peers.port(), base_port + 21);
    assert_eq!(nodes[2].admin.port(), base_port + 23);

    let taken = std::net::UdpSocket::bind(nodes[1].peers).unwrap();
    assert_ne!(ports::free_block(3, 1).unwrap(), base_port, "one port is taken, so the block is not free");
    drop(taken);
    assert_eq!(ports::addresses(65_530, 1), None);
}

#[test]
fn a_cluster_is_made_once_and_found_again() {
    let dir = folder();
    assert!(matches!(Layout::existing(dir.path()), Err(CliError::NoCluster { .. })));
    let made = Layout::make(dir.path(), Shape { nodes: Some(3), ..Shape::default() }).unwrap();
    let found = Layout::existing(dir.path()).unwrap();
    assert_eq!(found.cluster_id(), made.cluster_id());
    assert_eq!(found.nodes().collect::<Vec<_>>(), [0, 1, 2]);

    let profile = files::read(&found.profile()).unwrap();
    assert!(profile.contains(&format!("cluster_id = \"{}\"", made.cluster_id())), "{profile}");
    assert!(profile.contains("ca = \"tls/ca.pem\""), "{profile}");
    let config = files::read(&dir.path().join("node-2/config.toml")).unwrap();
    for line in ["node = 2", "data_dir = \"data\"", "cert = \"../tls/node-2.pem\"", "data_groups = 4"] {
        assert!(config.contains(line), "{line}: {config}");
    }
    for (name, mode) in
        [("ca.key", 0o600), ("node-0.key", 0o600), ("client.key", 0o600), ("node-0.pem", 0o644)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let found =
            files::open(&dir.path().join("tls").join(name)).unwrap().metadata().unwrap().permissions();
        assert_eq!(found.mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn another_shape_than_the_cluster_has_is_refused() {
    let dir = folder();
    let made = Layout::make(dir.path(), Shape { nodes: Some(3), ..Shape::default() }).unwrap();
    made.check(Shape { nodes: Some(3), base_port: Some(0), groups: Some(4), ..Shape::default() }).unwrap();
    let error = made.check(Shape { nodes: Some(5), ..Shape::default() }).unwrap_err();
    assert!(error.to_string().contains("nodes 3, not 5"), "{error}");
}

/// A program that writes a line and ends, as a server with a bad configuration does.
fn failing_server(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let program = dir.join("tidelogd");
    files::replace(&program, "#!/bin/sh\necho the reason >&2\nexit 2\n", Access::Public).unwrap();
    let file = files::open(&program).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_told_with_the_end_of_its_log() {
    let dir = folder();
    let server = failing_server(dir.path());
    let shape = Shape { nodes: Some(1), ..Shape::default() };
    let error = start(&dir.path().join("cluster"), shape, &server, 20).await.unwrap_err();
    assert!(error.to_string().starts_with("E3205 node 0 ended"), "{error}");
}

/// A node that was killed a moment ago may still look alive. It is started once it is gone.
#[tokio::test]
async fn a_node_that_dies_while_the_cluster_comes_up_is_started_again() {
    let dir = folder();
    let layout = Layout::make(dir.path(), Shape { nodes: Some(1), ..Shape::default() }).unwrap();
    layout.process(0).start(Path::new("/bin/sleep"), &["0.2"]).unwrap();
    let server = failing_server(dir.path());
    let error = start(dir.path(), Shape::default(), &server, 20).await.unwrap_err();
    assert!(
        error.to_string().contains("the reason"),
        "the server was started, and its own end is told: {error}"
    );
}

#[tokio::test]
async fn stopping_what_does_not_run_says_so_and_two_commands_do_not_meet() {
    let dir = folder();
    Layout::make(dir.path(), Shape { nodes: Some(2), ..Shape::default() }).unwrap();
    let stopped = stop(dir.path(), 0, true).await.unwrap();
    assert_eq!(stopped, [(0, Stopped::NotRunning), (1, Stopped::NotRunning)]);

    let held = files::lock_folder(dir.path()).unwrap();
    assert!(matches!(stop(dir.path(), 0, true).await, Err(CliError::DirectoryBusy { .. })));
    drop(held);
}

/// A server that ignores SIGTERM is reported, and ends only when force is asked for.
#[tokio::test]
async fn a_process_that_does_not_stop_is_killed_only_when_asked() {
    let dir = folder();
    let layout = Layout::make(dir.path(), Shape { nodes: Some(1), ..Shape::default() }).unwrap();
    let process = layout.process(0);
    let ready = dir.path().join("ready");
    let script = format!("trap '' TERM; : > {}; while :; do /bin/sleep 1; done", ready.display());
    process.start(Path::new("/bin/sh"), &["-c", &script]).unwrap();
    let trap_is_set = async {
        while !files::exists(&ready) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, trap_is_set).await.unwrap();

    assert_eq!(stop(dir.path(), 0, false).await.unwrap(), [(0, Stopped::StillRunning)]);
    assert_eq!(stop(dir.path(), 0, true).await.unwrap(), [(0, Stopped::Killed)]);
}
