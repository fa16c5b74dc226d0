use tidelog_engine::checkpoint::LogState;
use tidelog_engine::log::recovery::table::{Seen, Verdict};
use tidelog_engine::log::{LogError, ReadError};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::Offset;

use crate::world::{
    CONFIG, Content, LOG, append, batch, engine, entry, formatted, found_late, log_files, make_checkpoint,
    open, read_all, segment_path,
};

/// A log with entries 1..=`last`, checkpointed at `at`; the process has died.
fn crashed(at: u64, last: u64, crash: Crash) -> (SimDisk, LogState) {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=at);
    let state = make_checkpoint(&engine, at, &writer);
    append(&mut writer, at + 1..=last);
    disk.crash(crash);
    (disk, state)
}

/// The files of a log with entries 1..=`last` that never crashed.
fn undisturbed(last: u64) -> Vec<(std::path::PathBuf, Content)> {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=last);
    log_files(&disk)
}

/// Frames above the checkpoint are compared and not written again.
#[test]
fn replay_compares_valid_frames_and_writes_only_what_is_missing() {
    let (disk, state) = crashed(30, 60, Crash::ProcessOnly);
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    assert_eq!(recovery.kept_frames, 30);
    assert_eq!(writer.reader().end(), state.end, "not applied again yet");
    assert_eq!(writer.replay_pending(), 30);
    append(&mut writer, 31..=60);
    assert_eq!(writer.replay_pending(), 0);
    append(&mut writer, 61..=70);
    assert_eq!(log_files(&disk), undisturbed(70));
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 70);
}

/// Whatever a power cut leaves of the frames above the checkpoint, applying again ends in the same bytes.
#[test]
fn after_any_power_cut_replay_ends_in_the_same_bytes() {
    let expected = undisturbed(60);
    for seed in 0..300 {
        let (disk, state) = crashed(seed % 40, 60 - seed % 7, Crash::PowerCut { seed });
        let engine = engine(&disk);
        let (mut writer, recovery) = open(&engine, (seed % 40 > 0).then_some(&state));
        assert_eq!(recovery.damage, [], "seed {seed}");
        append(&mut writer, seed % 40 + 1..=60);
        writer.sync_target().run().unwrap();
        assert_eq!(log_files(&disk), expected, "seed {seed}");
        assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 60);
    }
}

/// Entries that differ from the frames on disk win; the frames are set aside.
#[test]
fn frames_that_differ_from_the_entries_are_set_aside() {
    let (disk, state) = crashed(5, 40, Crash::ProcessOnly);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, Some(&state));
    append(&mut writer, 6..=6);
    let (_, stamp) = entry(7);
    writer.append(&batch(99, 3, 10), stamp).unwrap();
    assert_eq!(writer.replay_pending(), 0);
    append(&mut writer, 8..=40);
    let read = read_all(&writer.reader(), Offset(0)).unwrap();
    assert_eq!(read.len(), 40);
    assert!(disk.files().iter().any(|path| path.starts_with("/data/quarantine")));
}

/// A flipped bit above the checkpoint is a torn tail: cut, kept in quarantine, written again.
#[test]
fn broken_bytes_above_the_checkpoint_are_cut_with_a_copy() {
    let (disk, state) = crashed(3, 8, Crash::ProcessOnly);
    let broken = Position(state.active_position.get() + 400);
    disk.flip_bit(&segment_path(0), broken, 1).unwrap();
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    assert_eq!(recovery.kept_frames, 1);
    assert!(recovery.cut_bytes > 0);
    assert!(recovery.findings.iter().any(|one| one.seen == Seen::Broken && one.verdict == Verdict::TornTail));
    append(&mut writer, 4..=8);
    assert_eq!(log_files(&disk), undisturbed(8));
}

