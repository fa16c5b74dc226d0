//! A log against a model of it: whatever was appended, synced, trimmed and opened again, in whatever order,
//! it is read by offset and by time as a plain list would be.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tidelog_engine::checkpoint::{LogConfig, LogState};
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{AppendStamp, Appended, LogReader, LogWriter, ReadError, Visible};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::{Engine, Mode};
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{Chain, LeaderEpoch, Offset, RaftIndex, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use crate::world::{LOG, embedded_engine, engine, formatted, make_checkpoint};

#[derive(Clone, Debug)]
enum Step {
    /// A batch whose records have these times.
    Append { times: Vec<i64>, value_bytes: usize, codec: Codec },
    /// Makes all of it durable.
    Sync,
    /// Raises the start to this part of what is durable, in percent; 100 is a purge.
    Trim { percent: u64 },
    /// Closes the log and the engine, and opens both.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let codec = prop_oneof![2 => Just(Codec::None), 1 => Just(Codec::Lz4)];
    prop_oneof![
        12 => (prop::collection::vec(0..60_i64, 1..5), 0..9_000_usize, codec)
            .prop_map(|(times, value_bytes, codec)| Step::Append { times, value_bytes, codec }),
        3 => Just(Step::Sync),
        1 => (0..=110_u64).prop_map(|percent| Step::Trim { percent: percent.min(100) }),
        1 => Just(Step::Reopen),
    ]
}

fn batch_at(times: &[i64], value_bytes: usize, codec: Codec) -> Batch {
    let mut builder = BatchBuilder::new(codec, BuilderLimits::default());
    for (number, time) in times.iter().enumerate() {
        let value = vec![b'a' + u8::try_from(number).unwrap(); value_bytes / times.len()];
        assert_eq!(builder.push(TimestampMs(*time), None, Some(&value), &[]), Ok(Pushed::Taken));
    }
    builder.build(None).unwrap()
}

enum Log {
    Embedded(SharedLog),
    Consensus(Box<LogWriter>),
}

/// A log and what must be in it.
struct World {
    disk: SimDisk,
    mode: Mode,
    config: LogConfig,
    /// `None` only while it is being opened again.
    open: Option<(Log, Arc<Engine>)>,
    batches: Vec<(Appended, Bytes, Vec<i64>)>,
    start: u64,
    durable: u64,
    entry: u64,
}

impl World {
    fn new(mode: Mode, segment_bytes: u64) -> Self {
        let config = LogConfig { segment_bytes, epoch_base: 0 };
        let disk = formatted(3);
        let batches = Vec::new();
        let mut world = Self { disk, mode, config, open: None, batches, start: 0, durable: 0, entry: 0 };
        world.open_at(None);
        world
    }

    fn open_at(&mut self, state: Option<&LogState>) {
        self.open = Some(match self.mode {
            Mode::Embedded => {
                let engine = embedded_engine(&self.disk);
                (Log::Embedded(engine.open_shared(LOG, self.config).unwrap().0), engine)
            }
            Mode::Consensus => {
                let engine = engine(&self.disk);
                let writer = engine.open_log(LOG, self.config, state).unwrap().0;
                (Log::Consensus(Box::new(writer)), engine)
            }
        });
    }

    fn log(&self) -> &Log {
        &self.open.as_ref().unwrap().0
    }

    fn log_mut(&mut self) -> &mut Log {
        &mut self.open.as_mut().unwrap().0
    }

    fn reader(&self) -> LogReader {
        match self.log() {
            Log::Embedded(log) => log.reader(),
            Log::Consensus(writer) => writer.reader(),
        }
    }

    fn end(&self) -> u64 {
        self.batches.last().map_or(0, |(appended, ..)| appended.last_offset.get() + 1)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append { times, value_bytes, codec } => {
                let batch = batch_at(times, *value_bytes, *codec);
                self.entry += 1;
                let now = TimestampMs(i64::try_from(self.entry).unwrap());
                let entry = self.entry;
                let appended = match self.log_mut() {
                    Log::Embedded(log) => log.append(&batch, now).unwrap(),
                    Log::Consensus(writer) => {
                        let (raft_index, leader_epoch) = (RaftIndex(entry), LeaderEpoch(1));
                        writer
                            .append(&batch, AppendStamp { raft_index, append_time: now, leader_epoch })
                            .unwrap()
                    }
                };
                assert_eq!(appended.base_offset.get(), self.end());
                self.batches.push((appended, batch.body(), times.clone()));
                // Ending a segment syncs it, too.
                self.durable = self.reader().durable_end().get();
            }
            Step::Sync => self.sync(),
            Step::Trim { percent } => {
                self.sync();
                let to = self.start + (self.end() - self.start) * percent / 100;
                match self.log_mut() {
                    Log::Embedded(log) => log.trim(Offset(to)).unwrap(),
                    Log::Consensus(writer) => writer.set_log_start(Offset(to)).unwrap(),
                }
                self.start = to;
            }
            Step::Reopen => self.reopen(),
        }
    }

    fn sync(&mut self) {
        match self.log() {
            Log::Embedded(log) => log.sync().unwrap(),
            Log::Consensus(writer) => writer.sync_target().run().unwrap(),
        }
        self.durable = self.end();
    }

    fn reopen(&mut self) {
        self.sync();
        let (log, engine) = self.open.take().unwrap();
        let state = match &log {
            Log::Embedded(log) => {
                log.idle().unwrap();
                None
            }
            Log::Consensus(writer) => Some(make_checkpoint(&engine, self.entry + 1, writer)),
        };
        drop((log, engine));
        self.open_at(state.as_ref());
    }

    fn check(&self) {
        for visible in [Visible::Durable, Visible::Appended] {
            let reader = self.reader().seeing(visible);
            let end = match visible {
                Visible::Durable => self.durable,
                Visible::Appended => self.end(),
            };
            assert_eq!((reader.start(), reader.end()), (Offset(self.start), Offset(end)));
            self.check_times(&reader, end);
            self.check_reads(&reader, end);
        }
        self.check_chains();
        assert_eq!(self.reader().damage(), []);
    }

    fn check_times(&self, reader: &LogReader, end: u64) {
        let all = self
            .batches
            .iter()
            .flat_map(|(appended, _, times)| (appended.base_offset.get()..).zip(times.iter().copied()));
        let visible: Vec<(u64, i64)> = all.filter(|(offset, _)| (self.start..end).contains(offset)).collect();
        for time in [i64::MIN, -1, 0, 7, 20, 33, 45, 58, 59, 60, i64::MAX] {
            let first = visible.iter().find(|(_, found)| *found >= time);
            let expected = first.map(|(offset, found)| (Offset(*offset), TimestampMs(*found)));
            assert_eq!(reader.offset_at_time(TimestampMs(time)).unwrap(), expected, "at or after {time}");
            let until = visible.iter().take_while(|(_, found)| *found <= time).last();
            let expected = until.map(|(offset, _)| Offset(*offset));
            assert_eq!(reader.offset_until_time(TimestampMs(time)).unwrap(), expected, "until {time}");
        }
    }

    fn check_reads(&self, reader: &LogReader, end: u64) {
        for from in self.start..=end {
            for max_bytes in [1, 1_000, 40_000] {
                let read = reader.read(Offset(from), max_bytes).unwrap();
                let mut holding =
                    self.batches.iter().skip_while(|(appended, ..)| appended.last_offset.get() < from);
                let mut next = from;
                let mut sum = 0;
                for (number, bytes) in read.batches.iter().enumerate() {
                    let (appended, body, _) = holding.next().unwrap();
                    let batch = Batch::parse(bytes.clone(), BatchLimits::CAP).unwrap();
                    assert_eq!(batch.base_offset(), Some(appended.base_offset));
                    assert_eq!(&batch.body(), body);
                    sum += bytes.len();
                    assert!(number == 0 || sum <= max_bytes, "bounded in bytes");
                    next = appended.last_offset.get() + 1;
                }
                assert_eq!(read.next, Offset(next));
                assert_eq!(read.batches.is_empty(), from == end, "at least one if any is visible");
            }
        }
        let below = self.start.checked_sub(1).map(Offset);
        for outside in below.into_iter().chain([Offset(end + 1)]) {
            assert!(matches!(reader.read(outside, 1), Err(ReadError::OutOfRange { .. })));
        }
    }

    fn check_chains(&self) {
        let reader = self.reader();
        let mut before = Chain::ZERO;
        for (appended, ..) in &self.batches {
            if appended.base_offset.get() > self.start {
                assert_eq!(reader.chain_at(appended.base_offset).unwrap(), before);
            }
            before = appended.chain;
        }
        assert_eq!(reader.end_and_chain().1, before);
    }
}

