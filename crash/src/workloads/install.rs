//! A snapshot taken over by a node that is far behind: fetched into staging, marked in the raft log, switched
//! to, and finished by the next start if a crash came between.

use std::sync::Arc;

use raft::eraftpb::HardState;
use tidelog_consensus::core::FetchSnapshot;
use tidelog_consensus::raft_log::{GroupWrite, InstallChange, InstallMark, RaftLog};
use tidelog_consensus::snapshot::{
    Ended, ExportLimits, Exports, FetchLimits, Fetcher, Next, Switch, build_manifest, install,
};
use tidelog_consensus::transport::BulkSource;
use tidelog_engine::Engine;
use tidelog_engine::storage::Storage;
use tidelog_wire::ids::{ClusterId, NodeId, RaftIndex};

use super::node::{GROUP, Node, Promise, Running, term};
use crate::raft_files::RecordedLog;
use crate::scenario::{Broken, Scenario, data, formatted};

const CLUSTER: ClusterId = ClusterId(1);
/// Bytes that arrive at once.
const ARRIVES: usize = 1_500;
/// Most steps of a fetch: a few for each file.
const STEPS_MAX: usize = 1_000;

/// Brings the state that another node has at entry `to` into staging, and marks it in the raft log.
///
/// # Errors
/// [`Broken`].
pub(super) fn fetch_and_mark(
    running: &Running,
    storage: &Arc<dyn Storage>,
    promise: &mut Promise,
    to: u64,
    tell: &dyn Fn(Promise),
) -> Result<Switch, Broken> {
    // The other node's disk is its own: nothing of it is recorded.
    let disk = formatted()?;
    let (mut source, mut theirs) =
        Node { name: "source", rounds: 0, installs: None }.open(&disk.storage(), &Promise::default())?;
    source.entries(&mut theirs, to, &|_| ())?;
    let checkpoint = source.checkpoint(&mut theirs, &|_| ())?;
    let manifest = build_manifest(disk.storage().as_ref(), data(), CLUSTER, &checkpoint)
        .map_err(Broken::by("make a manifest"))?;
    let exports = Exports::new(disk.storage(), data(), ExportLimits::default());
    let offered = exports
        .offer(manifest, Arc::new(()))
        .ok_or_else(|| Broken("a snapshot exceeds the limits of its offer".to_owned()))?;
    let offer = FetchSnapshot {
        group: GROUP,
        from: NodeId(1),
        snapshot: offered.snapshot,
        digest: offered.digest,
        manifest_bytes: offered.manifest_bytes,
    };
    let fetcher = Fetcher::new(Arc::clone(storage), data(), CLUSTER, offer, FetchLimits::default())
        .map_err(Broken::by("begin a fetch"))?;
    let reused = fetch(fetcher, &exports)?;
    let _pin = running.engine.pin(reused);
    let mark = InstallMark { index: RaftIndex(to), term: term(to), digest: offered.digest };
    let hard_state = HardState { term: term(to).get(), vote: 1, commit: to, ..HardState::default() };
    let set = GroupWrite {
        hard_state: Some(hard_state.clone()),
        install: InstallChange::Set(mark),
        ..GroupWrite::new(GROUP)
    };
    promise.installing(to);
    tell(*promise);
    running.raft.log.write(&[set], true).map_err(Broken::by("write the install mark"))?;
    promise.marked(to);
    tell(*promise);
    Ok(Switch { group: GROUP, mark, hard_state })
}

fn fetch(
    fetcher: Fetcher,
    exports: &Exports,
) -> Result<Vec<(tidelog_wire::ids::LogId, tidelog_wire::ids::Offset)>, Broken> {
    let mut fetcher = fetcher;
    const FETCH: &str = "fetch a snapshot";
    for _ in 0..STEPS_MAX {
        match fetcher.next_step().map_err(Broken::by(FETCH))? {
            Next::Staged(staged) => return Ok(staged.reused),
            Next::Ask { request, position, .. } => {
                let mut object = exports.open(NodeId(0), request).map_err(Broken::by(FETCH))?;
                let mut at = position;
                while at < object.total() {
                    let bytes = object.read(at, ARRIVES).map_err(Broken::by(FETCH))?;
                    fetcher.arrived(&bytes).map_err(Broken::by(FETCH))?;
                    at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                }
                fetcher.ended(Ended::Complete).map_err(Broken::by(FETCH))?;
            }
        }
    }
    Err(Broken("the fetch of a snapshot does not end".to_owned()))
}

/// Switches to what is staged, or finishes that; the logs that the snapshot does not name are removed.
///
/// # Errors
/// [`Broken`].
pub(super) fn switch(
    storage: &Arc<dyn Storage>,
    engine: &Arc<Engine>,
    raft: &RecordedLog,
    switch: &Switch,
) -> Result<(), Broken> {
    let checkpoint = install(storage, data(), engine.as_ref(), &raft.log, switch)
        .map_err(Broken::by("install a snapshot"))?;
    for log in engine.logs_on_disk().map_err(Broken::by("list the logs"))? {
        if !checkpoint.logs.iter().any(|named| named.log == log) {
            engine.remove_log(log).map_err(Broken::by(&format!("remove log {log}")))?;
        }
    }
    Ok(())
}
