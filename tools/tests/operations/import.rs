//! Logs that are taken into a channel, and proved equal to where they come from.

use std::path::Path;
use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::{ClusterId, Generation, Incarnation, LogId, NodeId, Offset, Partition, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use crate::cluster::{Cluster, flights, number, split_lines};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn batch(values: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for value in values {
        assert_eq!(builder.push(NOW, None, Some(value), &[]), Ok(Pushed::Taken));
    }
    builder.build(None).unwrap()
}

/// An embedded log of `batches` batches of three records each, below `dir`; trimmed to `start`.
fn embedded(dir: &Path, batches: u64, start: u64) {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
    Engine::format(&storage, dir, new).unwrap();
    let engine = Engine::open(storage, dir, Options::embedded(NOW)).unwrap();
    let log = LogId { generation: Generation(1), partition: Partition(0) };
    let (log, _) = engine.open_shared(log, LogConfig::default()).unwrap();
    for number in 0..batches {
        let text = number.to_string();
        log.append(&batch(&[text.as_bytes(), b"two", b"three"]), NOW).unwrap();
    }
    log.sync().unwrap();
    log.trim(Offset(start)).unwrap();
}

/// What an embedded engine wrote becomes a channel with the same chain; a second call finds it whole; another log is refused.
#[test]
fn an_embedded_log_becomes_a_channel_with_the_same_chain() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&other).unwrap();
    embedded(&data, 100, 0);
    embedded(&other, 101, 0);
    cluster.json(&["channel", "create", "copy"]);
    let import = ["import", "copy", "--data-dir", data.to_str().unwrap()];
    let first = cluster.json(&import);
    assert_eq!((number(&first, "/appended"), number(&first, "/records")), (300, 300), "{first}");
    assert_eq!(
        first.pointer("/compared").and_then(|nodes| nodes.as_array()).map(Vec::len),
        Some(3),
        "{first}"
    );
    let again = cluster.json(&import);
    assert_eq!((number(&again, "/appended"), number(&again, "/resumed_at")), (0, 300), "{again}");
    assert_eq!(first.pointer("/chain"), again.pointer("/chain"));
    // The longer one begins with the same batches, so it goes on behind them.
    let longer = cluster.json(&["import", "copy", "--data-dir", other.to_str().unwrap()]);
    assert_eq!((number(&longer, "/appended"), number(&longer, "/resumed_at")), (3, 300), "{longer}");
    let shorter = cluster.refused(1, &import);
    assert!(shorter.contains("E3230"), "the channel holds more than the source: {shorter}");
}

/// A stream is taken up where it was left, and refused where the channel holds something else.
#[test]
fn a_stream_is_imported_resumed_and_compared() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let all = flights();
    let (part, _) = split_lines(&all, 700);
    let file = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (part, whole, wrong) =
        (file("part", part), file("whole", &all), file("wrong", &all.to_ascii_lowercase()));
    cluster.json(&["channel", "create", "flights"]);
    let begun = cluster.json(&["import", "flights", "--file", &part]);
    assert_eq!((number(&begun, "/appended"), number(&begun, "/records")), (700, 700), "{begun}");
    let done = cluster.json(&["import", "flights", "--file", &whole]);
    assert_eq!((number(&done, "/resumed_at"), number(&done, "/appended")), (700, 1300), "{done}");
    let refused = cluster.refused(1, &["import", "flights", "--file", &wrong]);
    assert!(refused.contains("E3230"), "{refused}");
}