/// A flipped bit below the checkpoint costs exactly its batch, and only when it is read.
#[test]
fn damage_below_the_checkpoint_costs_exactly_its_batch() {
    let (disk, state) = crashed(60, 60, Crash::ProcessOnly);
    disk.flip_bit(&segment_path(0), Position(80 + 48 + 150), 4).unwrap();
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    assert!(recovery.is_clean(), "nothing below the checkpoint is read at start");
    let reader = writer.reader();
    let damaged = |at| match reader.read(at, 1_000) {
        Err(ReadError::Damaged { range, .. }) => range,
        other => panic!("{other:?}"),
    };
    assert_eq!(damaged(Offset(1)), Offset(0)..Offset(2));
    assert_eq!(read_all(&reader, Offset(2)).unwrap().len(), 59);
    append(&mut writer, 61..=70);
    assert_eq!(read_all(&reader, Offset(2)).unwrap().len(), 69, "the log stays up");
    assert_eq!(writer.damage(), [Offset(0)..Offset(2)]);
}

/// A frame header that does not verify hides where the next frame is; looking for it finds it.
#[test]
fn a_broken_frame_header_costs_exactly_its_batch() {
    let (disk, state) = crashed(60, 60, Crash::ProcessOnly);
    let frame = 48 + u64::try_from(entry(1).0.bytes().len()).unwrap();
    disk.flip_bit(&segment_path(0), Position(80 + frame * 2 + 5), 4).unwrap();
    let engine = engine(&disk);
    let (writer, _) = open(&engine, Some(&state));
    match writer.reader().read(Offset(4), 1_000) {
        Err(ReadError::Damaged { range, .. }) => assert_eq!(range, Offset(4)..Offset(6)),
        other => panic!("{other:?}"),
    }
    assert_eq!(read_all(&writer.reader(), Offset(6)).unwrap().len(), 57);
}

/// A footer that is gone is written again from the frames, to the same bytes.
#[test]
fn a_missing_footer_below_the_checkpoint_is_sealed_again() {
    let (disk, state) = crashed(60, 60, Crash::ProcessOnly);
    let before = log_files(&disk);
    let len = u64::try_from(before[0].1.0.len()).unwrap();
    disk.flip_bit(&before[0].0, Position(len - 10), 0).unwrap();
    let engine = engine(&disk);
    let (writer, recovery) = open(&engine, Some(&state));
    assert!(recovery.is_clean(), "nothing below the checkpoint is read at start");
    assert_eq!(writer.reader().read(Offset(0), 10).unwrap().batches.len(), 1);
    let recovery = found_late(&engine);
    assert!(
        recovery.findings.iter().any(|one| one.seen == Seen::NoFooter && one.verdict == Verdict::SealAgain)
    );
    assert_eq!(recovery.damage, []);
    assert_eq!(log_files(&disk), before);
    drop(writer);
}

/// A missing segment costs its range; the rest can be read and the log stays up.
#[test]
fn a_missing_segment_costs_its_range() {
    let (disk, state) = crashed(60, 60, Crash::ProcessOnly);
    let files = log_files(&disk);
    disk.storage().remove(&files[1].0).unwrap();
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, Some(&state));
    writer.reader().look_at_all().unwrap();
    let recovery = found_late(&engine);
    let [range] = recovery.damage.as_slice() else { panic!("{:?}", recovery.damage) };
    assert_eq!(writer.damage(), recovery.damage);
    assert_eq!(segment_path(range.start.get()), files[1].0);
    assert_eq!(segment_path(range.end.get()), files[2].0);
    assert!(matches!(writer.reader().read(range.start, 10), Err(ReadError::Damaged { .. })));
    assert!(!read_all(&writer.reader(), range.end).unwrap().is_empty());
    append(&mut writer, 61..=62);
}

