//! A durable log inside a program, without a server: appends a line, then prints all that the log holds.
//!
//! ```text
//! cargo run -p tidelog-examples --bin embed -- DIR "a line"
//! ```
//! Run it again and again on the same directory, and kill it in between: what it called durable stays.

#![expect(clippy::disallowed_methods, reason = "a program of its own: it reads its clock itself")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{ClusterId, Generation, Incarnation, LogId, NodeId, Offset, Partition, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed, Records};

const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };
const CONFIG: LogConfig = LogConfig { segment_bytes: 16 << 20, epoch_base: 0 };
const READ_BYTES_MAX: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(line)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed DIR LINE".into());
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = TimestampMs(i64::try_from(since.as_millis())?);

    // A data directory is formatted once, and then belongs to one process at a time.
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let dir = Path::new(&dir);
    if !dir.join("identity").exists() {
        let identity = NewIdentity {
            cluster: ClusterId(1),
            node: NodeId(0),
            incarnation: Incarnation(since.as_nanos()),
        };
        Engine::format(&storage, dir, identity)?;
    }
    let engine = Engine::open(storage, dir, Options::embedded(now))?;
    let (log, _recovery) = engine.open_shared(LOG, CONFIG)?;

    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    match builder.push(now, None, Some(line.as_bytes()), &[])? {
        Pushed::Taken => {}
        Pushed::Full => return Err("the line is longer than a batch may be".into()),
    }
    let appended = log.append_durable(&builder.build(None)?, now)?;
    eprintln!("durable at offset {}", appended.base_offset);

    let reader = log.reader();
    let mut next = Offset(0).max(reader.start());
    while next < reader.end() {
        let read = reader.read(next, READ_BYTES_MAX)?;
        for bytes in read.batches {
            for record in Records::of(&Batch::parse(bytes, BatchLimits::CAP)?)? {
                let record = record?;
                let value = record.value.unwrap_or_default();
                println!("{} {}", record.offset, String::from_utf8_lossy(&value));
            }
        }
        next = read.next;
    }
    Ok(())
}
