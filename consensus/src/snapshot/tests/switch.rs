//! The switch, with a crash at each of its steps.

use std::path::Path;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_wire::ids::Term;

use super::super::*;
use super::site::{CONFIG, GROUP, Offering, Site, entry};

use crate::raft_log::{GroupWrite, InstallChange, InstallMark, RaftLog, SimLog, SimLogOptions};

fn raft_log(site: &Site) -> SimLog {
    SimLog::open(Arc::clone(&site.storage), &site.dir.join("raft"), SimLogOptions::default()).unwrap()
}

fn mark(offering: &Offering) -> InstallMark {
    let snapshot = offering.offer.snapshot;
    InstallMark { index: snapshot.index, term: snapshot.term, digest: offering.offer.digest }
}

fn hard_state(offering: &Offering) -> HardState {
    let snapshot = offering.offer.snapshot;
    HardState { term: snapshot.term.get(), vote: 0, commit: snapshot.index.get(), ..HardState::default() }
}

/// A follower with 40 batches and a raft log of its own, and everything staged.
fn staged(offering: &Offering) -> Site {
    let site = offering.follower(40);
    let entries = (42..=45).map(|index| Entry { index, term: 1, ..Entry::default() }).collect();
    let state = HardState { term: 1, commit: 41, ..HardState::default() };
    let log = raft_log(&site);
    let write = GroupWrite { entries, hard_state: Some(state), ..GroupWrite::new(GROUP) };
    log.write(&[write], true).unwrap();
    offering.fetch(&site).unwrap();
    site
}

/// What the runtime does: the mark, then the switch.
fn switch(site: &mut Site, offering: &Offering) -> Result<(), SnapshotError> {
    let log = raft_log(site);
    let checkpoint = switch_with(site, offering, &log)?;
    site.open_logs(&checkpoint);
    Ok(())
}

fn switch_with(site: &mut Site, offering: &Offering, log: &SimLog) -> Result<Checkpoint, SnapshotError> {
    site.writers.clear();
    let set = GroupWrite {
        hard_state: Some(hard_state(offering)),
        install: InstallChange::Set(mark(offering)),
        ..GroupWrite::new(GROUP)
    };
    log.write(&[set], true)?;
    let switch = Switch { group: GROUP, mark: mark(offering), hard_state: hard_state(offering) };
    let storage = Arc::clone(&site.storage);
    install(&storage, &site.dir, &*site.engine(), log, &switch)
}

/// What a start does: finishes what was begun. `true` if the new state is there.
fn restart(site: &mut Site) -> bool {
    site.open();
    let log = raft_log(site);
    let held = log.load(GROUP).unwrap();
    if let Some(mark) = held.install {
        site.writers.clear();
        let switch = Switch { group: GROUP, mark, hard_state: held.hard_state };
        let storage = Arc::clone(&site.storage);
        let checkpoint = install(&storage, &site.dir, &*site.engine(), &log, &switch).unwrap();
        site.open_logs(&checkpoint);
    }
    let held = log.load(GROUP).unwrap();
    assert_eq!(held.install, None);
    let applied = site.engine().load_checkpoint(GROUP).unwrap().unwrap().newest.applied;
    if applied == entry(61, 3) {
        assert_eq!(held.span, None, "the old entries are gone");
        assert_eq!(held.hard_state.commit, 61);
        true
    } else {
        assert_eq!(applied, entry(41, 1));
        assert_eq!(held.span.unwrap().last.get(), 45, "the old entries are all there");
        assert_eq!(held.term(held.span.unwrap().last), Some(Term(1)));
        false
    }
}

fn assert_same_as(site: &Site, offering: &Offering) {
    for number in 0..2 {
        let ours = &site.writers[number];
        assert_eq!(ours.state().end.get(), 180);
        let theirs = offering.site.writers[number].reader().chain_at(ours.state().end).unwrap();
        assert_eq!(ours.state().chain, theirs);
        assert_eq!(site.read_all(number), offering.site.read_all(number)[..site.read_all(number).len()]);
    }
    for (log, file) in offering.manifest.files() {
        let path = format!("logs/{}/{}/{:020}.seg", log.generation, log.partition, file.base.get());
        let length = usize::try_from(file.length).unwrap();
        let (ours, theirs) =
            (site.bytes(&site.dir.join(&path)), offering.site.bytes(&offering.site.dir.join(&path)));
        assert_eq!(ours[..length], theirs[..length], "{path}");
    }
}

