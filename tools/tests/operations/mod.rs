//! The procedures of `docs/operations/`, each done as its page says, with records going in meanwhile, and the replicas proved
//! equal at the end.

#![expect(clippy::disallowed_methods, reason = "a test makes and looks at the files of its own cluster")]

mod certificates;
mod import;
mod members;

use serde_json::Value;

use crate::cluster::{Cluster, Producer, flights, number, split_lines};

/// A stream that goes in while something is done to the cluster.
struct Stream {
    producer: Producer,
    rest: Vec<u8>,
    all: Vec<u8>,
}

impl Stream {
    /// Creates the channel and sends the first records.
    fn begin(cluster: &Cluster) -> Self {
        cluster.json(&["channel", "create", "flights"]);
        let all = flights();
        let (first, rest) = split_lines(&all, 500);
        let mut producer = cluster.produce("10");
        producer.feed(first);
        Self { producer, rest: rest.to_vec(), all }
    }

    /// Sends some more.
    fn go_on(&mut self, lines: usize) {
        let (next, rest) = split_lines(&self.rest, lines);
        self.producer.feed(next);
        self.rest = rest.to_vec();
    }

    /// Sends the rest. Everything must be acknowledged, equal on all replicas, and the same on each of `nodes`.
    #[track_caller]
    fn finish(mut self, cluster: &Cluster, nodes: &[u64]) {
        self.producer.feed(&self.rest);
        let (summary, exit_code) = self.producer.finish();
        assert_eq!((exit_code, number(&summary, "/records")), (Some(0), 2_000), "{summary}");
        let replicas = u64::try_from(nodes.len()).unwrap();
        cluster.wait_until("all replicas have everything", |status| {
            let replicas_now = status.pointer("/channels/0/partitions/0/replicas").and_then(Value::as_array);
            replicas_now.is_some_and(|found| {
                u64::try_from(found.len()).unwrap() == replicas
                    && found
                        .iter()
                        .all(|replica| replica.get("offset").and_then(Value::as_u64) == Some(2_000))
            })
        });
        let compared = cluster.json(&["cluster", "compare"]);
        assert_eq!(number(&compared, "/equal"), 1, "{compared}");
        for node in nodes {
            assert!(
                cluster.consume_from(*node) == self.all,
                "node {node} gives back the input, byte for byte"
            );
        }
    }
}
