//! The page for Prometheus: what front-ends count, and what is measured below them.

use tidelog_consensus::core::{GroupStatus, Role};
use tidelog_consensus::metrics::{NodeMetrics, RecoveryProgress};
use tidelog_engine::RecoveryCounts;

use tidelog_wire::ids::NodeId;

use crate::broker::Broker;
use crate::measure::{Family, FrontEndCounts, Page};

/// The whole page.
pub(super) fn page(broker: &Broker) -> String {
    let mut page = Page::default();
    front_ends(&mut page, broker.counts());
    let readiness = broker.readiness();
    page.single("tidelog_ready", Family::Gauge, "1 if the node serves.", u64::from(readiness.ready));
    if let Some(end) = broker.certificate_expires() {
        page.single(
            "tidelog_certificate_expiry_timestamp_seconds",
            Family::Gauge,
            "When the node's certificate expires, in seconds since 1970. Missing if it does not.",
            u64::try_from(end.get() / 1000).unwrap_or(0),
        );
    }
    let groups = broker.groups();
    if !groups.is_empty() {
        raft(&mut page, broker.node(), &groups);
    }
    recovery(&mut page, broker.metrics().recovery(), &groups, readiness.groups_with_leader);
    recovered(&mut page, broker.metrics().recovered());
    below(&mut page, broker.metrics());
    page.finish()
}

fn front_ends(page: &mut Page, counts: &FrontEndCounts) {
    let counters = [
        ("tidelog_appends_total", "Batches acknowledged, repeats not counted.", &counts.appends),
        ("tidelog_append_records_total", "Records in acknowledged batches.", &counts.append_records),
        ("tidelog_append_bytes_total", "Bytes of acknowledged batches.", &counts.append_bytes),
        ("tidelog_append_duplicates_total", "Batches that were repeats.", &counts.append_duplicates),
        ("tidelog_fetches_total", "Fetches answered.", &counts.fetches),
        ("tidelog_fetch_bytes_total", "Bytes of batches in answers to fetches.", &counts.fetch_bytes),
        ("tidelog_native_connections_opened_total", "Native connections taken.", &counts.connections_opened),
        (
            "tidelog_native_connections_closed_total",
            "Native connections that ended.",
            &counts.connections_closed,
        ),
        (
            "tidelog_native_connections_refused_total",
            "Native connections turned away: too many, or without a valid certificate.",
            &counts.connections_refused,
        ),
        (
            "tidelog_native_connections_broken_total",
            "Native connections closed because what came was not the protocol.",
            &counts.connections_broken,
        ),
        ("tidelog_native_requests_total", "Native requests taken.", &counts.requests),
        (
            "tidelog_native_request_errors_total",
            "Native requests answered with an error.",
            &counts.request_errors,
        ),
        ("tidelog_admin_requests_total", "Requests to admin HTTP.", &counts.admin_requests),
        (
            "tidelog_certificate_renewals_total",
            "Certificates taken into use while the node runs.",
            &counts.certificate_renewals,
        ),
        (
            "tidelog_certificate_refusals_total",
            "Files of certificates that could not be taken into use; the old one stays in use.",
            &counts.certificate_refusals,
        ),
    ];
    for (name, help, counter) in counters {
        page.single(name, Family::Counter, help, counter.value());
    }
    page.histogram(
        "tidelog_append_seconds",
        "From receiving a batch to its acknowledgement.",
        &counts.append_latency.read(),
    );
}

/// A gauge of each group.
type GroupGauge = (&'static str, &'static str, fn(&GroupStatus) -> u64);

const GROUP_GAUGES: [GroupGauge; 7] = [
    ("tidelog_raft_term", "Term of the group.", |status| status.term.get()),
    ("tidelog_raft_committed_index", "Newest entry known committed.", |status| status.committed.get()),
    ("tidelog_raft_applied_index", "Newest entry applied here.", |status| status.applied.get()),
    ("tidelog_raft_last_index", "Newest entry here.", |status| status.last.get()),
    ("tidelog_raft_leader", "1 if this node leads the group.", |status| {
        u64::from(status.role == Role::Leader)
    }),
    ("tidelog_raft_has_leader", "1 if this node knows a leader.", |status| {
        u64::from(status.leader.is_some())
    }),
    ("tidelog_raft_halted", "1 if this node's replica does not take part.", |status| {
        u64::from(status.halted.is_some())
    }),
];

fn raft(page: &mut Page, here: NodeId, groups: &[GroupStatus]) {
    for (name, help, read) in GROUP_GAUGES {
        page.family(name, Family::Gauge, help);
        for status in groups {
            page.sample(name, &[("group", &status.group.to_string())], read(status));
        }
    }
    let name = "tidelog_replication_lag_entries";
    page.family(name, Family::Gauge, "Entries that a follower lacks, as its leader sees it.");
    for status in groups {
        for peer in status.peers.iter().filter(|peer| peer.node != here) {
            let labels = [("group", status.group.to_string()), ("node", peer.node.to_string())];
            let labels = labels.each_ref().map(|(label, value)| (*label, value.as_str()));
            page.sample(name, &labels, status.last.get().saturating_sub(peer.matched.get()));
        }
    }
}

