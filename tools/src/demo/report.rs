//! What the demonstration found, and whether the promise was kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tidelog_wire::ids::{Chain, NodeId};

use super::comparison::Verdict;
use super::source::Extent;
use super::timing::Failover;
use crate::error::CliError;
use crate::output::{Answer, table};
use crate::status::view::{or_dash, shown};

/// Measured in one run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) source: PathBuf,
    pub(crate) sent: Extent,
    pub(crate) acknowledged: u64,
    pub(crate) acknowledged_bytes: u64,
    pub(crate) retries: u64,
    pub(crate) took: Duration,
    pub(crate) killed: NodeId,
    pub(crate) killed_at: u64,
    pub(crate) failover: Option<Failover>,
    pub(crate) nodes: Vec<NodeReport>,
}

/// What one node gave back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeReport {
    pub(crate) node: NodeId,
    pub(crate) chain: Option<Chain>,
    pub(crate) verdict: Verdict,
}

impl Report {
    /// Whether all three replicas have the same history.
    fn chains_equal(&self) -> bool {
        let mut chains = self.nodes.iter().map(|node| node.chain);
        let first = chains.next().flatten();
        self.nodes.len() == 3 && first.is_some() && chains.all(|chain| chain == first)
    }

    /// The worst of the nodes.
    fn most(&self, of: impl Fn(&Verdict) -> u64) -> u64 {
        self.nodes.iter().map(|node| of(&node.verdict)).max().unwrap_or(0)
    }

    /// The promises that were broken, in words.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.acknowledged != self.sent.records {
            broken.push(format!("{} of {} records were acknowledged", self.acknowledged, self.sent.records));
        }
        for NodeReport { node, verdict, .. } in &self.nodes {
            if verdict.lost > 0 {
                broken.push(format!("node {node} lost {}", verdict.lost));
            }
            if verdict.duplicated > 0 {
                broken.push(format!("node {node} has {} twice", verdict.duplicated));
            }
            if !verdict.identical && verdict.lost == 0 && verdict.duplicated == 0 {
                broken.push(format!("node {node} has another order"));
            }
        }
        if !self.chains_equal() {
            broken.push("the replicas' chains differ".to_owned());
        }
        if self.failover.is_none() {
            broken.push("nothing was acknowledged after the leader's death".to_owned());
        }
        broken
    }

    /// An error if a promise was broken.
    pub(crate) fn verdict(&self) -> Result<(), CliError> {
        match self.broken() {
            broken if broken.is_empty() => Ok(()),
            broken => Err(CliError::PromiseBroken { broken: broken.join("; ") }),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("acknowledged", &self.acknowledged)?;
        map.serialize_entry("acknowledged_bytes", &self.acknowledged_bytes)?;
        map.serialize_entry("read_back", &self.nodes.iter().map(|node| node.verdict.read).min())?;
        map.serialize_entry("lost", &self.most(|verdict| verdict.lost))?;
        map.serialize_entry("duplicated", &self.most(|verdict| verdict.duplicated))?;
        map.serialize_entry("identical", &self.nodes.iter().all(|node| node.verdict.identical))?;
        map.serialize_entry("killed_node", &self.killed)?;
        map.serialize_entry("killed_after_records", &self.killed_at)?;
        map.serialize_entry(
            "failover_pause_ms",
            &self.failover.map(|failover| milliseconds(failover.pause)),
        )?;
        map.serialize_entry(
            "kill_to_ack_ms",
            &self.failover.map(|failover| milliseconds(failover.since_kill)),
        )?;
        map.serialize_entry("chains_equal", &self.chains_equal())?;
        map.serialize_entry(
            "chains",
            &self.nodes.iter().map(|node| node.chain.map(shown)).collect::<Vec<_>>(),
        )?;
        map.serialize_entry("retries", &self.retries)?;
        map.serialize_entry("seconds", &self.took.as_secs_f64())?;
        map.serialize_entry("broken", &self.broken())?;
        map.end()
    }
}

impl Answer for Report {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|NodeReport { node, chain, verdict }| {
                let same = if verdict.identical { "byte for byte" } else { "NO" };
                let counts = [verdict.read, verdict.lost, verdict.duplicated].map(|count| count.to_string());
                let mut row = vec![node.to_string()];
                row.extend(counts);
                row.extend([same.to_owned(), or_dash(chain.map(shown))]);
                row
            })
            .collect();
        let failover = match self.failover {
            Some(failover) => format!(
                "{} ms from the last acknowledgement to the next one; {} ms from the kill to that one",
                milliseconds(failover.pause),
                milliseconds(failover.since_kill)
            ),
            None => "nothing was acknowledged after the kill".to_owned(),
        };
        let chains = if self.chains_equal() { "equal" } else { "DIFFERENT" };
        format!(
            "\nacknowledged  {} records, {} bytes, in {:.2} s with the failover in it; {} retries\n\
             killed        node {}, the leader, with SIGKILL, after {} acknowledged records\n\
             failover      {failover}\n\
             lost          {}\n\
             duplicated    {}\n\
             chains        {chains} on {} replicas\n\n{}",
            self.acknowledged,
            self.acknowledged_bytes,
            self.took.as_secs_f64(),
            self.retries,
            self.killed,
            self.killed_at,
            self.most(|verdict| verdict.lost),
            self.most(|verdict| verdict.duplicated),
            self.nodes.len(),
            table(&["node", "read back", "lost", "duplicated", "same as input", "chain"], &rows),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let verdict = Verdict { read: 9, lost: 0, duplicated: 0, identical: true };
        let node = |node| NodeReport { node: NodeId(node), chain: Some(Chain(7)), verdict };
        Report {
            source: PathBuf::from("flights.csv"),
            sent: Extent { records: 9, bytes: 90 },
            acknowledged: 9,
            acknowledged_bytes: 90,
            retries: 1,
            took: Duration::from_secs(1),
            killed: NodeId(2),
            killed_at: 3,
            failover: Some(Failover {
                pause: Duration::from_millis(400),
                since_kill: Duration::from_millis(390),
            }),
            nodes: vec![node(0), node(1), node(2)],
        }
    }

    #[test]
    fn a_kept_promise_is_no_error() {
        assert!(report().verdict().is_ok());
        assert!(report().text().contains("chains        equal on 3 replicas"), "{}", report().text());
    }

    /// Every promise, broken alone, fails the demonstration and is named.
    #[test]
    fn each_broken_promise_fails_the_demonstration() {
        type Breakage = fn(&mut Report);
        let breakages: [(&str, Breakage); 8] = [
            ("were acknowledged", |report| report.acknowledged = 8),
            ("node 1 lost 1", |report| report.nodes[1].verdict.lost = 1),
            ("node 2 has 1 twice", |report| report.nodes[2].verdict.duplicated = 1),
            ("another order", |report| report.nodes[0].verdict.identical = false),
            ("chains differ", |report| report.nodes[0].chain = Some(Chain(8))),
            ("chains differ", |report| report.nodes[0].chain = None),
            ("chains differ", |report| report.nodes.truncate(2)),
            ("nothing was acknowledged after", |report| report.failover = None),
        ];
        for (named, breakage) in breakages {
            let mut report = report();
            breakage(&mut report);
            let error = report.verdict().unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
