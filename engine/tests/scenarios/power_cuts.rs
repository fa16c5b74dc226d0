//! Seeded workloads, crashed anywhere in every way the disk allows, recovered and held to the promise.

use std::collections::BTreeSet;

use tidelog_engine::Engine;
use tidelog_engine::checkpoint::LogState;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::Position;
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::world::{
    CONFIG, LOG, append, batch, data, engine, formatted, log_files, make_checkpoint, open, options, read_all,
    shared, try_shared,
};

/// A small generator, so that a seed is a workload.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn crash_of(seed: u64) -> Crash {
    match seed % 5 {
        0 => Crash::LoseUnsynced,
        1 => Crash::ProcessOnly,
        _ => Crash::PowerCut { seed },
    }
}

/// Runs an embedded log until the machine stops. Returns the log start that was acknowledged, and
/// how many records were, with what was sent for each.
fn embedded_workload(disk: &SimDisk, dice: &mut Dice) -> (u64, u64, Vec<u64>) {
    let (mut start, mut durable, mut sent) = (0, 0, Vec::new());
    let Some(log) = try_shared(disk) else { return (start, durable, sent) };
    for number in 0..25 {
        let records = u32::try_from(dice.roll(3) + 1).unwrap();
        let one = batch(number, records, usize::try_from(dice.roll(600)).unwrap());
        let done = match dice.roll(10) {
            0..=4 => log.append(&one, TimestampMs(1)).map(|_| None),
            5..=7 => log.append_durable(&one, TimestampMs(1)).map(|at| Some(at.last_offset.get() + 1)),
            8 => log
                .append(&one, TimestampMs(1))
                .and_then(|at| log.idle().map(|()| Some(at.last_offset.get() + 1))),
            _ => log.append_durable(&one, TimestampMs(1)).and_then(|at| {
                let to = dice.roll(at.base_offset.get() + 1);
                durable = at.last_offset.get() + 1;
                sent.extend((0..records).map(|_| number));
                log.trim(Offset(to)).map(|()| start = start.max(to))?;
                Ok(Some(durable))
            }),
        };
        if let Ok(end) = done {
            durable = end.unwrap_or(durable);
            if u64::try_from(sent.len()).unwrap()
                < log.reader().seeing(tidelog_engine::log::Visible::Appended).end().get()
            {
                sent.extend((0..records).map(|_| number));
            }
        } else {
            return (start, durable, sent);
        }
    }
    (start, durable, sent)
}

/// Every acknowledged record of an embedded log is there after any crash, nothing is called damaged,
/// and recovering twice leaves the same bytes.
#[test]
fn an_embedded_log_keeps_what_it_acknowledged_through_any_crash() {
    let mut images = BTreeSet::new();
    for seed in 0..1_200 {
        let disk = formatted(seed);
        let mut dice = Dice(seed);
        disk.stop_at(disk.changes() + 6 + dice.roll(150));
        let (start, durable, sent) = embedded_workload(&disk, &mut dice);
        disk.crash(crash_of(seed));
        images.insert(disk.fingerprint());
        let (log, recovery) = shared(&disk);
        assert_eq!(recovery.damage, [], "seed {seed}");
        let reader = log.reader();
        assert!(reader.end().get() >= durable, "seed {seed}: {} of {durable}", reader.end());
        assert!(reader.start().get() >= start, "seed {seed}");
        for (base, bytes) in read_all(&reader, reader.start()).unwrap() {
            let Some(number) = sent.get(usize::try_from(base.get()).unwrap()) else { continue };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.contains(&format!("{number}.0.")), "seed {seed}: batch {number} at {base}");
        }
        let shown = reader.end();
        let files = log_files(&disk);
        drop((log, reader));
        disk.crash(Crash::PowerCut { seed: seed + 7 });
        let (log, recovery) = shared(&disk);
        assert!(recovery.is_clean(), "seed {seed}: {recovery:?}");
        assert_eq!(log.reader().end(), shown, "seed {seed}: what was shown as durable is durable");
        assert_eq!(log_files(&disk), files, "seed {seed}: recovered twice");
    }
    assert!(images.len() > 1_000, "{} distinct images", images.len());
}

/// A log under consensus, crashed anywhere: applying again from the newest checkpoint ends in the
/// bytes of a log that never crashed, and a later crash takes none of them.
#[test]
fn a_log_under_consensus_ends_in_the_same_bytes_after_any_crash() {
    let mut images = BTreeSet::new();
    let expected = {
        let disk = formatted(0);
        let (mut writer, _) = open(&engine(&disk), None);
        append(&mut writer, 1..=40);
        log_files(&disk)
    };
    for seed in 0..900 {
        let disk = formatted(seed);
        let mut dice = Dice(seed);
        let mut applied: (u64, Option<LogState>) = (0, None);
        for round in 0..3 {
            disk.stop_at(disk.changes() + dice.roll(110));
            let running = Engine::open(disk.storage(), data(), options());
            let opened = running.as_ref().map(|running| running.open_log(LOG, CONFIG, applied.1.as_ref()));
            let (Ok(running), Ok(Ok((mut writer, recovery)))) = (&running, opened) else {
                disk.crash(crash_of(seed + round));
                continue;
            };
            assert_eq!(recovery.damage, [], "seed {seed}, round {round}");
            for index in applied.0 + 1..=40 {
                let (batch, stamp) = crate::world::entry(index);
                if writer.append(&batch, stamp).is_err() {
                    break;
                }
                if dice.roll(6) == 0 {
                    let checkpoint = crate::world::checkpoint(index, &writer);
                    let synced = writer.sync_target().run().is_ok();
                    if synced && running.write_checkpoint(&checkpoint).is_ok() {
                        applied = (index, Some(writer.state()));
                    }
                }
            }
            drop(writer);
            disk.crash(crash_of(seed + round));
            images.insert(disk.fingerprint());
            if let Some(loaded) = engine(&disk).load_checkpoint(crate::world::GROUP).unwrap() {
                applied = (loaded.newest.applied.index.get(), Some(loaded.newest.logs[0].state.clone()));
            }
        }
        let last = engine(&disk);
        let (mut writer, recovery) = open(&last, applied.1.as_ref());
        assert_eq!(recovery.damage, [], "seed {seed}");
        append(&mut writer, applied.0 + 1..=40);
        make_checkpoint(&last, 40, &writer);
        assert_eq!(log_files(&disk), expected, "seed {seed}");
        assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 40, "seed {seed}");
        assert!(writer.state().active_position > Position::ZERO);
    }
    assert!(images.len() > 1_000, "{} distinct images", images.len());
}