fn recovery(page: &mut Page, progress: RecoveryProgress, groups: &[GroupStatus], with_leader: usize) {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let lag = groups.iter().map(|status| status.committed.get().saturating_sub(status.applied.get())).sum();
    let gauges = [
        ("tidelog_recovery_groups", "Groups that this start recovers.", progress.groups),
        (
            "tidelog_recovery_groups_done",
            "Groups of them whose log and state are back.",
            progress.groups_done,
        ),
        ("tidelog_recovery_logs", "Logs to open, of the groups begun so far.", progress.opening.logs),
        (
            "tidelog_recovery_logs_done",
            "Logs of them that were opened, or could not be.",
            progress.opening.logs_done,
        ),
        ("tidelog_recovery_segments", "Segments of the logs opened.", progress.opening.segments),
        (
            "tidelog_recovery_walked_bytes",
            "Bytes of tails that were verified when logs were opened.",
            progress.opening.bytes_walked,
        ),
        ("tidelog_recovery_groups_with_leader", "Groups whose leader is known here.", count(with_leader)),
        ("tidelog_recovery_entries_to_apply", "Committed entries not yet applied here.", lag),
    ];
    for (name, help, value) in gauges {
        page.single(name, Family::Gauge, help, value);
    }
}

/// What the engine kept, cut and set aside at this start, and what it found since when it was read.
fn recovered(page: &mut Page, counts: RecoveryCounts) {
    let gauges = [
        ("tidelog_recovery_logs_unclean", "Logs that were not plainly intact.", counts.logs_unclean),
        ("tidelog_recovery_logs_read_only", "Logs that take no appends.", counts.logs_read_only),
        ("tidelog_recovery_findings", "Things that were not plainly intact.", counts.findings),
        ("tidelog_recovery_kept_frames", "Frames above the checkpoint that were kept.", counts.kept_frames),
        ("tidelog_recovery_replayed_frames", "Kept frames that replay confirmed.", counts.replayed_frames),
        ("tidelog_recovery_differing_frames", "Kept frames that it did not.", counts.differing_frames),
        ("tidelog_recovery_cut_bytes", "Bytes cut off segments.", counts.cut_bytes),
        ("tidelog_recovery_set_aside_bytes", "Bytes moved to quarantine.", counts.set_aside_bytes),
        ("tidelog_recovery_sealed_again", "Segments sealed again.", counts.sealed_again),
        ("tidelog_recovery_damaged_offsets", "Offsets found damaged.", counts.damaged_offsets),
        ("tidelog_recovery_unread_offsets", "Offsets that the disk did not give.", counts.unread_offsets),
        ("tidelog_recovery_microseconds", "What recovery of all logs took.", counts.took_us),
    ];
    for (name, help, value) in gauges {
        page.single(name, Family::Gauge, help, value);
    }
}

/// What consensus and engine measure.
fn below(page: &mut Page, metrics: &NodeMetrics) {
    let counters = [
        (
            "tidelog_proposals_failed_total",
            "Proposals that ended without an outcome.",
            &metrics.proposals_failed,
        ),
        (
            "tidelog_raft_log_writes_total",
            "Writes of the raft log, each for many groups.",
            &metrics.raft_log_writes,
        ),
        (
            "tidelog_peer_messages_refused_total",
            "Messages of other nodes that were refused.",
            &metrics.messages_refused,
        ),
        (
            "tidelog_inputs_dropped_total",
            "Messages and proposals that found the node's queue full.",
            &metrics.inputs_dropped,
        ),
        ("tidelog_snapshots_offered_total", "Snapshots offered to followers.", &metrics.snapshots_offered),
        (
            "tidelog_snapshots_installed_total",
            "Snapshots that this node switched to.",
            &metrics.snapshots_installed,
        ),
        (
            "tidelog_snapshot_fetched_bytes_total",
            "Bytes of snapshots that came over the network.",
            &metrics.snapshot_bytes_fetched,
        ),
        (
            "tidelog_snapshot_reused_bytes_total",
            "Bytes of staged snapshots that were here already.",
            &metrics.snapshot_bytes_reused,
        ),
    ];
    for (name, help, counter) in counters {
        page.single(name, Family::Counter, help, counter.value());
    }
    let gauges = [
        ("tidelog_checkpoints_running", "Checkpoints being written.", metrics.checkpoints_running.value()),
        ("tidelog_open_files", "Files the engine holds open.", metrics.open_files.value()),
        ("tidelog_raft_log_bytes", "Bytes of the raft log on disk.", metrics.raft_log_bytes.value()),
        ("tidelog_segment_bytes", "Bytes of segments on disk.", metrics.segment_bytes.value()),
        (
            "tidelog_disk_used_bytes",
            "Bytes of raft log and segments on disk.",
            metrics.raft_log_bytes.value().saturating_add(metrics.segment_bytes.value()),
        ),
        (
            "tidelog_disk_free_bytes",
            "Bytes left on the data directory's file system.",
            metrics.free_bytes.value(),
        ),
    ];
    for (name, help, value) in gauges {
        page.single(name, Family::Gauge, help, value);
    }
    page.histogram("tidelog_fsync_seconds", "Syncs of the raft log.", &metrics.raft_log_sync_time.read());
    page.histogram("tidelog_proposal_seconds", "From proposal to outcome.", &metrics.append_time.read());
    page.histogram(
        "tidelog_checkpoint_seconds",
        "Checkpoints, with the syncs of the segments they name.",
        &metrics.checkpoint_time.read(),
    );
}