/// The active segment lost bytes that the checkpoint vouched for: damage, and the log goes on in a new file.
#[test]
fn an_active_segment_shorter_than_the_checkpoint_is_damage() {
    let (disk, state) = crashed(5, 5, Crash::ProcessOnly);
    let storage = disk.storage();
    let file = storage.open(&segment_path(0), OpenMode::ReadWrite).unwrap();
    file.truncate(state.active_position.get() - 10).unwrap();
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    assert_eq!(recovery.damage, [Offset(8)..Offset(10)]);
    append(&mut writer, 6..=9);
    assert_eq!(read_all(&writer.reader(), Offset(10)).unwrap().len(), 4);
    assert_eq!(writer.reader().read(Offset(0), 10_000).unwrap().next, Offset(8));
}

/// Foreign names and segments of other logs are moved away and named; the log opens.
#[test]
fn files_that_do_not_belong_here_are_set_aside() {
    let (disk, state) = crashed(5, 5, Crash::ProcessOnly);
    let storage = disk.storage();
    let stray = segment_path(0).with_file_name("notes.txt");
    storage.open(&stray, OpenMode::CreateNew).unwrap();
    let misplaced = segment_path(500);
    let copy = storage.open(&misplaced, OpenMode::CreateNew).unwrap();
    copy.write_at(Position(0), &[&log_files(&disk)[0].1.0]).unwrap();
    let engine = engine(&disk);
    let (writer, recovery) = open(&engine, Some(&state));
    let misplaced = recovery.findings.iter().filter(|one| one.verdict == Verdict::SetAside).count();
    assert_eq!(misplaced, 2);
    assert_eq!(log_files(&disk).len(), 1);
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 5);
}

/// What recovery kept was synced before it counted: a power cut after replay takes nothing of it.
#[test]
fn what_recovery_keeps_survives_a_power_cut_after_the_next_checkpoint() {
    for seed in 0..100 {
        let (disk, state) = crashed(5, 30, Crash::ProcessOnly);
        let second = engine(&disk);
        let (mut writer, _) = open(&second, Some(&state));
        append(&mut writer, 6..=30);
        let state = make_checkpoint(&second, 30, &writer);
        disk.crash(Crash::PowerCut { seed });
        let third = engine(&disk);
        let (writer, recovery) = open(&third, Some(&state));
        assert!(recovery.is_clean(), "seed {seed}: {recovery:?}");
        assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 30, "seed {seed}");
    }
}

/// Recovering twice leaves the same bytes as recovering once.
#[test]
fn recovering_twice_is_recovering_once() {
    for seed in 0..100 {
        let (disk, state) = crashed(seed % 20 + 1, 40, Crash::PowerCut { seed });
        drop(open(&engine(&disk), Some(&state)));
        let once = log_files(&disk);
        disk.crash(Crash::PowerCut { seed: seed + 1 });
        let (_, recovery) = open(&engine(&disk), Some(&state));
        assert!(recovery.is_clean(), "seed {seed}: {recovery:?}");
        assert_eq!(log_files(&disk), once, "seed {seed}");
    }
}

/// Rewrites bytes of a file in place.
fn overwrite(disk: &SimDisk, path: &std::path::Path, at: u64, bytes: &[u8]) {
    let file = disk.storage().open(path, OpenMode::ReadWrite).unwrap();
    file.write_at(Position(at), &[bytes]).unwrap();
}

fn sealed_header(header: &mut [u8]) {
    let crc = crc32c::crc32c(&header[..76]);
    header[76..80].copy_from_slice(&crc.to_le_bytes());
}

/// A segment of another cluster is not touched and not used: both ids are named.
#[test]
fn a_segment_of_another_cluster_refuses_the_log() {
    let (disk, state) = crashed(5, 5, Crash::ProcessOnly);
    let mut header = log_files(&disk)[0].1.0[..80].to_vec();
    header[16] ^= 0xff;
    sealed_header(&mut header);
    overwrite(&disk, &segment_path(0), 0, &header);
    let before = log_files(&disk);
    let refused = engine(&disk).open_log(LOG, CONFIG, Some(&state)).unwrap_err();
    assert!(matches!(refused, LogError::ForeignCluster { .. }), "{refused}");
    assert_eq!(log_files(&disk), before);
}

