//! The page for Prometheus: what front-ends count, and what is measured below them.

use tidelog_consensus::core::{GroupStatus, Role};

use crate::broker::Broker;
use crate::measure::{Family, FrontEndCounts, Page};

/// The whole page.
pub(super) fn page(broker: &Broker) -> String {
    let mut page = Page::default();
    front_ends(&mut page, broker.counts());
    let readiness = broker.readiness();
    page.single("tidelog_ready", Family::Gauge, "1 if the node serves.", u64::from(readiness.ready));
    let groups = broker.groups();
    if !groups.is_empty() {
        raft(&mut page, &groups);
    }
    recovery(&mut page, &groups, readiness.groups_with_leader);
    if let Some(gauges) = broker.gauges() {
        page.histogram("tidelog_fsync_seconds", "Syncs of the raft log.", &gauges.sync_latency);
        page.single("tidelog_open_files", Family::Gauge, "Files the engine holds open.", gauges.open_files);
        page.single(
            "tidelog_disk_used_bytes",
            Family::Gauge,
            "Bytes the data directory takes.",
            gauges.disk_used_bytes,
        );
        page.single(
            "tidelog_disk_free_bytes",
            Family::Gauge,
            "Bytes left on the data directory's file system.",
            gauges.disk_free_bytes,
        );
    }
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

fn raft(page: &mut Page, groups: &[GroupStatus]) {
    for (name, help, read) in GROUP_GAUGES {
        page.family(name, Family::Gauge, help);
        for status in groups {
            page.sample(name, &[("group", &status.group.to_string())], read(status));
        }
    }
    let name = "tidelog_replication_lag_entries";
    page.family(name, Family::Gauge, "Entries that a follower lacks, as its leader sees it.");
    for status in groups {
        for peer in &status.peers {
            let labels = [("group", status.group.to_string()), ("node", peer.node.to_string())];
            let labels = labels.each_ref().map(|(label, value)| (*label, value.as_str()));
            page.sample(name, &labels, status.last.get().saturating_sub(peer.matched.get()));
        }
    }
}

fn recovery(page: &mut Page, groups: &[GroupStatus], with_leader: usize) {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    page.single(
        "tidelog_recovery_groups",
        Family::Gauge,
        "Replicas of this node that started.",
        count(groups.len()),
    );
    page.single(
        "tidelog_recovery_groups_ready",
        Family::Gauge,
        "Groups of them whose leader is known.",
        count(with_leader),
    );
    let lag = groups.iter().map(|status| status.committed.get().saturating_sub(status.applied.get())).sum();
    page.single(
        "tidelog_recovery_entries_to_apply",
        Family::Gauge,
        "Committed entries not yet applied here.",
        lag,
    );
}
