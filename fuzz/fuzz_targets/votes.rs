//! The votes file, as it is and with the checksums of its slots put right.
//!
//! It opens whatever is in it; a vote that is recorded then is there when it is opened again.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidelog_consensus::votes::{VOTES_FILE, Vote, Votes};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_fuzz::{settle, write};
use tidelog_wire::ids::{GroupId, ReplicaId, Term};

/// Bytes of a slot, and of the sector that it has for itself.
const SLOT: usize = 48;
const SECTOR: usize = 512;

fuzz_target!(|input: &[u8]| {
    // Slots one after the other, each put into a sector of its own.
    let mut mended = Vec::new();
    for slot in input.chunks(SLOT).take(64) {
        let position = mended.len() as u64;
        let mut sector = [slot, &vec![0; SECTOR - slot.len()]].concat();
        let crc = crc32c::crc32c(&position.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &sector[4..SLOT]);
        sector[..4].copy_from_slice(&crc.to_le_bytes());
        mended.extend_from_slice(&sector);
    }
    for bytes in [input, &mended] {
        let disk = SimDisk::new(1);
        let dir = Path::new("/data");
        write(&disk, &dir.join(VOTES_FILE), bytes);
        settle(&disk);
        let (mut votes, found) = Votes::open(&disk, dir).expect("a sound disk");
        let vote = Vote { group: GroupId(3), replica: ReplicaId(1), term: Term(u64::MAX), vote: Some(ReplicaId(1)) };
        votes.record(&[vote]).expect("a sound disk");
        drop(votes);
        disk.crash(Crash::LoseUnsynced);
        let (_, again) = Votes::open(&disk, dir).expect("a sound disk");
        assert_eq!(again.votes.get(&vote.group), Some(&vote));
        for (group, kept) in &found.votes {
            assert!(*group == vote.group || again.votes.get(group) == Some(kept), "group {group}");
        }
    }
});