/// What a newer release wrote is neither read nor cut, be it the file or a frame above the checkpoint.
#[test]
fn a_newer_format_refuses_the_log_and_is_not_cut() {
    let (disk, state) = crashed(5, 5, Crash::ProcessOnly);
    let mut header = log_files(&disk)[0].1.0[..80].to_vec();
    header[8] = 2;
    sealed_header(&mut header);
    overwrite(&disk, &segment_path(0), 0, &header);
    let refused = engine(&disk).open_log(LOG, CONFIG, Some(&state)).unwrap_err();
    assert!(matches!(refused, LogError::UnknownFormat { found: 2, .. }), "{refused}");

    let (disk, state) = crashed(3, 5, Crash::ProcessOnly);
    let at = usize::try_from(state.active_position.get()).unwrap();
    let mut frame = log_files(&disk)[0].1.0[at..at + 48 + 21].to_vec();
    frame[44] = 2;
    let covered = [&frame[4..48], &state.active_position.get().to_le_bytes(), &frame[48..]].concat();
    frame[..4].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    overwrite(&disk, &segment_path(0), state.active_position.get(), &frame);
    let before = log_files(&disk);
    let refused = engine(&disk).open_log(LOG, CONFIG, Some(&state)).unwrap_err();
    assert!(matches!(refused, LogError::UnknownFormat { found: 2, .. }), "{refused}");
    assert_eq!(log_files(&disk), before);
}

/// A broken segment header below the checkpoint costs nothing: the frames verify by themselves.
#[test]
fn a_broken_header_below_the_checkpoint_costs_nothing() {
    let (disk, state) = crashed(60, 60, Crash::ProcessOnly);
    for (path, _) in log_files(&disk) {
        disk.flip_bit(&path, Position(20), 1).unwrap();
    }
    let engine = engine(&disk);
    let (writer, _) = open(&engine, Some(&state));
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 60);
    let recovery = found_late(&engine);
    assert_eq!(recovery.damage, []);
    assert_eq!(recovery.findings.len(), log_files(&disk).len());
    assert!(recovery.findings.iter().all(|one| one.verdict == Verdict::FramesOnly));
}

/// A broken segment header above the checkpoint is a torn tail, and so is everything behind it.
#[test]
fn a_broken_header_above_the_checkpoint_is_cut_with_all_behind_it() {
    let (disk, state) = crashed(3, 60, Crash::ProcessOnly);
    let second = log_files(&disk)[1].0.clone();
    disk.flip_bit(&second, Position(20), 1).unwrap();
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    let seen = |seen| recovery.findings.iter().filter(|one| one.seen == seen).count();
    assert_eq!(seen(Seen::BrokenHeader), 1);
    assert!(seen(Seen::BeyondCut) > 1);
    assert_eq!(log_files(&disk).len(), 1);
    append(&mut writer, 4..=60);
    assert_eq!(log_files(&disk), undisturbed(60));
}

/// The deliberate defect does what it is for: without the sync of what recovery kept, a checkpoint
/// vouches for bytes that a power cut takes back.
#[cfg(feature = "defects")]
#[test]
fn skipping_the_sync_of_the_recovered_tail_loses_what_a_checkpoint_vouched_for() {
    use tidelog_engine::{Defects, Engine, Options};
    let (disk, state) = crashed(5, 30, Crash::ProcessOnly);
    let defects = Defects { skip_recovered_tail_sync: true };
    let options = Options { defects, ..crate::world::options() };
    let careless = Engine::open(disk.storage(), crate::world::data(), options).unwrap();
    let (mut writer, _) = open(&careless, Some(&state));
    append(&mut writer, 6..=30);
    let state = make_checkpoint(&careless, 30, &writer);
    disk.crash(Crash::LoseUnsynced);
    let (_, recovery) = open(&engine(&disk), Some(&state));
    assert!(!recovery.damage.is_empty());
}
