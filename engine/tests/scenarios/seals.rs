//! Sealing again, from whatever a crash left of a seal: the same bytes each time, and by whoever does it.
//!
//! Index and footer are a function of the frames. So the tests take a sealed file, leave of its seal what a
//! crash may leave, and let each of those seal it that do: recovery of a segment that has a successor, and the
//! writer that goes on in the last one.

use std::path::Path;

use proptest::prelude::*;
use tidelog_engine::checkpoint::{LogConfig, LogState};
use tidelog_engine::sim_disk::{Failure, Fault, Lasting, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::world::{
    LOG, append, batch, embedded_engine, engine, entry, formatted, log_files, make_checkpoint, open,
    read_all, read_file, segment_path,
};

const NOW: TimestampMs = TimestampMs(5);
const FOOTER_BYTES: usize = 64;

/// Where the frames of a sealed file end: the footer says it, 48 bytes in.
fn frames_end(sealed: &[u8]) -> usize {
    let at = sealed.len() - FOOTER_BYTES + 48;
    usize::try_from(u64::from_le_bytes(sealed[at..at + 8].try_into().unwrap())).unwrap()
}

/// What a crash may leave of a sealed file whose frames are whole: nothing of the seal, each part of it, the
/// same in a file that is longer because zeros lie ahead, a seal torn at a sector, one that was never cut to
/// size, one with a bit that is not its own.
fn left_of(sealed: &[u8]) -> Vec<Vec<u8>> {
    let frames = frames_end(sealed);
    let mut all = Vec::new();
    for kept in frames..=sealed.len() {
        let short = sealed[..kept].to_vec();
        let mut zeros_up_to_size = short.clone();
        zeros_up_to_size.resize(sealed.len(), 0);
        let mut zeros_ahead = short.clone();
        zeros_ahead.resize(sealed.len() + 700, 0);
        all.extend([short, zeros_up_to_size, zeros_ahead]);
    }
    let mut second_half_only = sealed.to_vec();
    let middle = frames + (sealed.len() - frames) / 2;
    second_half_only[frames..middle].fill(0);
    all.push(second_half_only);
    for at in [frames, middle, sealed.len() - 1] {
        let mut flipped = sealed.to_vec();
        flipped[at] ^= 4;
        all.push(flipped);
    }
    all
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.storage().open(path, OpenMode::ReadWrite).unwrap();
    file.truncate(0).unwrap();
    file.write_at(Position::ZERO, &[bytes]).unwrap();
    file.sync().unwrap();
}

/// A log under consensus of several segments, its state, and the bytes of the first.
fn under_consensus(config: LogConfig, entries: u64) -> (SimDisk, LogState, Vec<u8>) {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = engine.open_log(LOG, config, None).unwrap();
    append(&mut writer, 1..=entries);
    let state = make_checkpoint(&engine, entries, &writer);
    assert!(state.active_base > Offset(0), "there is a second segment");
    let sealed = read_file(&disk, &segment_path(0));
    (disk, state, sealed)
}

/// An embedded log of two segments and the bytes of the first. `idle_at`: there a mark is written.
fn embedded(config: LogConfig, sizes: &[usize], idle_at: usize) -> (SimDisk, Vec<Batch>, Vec<u8>) {
    let disk = formatted(1);
    let (log, _) = embedded_engine(&disk).open_shared(LOG, config).unwrap();
    let mut sent = Vec::new();
    for number in 0.. {
        let size = sizes[number % sizes.len()];
        let next = batch(u64::try_from(number).unwrap(), 2, size);
        log.append_durable(&next, NOW).unwrap();
        sent.push(next);
        if number == idle_at {
            log.idle().unwrap();
        }
        if disk.files().iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).count() == 2 {
            break;
        }
    }
    drop(log);
    let sealed = read_file(&disk, &segment_path(0));
    (disk, sent, sealed)
}

