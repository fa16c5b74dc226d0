//! A whole segment file: the walk over it, and the search behind each fault.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidelog_engine::fuzzing::{index_of, walk};
use tidelog_engine::segment::LogTag;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Storage};
use tidelog_fuzz::{CLUSTER, LOGS, mend, write};

fuzz_target!(|input: &[u8]| {
    let tag = LogTag::of(CLUSTER, LOGS[0]);
    let mut mended = input.to_vec();
    for position in mend::frames(input) {
        mended[position + 40..position + 44].copy_from_slice(&tag.0.to_le_bytes());
        mended[position + 44..position + 48].copy_from_slice(&[1, 0, 0, 0]);
    }
    mend::segment(&mut mended);
    for bytes in [input, &mended] {
        let disk = SimDisk::new(1);
        write(&disk, Path::new("/file"), bytes);
        let file = disk.open(Path::new("/file"), OpenMode::Read).expect("it was written");
        let by_headers = walk(file.as_ref(), tag, false).expect("a sound disk");
        let whole = walk(file.as_ref(), tag, true).expect("a sound disk");
        for spans in [&by_headers, &whole] {
            assert!(spans.iter().all(|span| span.end.get() <= bytes.len() as u64));
            assert!(
                spans.is_sorted_by(|one, next| one.end <= next.position),
                "frames do not overlap: {spans:?}"
            );
            assert!(spans.iter().all(|span| span.offsets.is_none_or(|(base, end)| base < end)));
        }
        assert!(whole.len() <= bytes.len() / 48);
        let index = index_of(file.as_ref(), tag).expect("a sound disk");
        assert!(index.is_none_or(|index| index.len() * 24 <= bytes.len()));
    }
});
