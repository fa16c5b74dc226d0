//! Where the time goes: what nodes say about themselves between two looks at their `/metrics`.
//!
//! A latency seen from outside does not tell which part of the way took it. Nodes keep histograms of three parts, each
//! within the next: syncs of the raft log, proposals until their outcome, and batches from arrival until acknowledgement. What is
//! left is the client and the way to the node.
//!
//! Their buckets are coarse, so a percentile is taken from within a bucket as if its samples were spread evenly. A node that cannot
//! be asked is left out: these are notes beside the figures, not figures.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tidelog_client::ProfileNode;

/// Parts, from the inside out, as the page and as a report calls them.
const PARTS: [(&str, &str); 3] = [
    ("tidelog_fsync_seconds", "sync of the raft log"),
    ("tidelog_proposal_seconds", "proposal to outcome"),
    ("tidelog_append_seconds", "arrival to acknowledgement"),
];
/// Most bytes of a page that are read.
const PAGE_BYTES_MAX: u64 = 1 << 20;
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How many samples are at or below each bound, by the name of the histogram; bounds rise.
type Buckets = BTreeMap<String, Vec<(f64, f64)>>;

/// Histograms of some nodes at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Look(Vec<(ProfileNode, Option<Buckets>)>);

impl Look {
    /// Asks all `nodes`, which takes a moment.
    pub(crate) fn at(nodes: &[ProfileNode]) -> Self {
        Self(
            nodes.iter().map(|node| (node.clone(), page(&node.admin).ok().map(|page| read(&page)))).collect(),
        )
    }

    /// What happened since `earlier`, a line for each node.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<String> {
        let mut notes = Vec::new();
        for ((node, now), (_, before)) in self.0.iter().zip(&earlier.0) {
            let (Some(now), Some(before)) = (now, before) else { continue };
            let parts = PARTS.iter().filter_map(|(name, shown)| {
                let between = difference(now.get(*name)?, before.get(*name)?);
                let (_, count) = between.last().copied().filter(|(_, count)| *count > 0.0)?;
                let us = |share: f64| (within(&between, share * count) * 1e6).round();
                Some(format!("{shown} {} / {} ({count})", us(0.5), us(0.99)))
            });
            let parts: Vec<String> = parts.collect();
            let of = if self.0.len() == 1 { "one node" } else { "three nodes" };
            notes.push(format!("{of}, node {}, about p50 / p99 (count): {}", node.id, parts.join(", ")));
        }
        notes
    }
}

fn page(admin: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The buckets of all histograms on a page; other lines are passed over.
fn read(page: &str) -> Buckets {
    let mut buckets = Buckets::new();
    for line in page.lines() {
        let Some((name, rest)) = line.split_once("_bucket{le=\"") else { continue };
        let Some((bound, count)) = rest.split_once("\"} ") else { continue };
        if let (Ok(bound), Ok(count)) = (bound.parse(), count.parse()) {
            buckets.entry(name.to_owned()).or_default().push((bound, count));
        }
    }
    buckets
}

fn difference(now: &[(f64, f64)], before: &[(f64, f64)]) -> Vec<(f64, f64)> {
    now.iter().zip(before).map(|((bound, now), (_, before))| (*bound, now - before)).collect()
}

/// The value below which `rank` samples are.
fn within(buckets: &[(f64, f64)], rank: f64) -> f64 {
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank && *count > below {
            // Nothing is known about those above the last bound.
            let width = if bound.is_finite() { bound - low } else { 0.0 };
            return low + width * (rank - below) / (count - below);
        }
        (low, below) = (*bound, *count);
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "HTTP/1.1 200 OK\r\n\r\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"0.001\"} 10\n\
        h_seconds_bucket{le=\"0.002\"} 30\nh_seconds_bucket{le=\"+Inf\"} 31\nh_seconds_sum 0.05\nh_seconds_count 31\n";

    #[test]
    fn a_percentile_lies_within_its_bucket() {
        let buckets = &read(PAGE)["h_seconds"];
        assert_eq!(buckets.len(), 3);
        assert_eq!((within(buckets, 5.0), within(buckets, 10.0)), (0.0005, 0.001));
        assert!((within(buckets, 20.0) - 0.0015).abs() < 1e-9);
        assert_eq!(within(buckets, 31.0), 0.002, "above the last bound nothing is known");
        assert!(difference(buckets, buckets).iter().all(|(_, count)| *count == 0.0));
    }

    #[test]
    fn a_page_without_histograms_has_no_buckets() {
        assert!(read("HTTP/1.1 503\r\n\r\n_bucket{le=\"x\"} 1\n\0").is_empty());
    }
}