/// Recovery, or whoever looks first at a sealed segment, twice.
fn sealed_again_by_recovery(disk: &SimDisk, config: LogConfig, state: Option<&LogState>, sealed: &[u8]) {
    for time in 0..2 {
        let reader = match state {
            Some(state) => engine(disk).open_log(LOG, config, Some(state)).unwrap().0.reader(),
            None => embedded_engine(disk).open_shared(LOG, config).unwrap().0.reader(),
        };
        let all = read_all(&reader, Offset(0)).unwrap();
        assert_eq!(reader.damage(), [], "and {} batches", all.len());
        assert!(read_file(disk, &segment_path(0)) == sealed, "the same bytes, time {time}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_below_the_mark_is_sealed_again(segment_bytes in 600..3_000_u64, marked in 0..4_usize) {
        let config = LogConfig { segment_bytes, epoch_base: 0 };
        let (disk, state, sealed) = under_consensus(config, 24);
        for left in left_of(&sealed) {
            let disk = disk.fork();
            put(&disk, &segment_path(0), &left);
            sealed_again_by_recovery(&disk, config, Some(&state), &sealed);
        }
        let (disk, _, sealed) = embedded(config, &[40, 90, 10], marked);
        for left in left_of(&sealed) {
            let disk = disk.fork();
            put(&disk, &segment_path(0), &left);
            sealed_again_by_recovery(&disk, config, None, &sealed);
        }
    }

    /// The crash came before the successor was there: the frames are walked, the rest of the seal goes, and
    /// the next batch that does not fit ends the segment again. Every file comes out as if nothing had been.
    #[test]
    fn the_last_segment_is_sealed_again_by_its_writer(segment_bytes in 600..3_000_u64, marked in 0..4_usize) {
        let config = LogConfig { segment_bytes, epoch_base: 0 };
        let (disk, sent, sealed) = embedded(config, &[40, 90, 10], marked);
        let second = disk.files().into_iter().filter(|path| path.starts_with("/data/logs")).nth(1).unwrap();
        for left in left_of(&sealed) {
            let disk = disk.fork();
            disk.storage().remove(&second).unwrap();
            put(&disk, &segment_path(0), &left);
            let (log, recovery) = embedded_engine(&disk).open_shared(LOG, config).unwrap();
            assert_eq!(recovery.damage, []);
            log.append_durable(sent.last().unwrap(), NOW).unwrap();
            assert!(read_file(&disk, &segment_path(0)) == sealed);
            assert_eq!(read_all(&log.reader(), Offset(0)).unwrap().len(), sent.len());
        }
    }

    /// Under consensus the entries above a checkpoint are applied again, whatever lies there of their frames
    /// and of the seals: every prefix of the first segment's file.
    #[test]
    fn replay_seals_again_from_every_prefix(segment_bytes in 600..1_500_u64) {
        let config = LogConfig { segment_bytes, epoch_base: 0 };
        let (whole, _, sealed) = under_consensus(config, 8);
        let files = log_files(&whole);
        let disk = formatted(1);
        let state = {
            let engine = engine(&disk);
            let (mut writer, _) = engine.open_log(LOG, config, None).unwrap();
            append(&mut writer, [1]);
            make_checkpoint(&engine, 1, &writer)
        };
        let checkpointed = usize::try_from(state.active_position.get()).unwrap();
        for kept in checkpointed..=sealed.len() {
            let disk = disk.fork();
            put(&disk, &segment_path(0), &sealed[..kept]);
            let engine = engine(&disk);
            let (mut writer, _) = engine.open_log(LOG, config, Some(&state)).unwrap();
            for index in 2..=8 {
                let (batch, stamp) = entry(index);
                writer.append(&batch, stamp).unwrap();
            }
            assert!(log_files(&disk) == files, "{kept} bytes kept");
        }
    }
}

/// A log is opened again within a segment of which `harm` befell a batch, is read, and goes on until the segment is
/// full. Then the harm is undone, and the segment is used again.
fn a_segment_that_fills_up_over(harm: impl Fn(&SimDisk), mend: impl Fn(&SimDisk)) {
    let twin = formatted(1);
    let (mut writer, _) = open(&engine(&twin), None);
    append(&mut writer, 1..=40);
    let sealed = read_file(&twin, &segment_path(0));

    let disk = formatted(1);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=3);
    let state = make_checkpoint(&first, 3, &writer);
    drop((writer, first));
    harm(&disk);
    let again = engine(&disk);
    let (mut writer, _) = open(&again, Some(&state));
    assert!(read_all(&writer.reader(), Offset(0)).is_err());
    append(&mut writer, 4..=40);
    let state = make_checkpoint(&again, 40, &writer);
    drop((writer, again));
    mend(&disk);
    assert_eq!(read_file(&disk, &segment_path(0)), sealed[..frames_end(&sealed)], "no seal is made up");

    let last = engine(&disk);
    let (writer, _) = open(&last, Some(&state));
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 40);
    assert_eq!(writer.damage(), []);
    assert_eq!(log_files(&disk), log_files(&twin), "sealed by the first look");
}

/// A log whose disk refused its last segment was opened again within it. Once somebody had tried to read, the segment
/// was sealed by what could be read of it: nothing. When the disk gave every byte again its footer contradicted its
/// frames, and its whole range stayed damaged.
#[test]
fn a_segment_that_fills_up_while_its_disk_refuses_it_is_sealed_when_it_can_be_read() {
    let refuse = |disk: &SimDisk| {
        let name = segment_path(0).to_string_lossy().into_owned();
        let fault = Fault::next(Operation::Read, Failure::Io).on_path(&name);
        disk.inject(Fault { lasting: Lasting::Always, ..fault });
    };
    a_segment_that_fills_up_over(refuse, SimDisk::clear_faults);
}

/// The frames of a segment that had been opened again were summed up by their headers, which do not cover the times
/// and counts in a batch: a flipped bit there went into index and footer, under a good checksum, for ever.
#[test]
fn a_time_or_a_count_of_a_damaged_batch_never_gets_into_a_seal() {
    const BATCH: u64 = 80 + 48;
    for at in [BATCH + 23, BATCH + 26, BATCH + 35, BATCH + 42, BATCH + 61] {
        let flip = |disk: &SimDisk| disk.flip_bit(&segment_path(0), Position(at), 3).unwrap();
        a_segment_that_fills_up_over(flip, flip);
    }
}

/// The same disk gave every byte again while the log was still open: its segment without a footer was served in no snapshot
/// until the next start.
#[test]
fn a_segment_that_was_left_without_a_footer_is_sealed_when_a_snapshot_wants_it() {
    let twin = formatted(1);
    let (mut writer, _) = open(&engine(&twin), None);
    append(&mut writer, 1..=40);
    drop(writer);

    let disk = formatted(1);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=3);
    let state = make_checkpoint(&first, 3, &writer);
    drop((writer, first));
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, Some(&state));
    let name = segment_path(0).to_string_lossy().into_owned();
    let fault = Fault::next(Operation::Read, Failure::Io).on_path(&name);
    disk.inject(Fault { lasting: Lasting::Always, ..fault });
    append(&mut writer, 4..=40);
    let state = make_checkpoint(&engine, 40, &writer);
    assert!(engine.segment_files(LOG, &state).is_err(), "not while the disk refuses it");
    disk.clear_faults();
    let files = engine.segment_files(LOG, &state).unwrap();
    for file in &files {
        engine.verify_staged(&engine.segment_path(LOG, file.base), file).unwrap();
    }
    assert_eq!((log_files(&disk), writer.damage()), (log_files(&twin), vec![]));
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 40);
}
