//! For tests: a node alone, on the operating system's files and without a port, with the meta group and one more.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidelog_engine::os::OsStorage;
use tidelog_wire::ids::{ClusterId, Incarnation, NodeId};

use super::{Addresses, Fatal, NodeConfig, NodeHandle, NodeTuning, Start, SystemClock};
use crate::metrics::NodeMetrics;

/// How long a condition may take before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of such a node, below `dir`.
pub(super) fn config(dir: &TempDir) -> NodeConfig {
    let voters = vec![NodeId(0)];
    let mut tuning = NodeTuning::default();
    tuning.raft_log.prefill_bytes = 0;
    NodeConfig {
        data_dir: dir.path().join("data"),
        storage: Arc::new(OsStorage),
        cluster: ClusterId(1),
        node: NodeId(0),
        start: Start::Bootstrap { voters },
        incarnation: Incarnation(1),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        peers: BTreeMap::new(),
        credentials: None,
        data_groups: 1,
        addresses: Addresses::default(),
        tuning,
        session: 7,
        seed: 7,
        clock: Arc::new(SystemClock::new()),
        metrics: Arc::new(NodeMetrics::default()),
        fatal: Fatal::new(|message| panic!("fatal: {message}")),
    }
}

/// Ends once the node leads both of its groups.
pub(super) async fn serves(node: &NodeHandle) {
    let mut statuses = node.watch_statuses();
    let both = statuses.wait_for(|statuses| statuses.iter().all(|status| status.serves));
    tokio::time::timeout(PATIENCE, both).await.expect("the node serves").unwrap();
}
