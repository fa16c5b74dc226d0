//! What was acknowledged, counted as the answers come.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tidelog_wire::ids::{Offset, Partition};

use crate::output::{Answer, table};

/// What `produce` answers: what was acknowledged, whether or not everything was.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Records acknowledged.
    pub(crate) records: u64,
    /// Bytes of their values.
    pub(crate) bytes: u64,
    /// Lowest offset acknowledged, in whichever partition.
    pub(crate) first_offset: Option<Offset>,
    /// Highest offset acknowledged, in whichever partition.
    pub(crate) last_offset: Option<Offset>,
    /// Requests that were sent again.
    pub(crate) retries: u64,
    #[serde(serialize_with = "seconds")]
    pub(crate) seconds: Duration,
    /// The same for each partition, where there are several.
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) partitions: Vec<PartitionSummary>,
    /// Why not everything was acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What was acknowledged in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PartitionSummary {
    pub(crate) partition: Partition,
    pub(crate) records: u64,
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[expect(clippy::ptr_arg, reason = "the shape that serde calls")]
fn is_one(partitions: &Vec<PartitionSummary>) -> bool {
    partitions.len() <= 1
}

/// Counts acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    records: u64,
    bytes: u64,
    partitions: BTreeMap<Partition, PartitionSummary>,
}

impl Tally {
    /// One batch of `records` records with `bytes` bytes of values was acknowledged at `first..=last`.
    pub(crate) fn acknowledged(
        &mut self,
        partition: Partition,
        records: u64,
        bytes: u64,
        first: Offset,
        last: Offset,
    ) {
        self.records += records;
        self.bytes += bytes;
        let new = PartitionSummary { partition, records: 0, first_offset: first, last_offset: last };
        let sum = self.partitions.entry(partition).or_insert(new);
        sum.records += records;
        sum.first_offset = sum.first_offset.min(first);
        sum.last_offset = sum.last_offset.max(last);
    }

    /// Records acknowledged until now.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of their values.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The answer.
    pub(crate) fn summary(&self, retries: u64, seconds: Duration, error: Option<String>) -> Summary {
        let partitions: Vec<PartitionSummary> = self.partitions.values().copied().collect();
        Summary {
            records: self.records,
            bytes: self.bytes,
            first_offset: partitions.iter().map(|sum| sum.first_offset).min(),
            last_offset: partitions.iter().map(|sum| sum.last_offset).max(),
            retries,
            seconds,
            partitions,
            error,
        }
    }
}

impl Answer for Summary {
    fn text(&self) -> String {
        let seconds = self.seconds.as_secs_f64();
        let mut text = format!(
            "{} records ({} bytes) acknowledged in {seconds:.2} s, {} retries",
            self.records, self.bytes, self.retries
        );
        match (self.partitions.as_slice(), self.first_offset, self.last_offset) {
            ([], ..) | (_, None, _) | (_, _, None) => {}
            ([_], Some(first), Some(last)) => text.push_str(&format!(", offsets {first} to {last}")),
            (several, ..) => {
                let rows: Vec<Vec<String>> = several
                    .iter()
                    .map(|sum| {
                        [sum.partition.to_string(), sum.records.to_string()]
                            .into_iter()
                            .chain([sum.first_offset.to_string(), sum.last_offset.to_string()])
                            .collect()
                    })
                    .collect();
                text.push('\n');
                text.push_str(&table(&["partition", "records", "first", "last"], &rows));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_partition_gives_exactly_the_promised_keys() {
        let mut tally = Tally::default();
        tally.acknowledged(Partition(0), 2, 10, Offset(0), Offset(1));
        tally.acknowledged(Partition(0), 1, 5, Offset(2), Offset(2));
        let json = serde_json::to_value(tally.summary(1, Duration::from_millis(1_500), None)).unwrap();
        let expected = serde_json::json!({
            "records": 3, "bytes": 15, "first_offset": 0, "last_offset": 2, "retries": 1, "seconds": 1.5
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn nothing_acknowledged_has_no_offsets_and_says_why() {
        let summary = Tally::default().summary(0, Duration::ZERO, Some("no node answers".to_owned()));
        let json = serde_json::to_value(summary).unwrap();
        assert_eq!(json.get("first_offset"), Some(&serde_json::Value::Null));
        assert_eq!(json.get("error").unwrap(), "no node answers".to_owned().as_str());
    }

    #[test]
    fn several_partitions_are_told_one_by_one() {
        let mut tally = Tally::default();
        tally.acknowledged(Partition(1), 2, 2, Offset(7), Offset(8));
        tally.acknowledged(Partition(0), 1, 1, Offset(0), Offset(0));
        let json = serde_json::to_value(tally.summary(0, Duration::ZERO, None)).unwrap();
        assert_eq!(json.pointer("/partitions/1/first_offset").unwrap(), 7);
        assert_eq!(json.pointer("/last_offset").unwrap(), 8);
    }
}
