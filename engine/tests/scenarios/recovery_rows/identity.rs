//! The two copies of the identity.

use std::path::PathBuf;

use tidelog_engine::identity::{Identity, IdentityError};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_engine::{Engine, OpenError, RecoveryReport};
use tidelog_wire::ids::ClusterId;

use super::{Rows, pieces, rewrite};
use crate::world::{data, formatted, options, read_file};

fn copy(name: &str) -> PathBuf {
    data().join("identity").join(name)
}

/// A directory that was started once.
fn started() -> SimDisk {
    let disk = formatted(1);
    drop(Engine::open(disk.storage(), data(), options()).unwrap());
    disk.crash(Crash::ProcessOnly);
    disk
}

fn start(disk: &SimDisk) -> Result<RecoveryReport, IdentityError> {
    match Engine::open(disk.storage(), data(), options()) {
        Ok(engine) => Ok(engine.report()),
        Err(OpenError::Identity(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

/// Refused, and not touched.
fn refuses(disk: &SimDisk) -> IdentityError {
    let files: Vec<_> = ["a", "b"].map(copy).into_iter().filter(|path| disk.files().contains(path)).collect();
    let bytes = |disk: &SimDisk| files.iter().map(|path| read_file(disk, path)).collect::<Vec<_>>();
    let before = bytes(disk);
    let error = start(disk).unwrap_err();
    assert_eq!(bytes(disk), before);
    error
}

pub(super) fn identity_whole() -> Rows {
    let report = start(&started()).unwrap();
    assert!(report.findings.is_empty() && report.healed_identity.is_none());
    report.rows.into_keys().collect()
}

/// Missing, broken or refused by the disk: the other copy serves, and both are whole afterwards. What stood
/// in its place lies in quarantine.
pub(super) fn identity_one_bad() -> Rows {
    let mut rows = Rows::new();
    for (fault, kept) in [("missing", 0), ("broken", 1), ("refused", 1)] {
        let disk = started();
        match fault {
            "missing" => disk.storage().remove(&copy("b")).unwrap(),
            "broken" => disk.flip_bit(&copy("b"), Position(30), 1).unwrap(),
            _ => disk.spoil(&copy("b"), 0..64).unwrap(),
        }
        let report = start(&disk).unwrap();
        assert_eq!(report.healed_identity, Some(copy("b")));
        assert_eq!(pieces(&disk), kept, "{fault}");
        assert_eq!(read_file(&disk, &copy("a")), read_file(&disk, &copy("b")));
        rows.extend(report.rows.into_keys());
    }
    rows
}

pub(super) fn identity_owners_differ() -> Rows {
    let disk = started();
    let mut other = Identity::decode(&read_file(&disk, &copy("b"))).unwrap();
    other.cluster = ClusterId(99);
    rewrite(&disk, &copy("b"), |bytes| *bytes = other.encode().to_vec());
    assert!(matches!(refuses(&disk), IdentityError::Disagree { .. }));
    Rows::from(["identity_owners_differ"])
}

pub(super) fn identity_absent() -> Rows {
    let disk = SimDisk::new(1);
    disk.storage().create_dir(data()).unwrap();
    assert!(matches!(refuses(&disk), IdentityError::Missing { .. }));
    Rows::from(["identity_absent"])
}

pub(super) fn identity_both_bad() -> Rows {
    let disk = started();
    disk.flip_bit(&copy("a"), Position(30), 1).unwrap();
    disk.storage().remove(&copy("b")).unwrap();
    assert!(matches!(refuses(&disk), IdentityError::BothBad { .. }));
    disk.storage().open(&copy("b"), OpenMode::CreateNew).unwrap();
    assert!(matches!(refuses(&disk), IdentityError::BothBad { .. }));
    Rows::from(["identity_both_bad"])
}

/// A newer release wrote one copy before it stopped: its boot epoch may be higher than the other's.
pub(super) fn identity_newer() -> Rows {
    let disk = started();
    rewrite(&disk, &copy("a"), |bytes| {
        bytes[12] = 2;
        let crc = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    assert!(matches!(refuses(&disk), IdentityError::UnknownFormat { found: 2, .. }));
    Rows::from(["identity_newer"])
}
