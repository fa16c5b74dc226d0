//! A data directory of arbitrary files, opened as one of either mode.
//!
//! Checksums are put right where the case says so. Whatever opens must be readable by its own rules, take appends, and
//! be the same when it is opened again.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidelog_engine::Mode;
use tidelog_engine::segment::LogTag;
use tidelog_fuzz::check::{Trust, recovered};
use tidelog_fuzz::work::Model;
use tidelog_fuzz::{CLUSTER, LOGS, data, formatted, mend, settle, write};

/// Files taken of a case.
const FILES_MAX: usize = 8;

#[derive(Arbitrary, Debug)]
struct Case {
    embedded: bool,
    files: Vec<(Place, Vec<u8>)>,
}

/// Where a file lies, and what is made of its bytes.
#[derive(Arbitrary, Debug)]
enum Place {
    Segment { log: bool, base: u8, mended: bool },
    InLog { log: bool, name: u8 },
    Checkpoint { group: bool, index: u8, mended: bool },
    Quarantine { number: u8, ending: u8 },
    Identity { second: bool },
    Other { name: u8 },
}

impl Place {
    fn path(&self) -> PathBuf {
        let below = match self {
            Self::Segment { log, base, .. } => {
                let log = LOGS[usize::from(*log)];
                format!("logs/{}/{}/{base:020}.seg", log.generation, log.partition)
            }
            Self::InLog { log, name } => {
                let log = LOGS[usize::from(*log)];
                format!("logs/{}/{}/{name}", log.generation, log.partition)
            }
            Self::Checkpoint { group, index, .. } => {
                format!("checkpoints/{}/{index:020}-{:020}.ckpt", u8::from(*group), 1)
            }
            Self::Quarantine { number, ending } => {
                let ending = ["piece", "note", "tmp"][usize::from(*ending) % 3];
                format!("quarantine/{number:010}-00000000001000-x.{ending}")
            }
            Self::Identity { second } => format!("identity/{}", if *second { "b" } else { "a" }),
            Self::Other { name } => ["reserve", "votes", "logs/x", "logs/9/x", "logs/9/4294967296/0", "lost"]
                [usize::from(*name) % 6]
                .to_owned(),
        };
        data().join(below)
    }

    /// What stands in the file: the bytes, or what they become when all that is checked first is put right.
    fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Segment { log, base, mended: true } => {
                let id = LOGS[usize::from(*log)];
                let mut head = b"TIDESEGM\x01\0\0\0".to_vec();
                head.extend_from_slice(&id.partition.get().to_le_bytes());
                head.extend_from_slice(&CLUSTER.0.to_le_bytes());
                head.extend_from_slice(&id.generation.get().to_le_bytes());
                head.extend_from_slice(&u64::from(*base).to_le_bytes());
                head.resize(80, 0);
                head.append(&mut bytes);
                let tag = LogTag::of(CLUSTER, id).0.to_le_bytes();
                for position in mend::frames(&head) {
                    head[position + 40..position + 48]
                        .copy_from_slice(&[tag[0], tag[1], tag[2], tag[3], 1, 0, 0, 0]);
                }
                mend::segment(&mut head);
                head
            }
            Self::Checkpoint { mended: true, .. } => {
                let mut head = b"TIDECKPT\x01\0\0\0".to_vec();
                head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                head.append(&mut bytes);
                head.extend_from_slice(&[0; 4]);
                mend::checkpoint(&mut head);
                head
            }
            Self::Segment { mended: false, .. }
            | Self::Checkpoint { mended: false, .. }
            | Self::InLog { .. }
            | Self::Quarantine { .. }
            | Self::Identity { .. }
            | Self::Other { .. } => bytes,
        }
    }
}

fuzz_target!(|case: Case| {
    let mode = if case.embedded { Mode::Embedded } else { Mode::Consensus };
    let disk = formatted();
    for (place, bytes) in case.files.into_iter().take(FILES_MAX) {
        let bytes = place.bytes(bytes);
        write(&disk, &place.path(), &bytes);
    }
    settle(&disk);
    recovered(&disk, mode, &mut Model::default(), Trust::Itself);
});
