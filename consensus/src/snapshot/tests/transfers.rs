//! From offer to staging: what is fetched, what is not, and what a break costs.

use tidelog_engine::sim_disk::Crash;
use tidelog_wire::ids::Offset;

use super::super::*;
use super::site::{Offering, Site, log};

#[test]
fn a_manifest_lists_what_the_checkpoint_needs_and_nothing_else() {
    let offering = Offering::new();
    let logs: Vec<_> = offering.manifest.logs.iter().map(|files| files.log).collect();
    assert_eq!(logs, [log(0), log(1)], "the empty log has no file");
    let [first, trimmed] = &offering.manifest.logs[..] else { panic!() };
    assert_eq!(first.files[0].base, Offset(0));
    assert_eq!(first.files.last().unwrap().end, Offset(180), "what came after the checkpoint is not in it");
    assert!(trimmed.files[0].base > Offset(0) && trimmed.files[0].base <= Offset(100));
    assert!(first.files.len() > 3);
    let checkpoint = offering.manifest.checkpoint().unwrap();
    assert_eq!(checkpoint.last_durable, checkpoint.applied, "what only this disk knows is left out");
}

#[test]
fn two_replicas_make_the_same_manifest() {
    let offering = Offering::new();
    let mut other = Site::format(2);
    other.create_logs(3);
    other.append(0, 60);
    other.writers[1].set_log_start(Offset(100)).unwrap();
    let applied = offering.manifest.snapshot;
    let checkpoint = other.checkpoint(applied, applied);
    let manifest = build_manifest(&*other.storage, &other.dir, super::site::CLUSTER, &checkpoint).unwrap();
    assert_eq!(digest(&manifest.encode()), offering.offer.digest);
}

#[test]
fn an_empty_replica_fetches_every_byte_once() {
    let offering = Offering::new();
    let follower = Site::format(1);
    let staged = offering.fetch(&follower).unwrap();
    assert_eq!(staged.fetched_bytes, offering.manifest.file_bytes() + offering.offer.manifest_bytes);
    assert!(staged.reused.is_empty());
}

#[test]
fn own_segments_are_used_and_the_active_one_is_continued() {
    let offering = Offering::new();
    let follower = offering.follower(40);
    let staged = offering.fetch(&follower).unwrap();
    assert!(staged.reused.len() > 3, "sealed segments stay where they are: {:?}", staged.reused);
    let all = offering.manifest.file_bytes();
    assert!(staged.fetched_bytes < all / 2, "{} of {all} bytes", staged.fetched_bytes);
    let untouched = follower.read_all(0);
    assert_eq!(untouched.len(), 40, "the present state is as it was");
}

/// Under consensus a sealed segment is synced by the next checkpoint, not when it is sealed. One that a
/// snapshot uses where it lies must be durable all the same: no checkpoint of its own will follow.
#[test]
fn a_segment_used_where_it_lies_survives_the_power_cut_after_the_switch() {
    let offering = Offering::new();
    let mut follower = offering.follower(5);
    follower.append(5, 40);
    let staged = offering.fetch(&follower).unwrap();
    assert!(staged.reused.len() > 3);
    follower.close();
    follower.disk.crash(Crash::LoseUnsynced);
    for (log, file) in offering.manifest.files() {
        if staged.reused.contains(&(log, file.base)) {
            let path = format!("logs/{}/{}/{:020}.seg", log.generation, log.partition, file.base.get());
            let theirs = offering.site.bytes(&offering.site.dir.join(&path));
            assert_eq!(follower.bytes(&follower.dir.join(&path)), theirs, "{path}");
        }
    }
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_stopped() {
    let offering = Offering::new();
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    let mut breaks = 0;
    let staged = loop {
        match fetcher.next_step().unwrap() {
            Next::Staged(staged) => break staged,
            ask @ Next::Ask { .. } => {
                breaks += 1;
                offering.serve(&mut fetcher, &ask, 1_500).unwrap();
            }
        }
    };
    assert!(breaks > 10);
    assert_eq!(staged.fetched_bytes, offering.manifest.file_bytes() + offering.offer.manifest_bytes);
}

#[test]
fn a_restart_in_the_middle_keeps_what_was_whole_and_fetches_the_rest() {
    let offering = Offering::new();
    for seed in 0..20 {
        let mut follower = Site::format(1);
        let mut fetcher = offering.fetcher(&follower);
        for _ in 0..12 {
            let ask = fetcher.next_step().unwrap();
            offering.serve(&mut fetcher, &ask, 2_500).unwrap();
        }
        drop(fetcher);
        follower.close();
        follower.disk.crash(Crash::PowerCut { seed });
        follower.open();
        offering.fetch(&follower).unwrap();
    }
}

#[test]
fn a_peer_that_delivers_nothing_is_given_up() {
    let offering = Offering::new();
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    let gave_up = loop {
        match fetcher.next_step() {
            Ok(_) => fetcher.ended(Ended::Broken("no route".to_owned())).unwrap(),
            Err(error) => break error,
        }
    };
    let SnapshotError::GaveUp { attempts: 5, last, .. } = gave_up else { panic!("{gave_up}") };
    assert_eq!(last, "no route");
}

#[test]
fn a_disk_without_room_refuses_before_the_first_file() {
    let offering = Offering::new();
    let follower = Site::format(1);
    follower.disk.set_free_bytes(64 << 20);
    let mut fetcher = offering.fetcher(&follower);
    let ask = fetcher.next_step().unwrap();
    let error = offering.serve(&mut fetcher, &ask, u64::MAX).unwrap_err();
    assert!(matches!(error, SnapshotError::NoRoom { .. }), "{error}");
}

#[test]
fn what_an_export_names_stays_while_it_is_pinned_and_is_refused_afterwards() {
    let mut offering = Offering::new();
    // Everything is trimmed and checkpointed twice: without the pin the files would be gone.
    for round in 0..2 {
        let end = offering.site.writers[0].state().end;
        offering.site.writers[0].set_log_start(end).unwrap();
        offering.site.checkpoint(super::site::entry(81 + round, 3), super::site::entry(81 + round, 3));
    }
    let follower = Site::format(1);
    offering.fetch(&follower).unwrap();

    assert_eq!(offering.exports.expire(10_000), []);
    assert_eq!(offering.exports.expire(200_000), [(super::site::GROUP, offering.manifest.snapshot)]);
    let late = Site::format(3);
    let error = offering.fetch(&late).unwrap_err();
    assert!(matches!(error, SnapshotError::GaveUp { .. }), "{error}");
}

#[test]
fn a_newer_offer_continues_with_the_files_of_the_older_one() {
    let mut offering = Offering::new();
    let follower = Site::format(1);
    let first = offering.fetch(&follower).unwrap();
    let checkpoint = offering.site.checkpoint(super::site::entry(81, 3), super::site::entry(81, 3));
    let manifest =
        build_manifest(&*offering.site.storage, &offering.site.dir, super::site::CLUSTER, &checkpoint)
            .unwrap();
    let offered = offering.exports.offer(manifest, std::sync::Arc::new(())).unwrap();
    offering.offer.digest = offered.digest;
    offering.offer.manifest_bytes = offered.manifest_bytes;
    offering.offer.snapshot = offered.snapshot;
    let second = offering.fetch(&follower).unwrap();
    assert!(
        second.fetched_bytes < first.fetched_bytes / 2,
        "{} then {}",
        first.fetched_bytes,
        second.fetched_bytes
    );
}