fn run(mode: Mode, segment_bytes: u64, steps: &[Step]) {
    let mut world = World::new(mode, segment_bytes);
    world.check();
    for (number, step) in steps.iter().enumerate() {
        world.apply(step);
        // Looking costs more than doing: not after every step, and always after the last.
        if number % 7 == 0 || number + 1 == steps.len() || matches!(step, Step::Reopen | Step::Trim { .. }) {
            world.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Segments of a few frames: most of the log is sealed.
    #[test]
    fn a_log_of_small_segments_reads_as_a_list(
        embedded: bool,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(if embedded { Mode::Embedded } else { Mode::Consensus }, 6_000, &steps);
    }

    /// One long segment with an index of several entries, in memory, and built again after each opening.
    #[test]
    fn a_log_of_one_long_segment_reads_as_a_list(
        embedded: bool,
        steps in prop::collection::vec(step(), 20..60),
    ) {
        run(if embedded { Mode::Embedded } else { Mode::Consensus }, 1 << 20, &steps);
    }
}

/// An embedded log that was opened again kept the newest time of what it had found, and answered that no
/// record is as new as one that was appended since. The same befell a log under consensus once a reader had
/// summed its segment up.
#[test]
fn records_appended_since_a_start_are_found_by_their_time() {
    for mode in [Mode::Embedded, Mode::Consensus] {
        let mut world = World::new(mode, 1 << 20);
        let append = |time| Step::Append { times: vec![time], value_bytes: 10, codec: Codec::None };
        world.apply(&append(10));
        world.reopen();
        assert_eq!(world.reader().offset_at_time(TimestampMs(11)).unwrap(), None);
        world.apply(&append(20));
        world.sync();
        let found = world.reader().offset_at_time(TimestampMs(11)).unwrap();
        assert_eq!(found, Some((Offset(1), TimestampMs(20))));
    }
}
