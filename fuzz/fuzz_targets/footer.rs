//! Index and footer at the end of a file, as they are and with the checksum put right; then searches in the index.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog_engine::fuzzing::search;
use tidelog_engine::segment::LogTag;
use tidelog_engine::segment::footer::{FOOTER_BYTES, Footer};
use tidelog_fuzz::mend;
use tidelog_wire::ids::{Offset, TimestampMs};

fuzz_target!(|input: (u32, u64, i64, &[u8])| {
    let (tag, offset, time, bytes) = input;
    let tag = LogTag(tag);
    // The file as the footer sees it: frames of which nothing but their room matters, then these bytes.
    let mut mended = bytes.to_vec();
    if let Some(begin) = mended.len().checked_sub(FOOTER_BYTES) {
        mended[begin..begin + 8].copy_from_slice(b"TIDEFOOT");
        mended[begin + 8..begin + 12].copy_from_slice(&[1, 0, 0, 0]);
        mended[begin + 56..begin + 60].copy_from_slice(&tag.0.to_le_bytes());
    }
    mend::footer(&mut mended);
    for bytes in [bytes, &mended] {
        let Some(begin) = bytes.len().checked_sub(FOOTER_BYTES) else { continue };
        let Ok(footer) = Footer::decode(&bytes[begin..], bytes.len() as u64, tag) else { continue };
        let index = usize::try_from(footer.index_position.get()).expect("it lies in the file");
        assert!(footer.index_bytes() <= bytes.len() as u64);
        let Ok(entries) = footer.decode_index(&bytes[index..]) else { continue };
        assert_eq!(footer.encode(&entries), &bytes[index..], "there is one way to write it");
        let (by_offset, by_time) = search(&entries, Offset(offset), TimestampMs(time));
        if let Some(entry) = by_offset {
            assert!(
                entries.contains(&entry)
                    && entries.is_sorted_by_key(|entry| entry.offset) <= (entry.offset <= Offset(offset))
            );
        }
        assert!(by_time.is_none_or(|entry| entries.contains(&entry)));
    }
});