#[test]
fn after_the_switch_segments_and_chains_are_those_of_the_leader() {
    let offering = Offering::new();
    let mut site = staged(&offering);
    switch(&mut site, &offering).unwrap();
    assert_same_as(&site, &offering);
    // And the log goes on from there as the leader's did.
    site.append(60, 80);
    assert_eq!(site.writers[0].state(), offering.site.writers[0].state());
    assert!(!site.disk.files().iter().any(|path| path.starts_with("/data/staging")));
}

#[test]
fn an_empty_replica_is_filled_from_nothing() {
    let offering = Offering::new();
    let mut site = Site::format(1);
    offering.fetch(&site).unwrap();
    switch(&mut site, &offering).unwrap();
    assert_same_as(&site, &offering);
}

fn crashed_at(before: &SimDisk, offering: &Offering, change: u64, crash: Crash) -> (Site, bool) {
    let disk = before.fork();
    let storage = disk.storage();
    let mut site = Site {
        disk,
        storage,
        dir: Path::new("/data").to_owned(),
        engine: None,
        writers: Vec::new(),
        config: CONFIG,
    };
    site.open();
    let log = raft_log(&site);
    site.disk.stop_at(site.disk.changes() + change);
    let done = switch_with(&mut site, offering, &log).is_ok() && !site.disk.is_stopped();
    drop(log);
    site.close();
    site.disk.crash(crash);
    (site, done)
}

/// The machine stops at the first, second, … change of the switch; what a crash may leave is opened
/// again. It is the old state or the new one, whole, and the new one from some step on for ever.
#[test]
fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one() {
    let offering = Offering::new();
    let mut site = staged(&offering);
    site.close();
    site.disk.crash(Crash::LoseUnsynced);
    let crashes = [Crash::ProcessOnly, Crash::LoseUnsynced]
        .into_iter()
        .chain((0..12).map(|seed| Crash::PowerCut { seed }));
    for crash in crashes {
        let (mut old, mut new) = (0, 0);
        for change in 0.. {
            let (mut site, done) = crashed_at(&site.disk, &offering, change, crash);
            if restart(&mut site) {
                new += 1;
                assert_same_as(&site, &offering);
            } else {
                old += 1;
                assert_eq!(site.read_all(0).len(), 40);
            }
            if done {
                break;
            }
        }
        assert!(old > 0 && new > 3, "{crash:?}: {old} times the old state, {new} times the new one");
    }
}

/// A second crash, while the first one's switch is being finished.
#[test]
fn a_crash_while_finishing_is_finished_again() {
    let offering = Offering::new();
    let mut site = staged(&offering);
    site.close();
    site.disk.crash(Crash::LoseUnsynced);
    for first in (0..40).step_by(4) {
        for second in (0..30).step_by(4) {
            let (mut site, _) = crashed_at(&site.disk, &offering, first, Crash::PowerCut { seed: first });
            site.open();
            let log = raft_log(&site);
            let Some(mark) = log.load(GROUP).unwrap().install else { continue };
            site.writers.clear();
            site.disk.stop_at(site.disk.changes() + second);
            let switch = Switch { group: GROUP, mark, hard_state: hard_state(&offering) };
            let storage = Arc::clone(&site.storage);
            drop(install(&storage, &site.dir, &*site.engine(), &log, &switch));
            drop(log);
            site.close();
            site.disk.crash(Crash::PowerCut { seed: second });
            assert!(restart(&mut site), "once the mark is there, the new state comes");
            assert_same_as(&site, &offering);
        }
    }
}

#[test]
fn a_switch_whose_staging_is_gone_says_so() {
    let offering = Offering::new();
    let mut site = staged(&offering);
    site.storage.remove(&site.dir.join("staging/1/manifest")).unwrap();
    let error = switch(&mut site, &offering).unwrap_err();
    assert!(matches!(error, SnapshotError::StagingLost { .. }), "{error}");
}
