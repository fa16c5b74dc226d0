use super::*;
use crate::storage::Position;
use crate::storage::sim_disk::{Crash, Failure, Fault, Operation, SimDisk};

const DIR: &str = "/data";
const GOLDEN: Identity = Identity {
    cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
    incarnation: Incarnation(0xf0e0_d0c0_b0a0_9080_7060_5040_3020_1000),
    node: NodeId(2),
    boot_epoch: BootEpoch(41),
};

fn formatted() -> SimDisk {
    let disk = SimDisk::new(1);
    create_dir_durably(&disk, Path::new("/"), Path::new(DIR)).unwrap();
    Identity::format(&disk, Path::new(DIR), GOLDEN.cluster, GOLDEN.node, GOLDEN.incarnation).unwrap();
    disk
}

fn open(disk: &SimDisk) -> Result<OpenedIdentity, IdentityError> {
    Identity::open(disk, Path::new(DIR))
}

fn copy(name: &str) -> PathBuf {
    Path::new(DIR).join("identity").join(name)
}

#[test]
fn format_1_identity_bytes_never_change() {
    let bytes = include_bytes!("../../../testdata/format-1/identity.bin");
    assert_eq!(Identity::decode(bytes), Ok(GOLDEN));
    assert_eq!(&GOLDEN.encode(), bytes);
}

#[test]
fn every_start_raises_the_boot_epoch_and_a_crash_never_lowers_it() {
    let disk = formatted();
    for start in 1..=20 {
        let opened = open(&disk).unwrap();
        assert_eq!(opened.identity.boot_epoch, BootEpoch(start));
        assert_eq!(opened.healed, None);
        disk.crash(Crash::PowerCut { seed: start });
    }
}

#[test]
fn power_cut_at_any_point_of_a_start_leaves_a_usable_identity() {
    let clean = formatted();
    let shown = open(&clean).unwrap().identity.boot_epoch;
    let before = clean.changes();
    for stop in 0..20 {
        for seed in 0..30 {
            let disk = clean.fork();
            disk.stop_at(before + stop);
            let done = open(&disk).is_ok();
            disk.crash(Crash::PowerCut { seed });
            let next = open(&disk).unwrap().identity.boot_epoch;
            let floor = BootEpoch(shown.get() + u64::from(done));
            assert!(next > floor, "stop {stop} seed {seed}: epoch {next} after {floor}");
        }
    }
}

#[test]
fn one_bad_copy_is_healed_and_named() {
    for name in COPIES {
        let disk = formatted();
        disk.flip_bit(&copy(name), Position(20), 1).unwrap();
        let opened = open(&disk).unwrap();
        assert_eq!(opened.healed, Some(copy(name)));
        assert_eq!(open(&disk).unwrap().healed, None);
        disk.remove(&copy(name)).unwrap();
        assert_eq!(open(&disk).unwrap().healed, Some(copy(name)));
    }
}

#[test]
fn two_bad_copies_are_refused_and_left_alone() {
    let disk = formatted();
    for name in COPIES {
        disk.flip_bit(&copy(name), Position(50), 7).unwrap();
    }
    let before = disk.fingerprint();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, IdentityError::BothBad { .. }), "{error}");
    assert!(error.to_string().contains("cp -a BACKUP/identity /data"), "{error}");
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn copies_of_two_directories_are_refused_naming_both() {
    let disk = formatted();
    let other = Identity { cluster: ClusterId(5), ..GOLDEN };
    replace_file(&disk, &copy("b"), &other.encode()).unwrap();
    let text = open(&disk).unwrap_err().to_string();
    assert!(text.contains(&other.cluster.to_string()), "{text}");
    assert!(text.contains(&GOLDEN.cluster.to_string()), "{text}");
}

#[test]
fn a_newer_format_is_refused_by_number_even_beside_a_good_copy() {
    let disk = formatted();
    let mut bytes = GOLDEN.encode();
    bytes[12] = 9;
    let crc = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    replace_file(&disk, &copy("a"), &bytes).unwrap();
    assert!(matches!(open(&disk), Err(IdentityError::UnknownFormat { found: 9, .. })));
}

#[test]
fn a_bare_directory_is_missing_and_a_formatted_one_is_not_formatted_again() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR)).unwrap();
    assert!(matches!(open(&disk), Err(IdentityError::Missing { .. })));
    let disk = formatted();
    let again = Identity::format(&disk, Path::new(DIR), GOLDEN.cluster, NodeId(0), GOLDEN.incarnation);
    assert!(matches!(again, Err(IdentityError::Exists { .. })));
}

#[test]
fn a_full_disk_stops_a_start_and_the_next_one_works() {
    let disk = formatted();
    disk.inject(Fault::next(Operation::Write, Failure::NoSpace));
    assert!(matches!(open(&disk), Err(IdentityError::Io { .. })));
    assert_eq!(open(&disk).unwrap().identity.boot_epoch, BootEpoch(1));
}

#[test]
fn no_bytes_make_the_decoder_fail_badly() {
    let good = GOLDEN.encode();
    for len in 0..good.len() {
        assert!(Identity::decode(&good[..len]).is_err());
    }
    for at in 0..good.len() {
        let mut bytes = good;
        bytes[at] ^= 0x10;
        assert!(Identity::decode(&bytes).is_err(), "byte {at} is not covered");
    }
}

#[test]
fn the_lock_of_a_directory_names_the_next_step() {
    let disk = formatted();
    let held = crate::directory::lock::take(&disk, Path::new(DIR)).unwrap();
    let error = crate::directory::lock::take(&disk, Path::new(DIR)).unwrap_err();
    assert!(error.to_string().starts_with("E0207 /data/lock"), "{error}");
    drop(held);
    crate::directory::lock::take(&disk, Path::new(DIR)).unwrap();
}
