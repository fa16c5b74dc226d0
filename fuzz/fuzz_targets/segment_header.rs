//! A segment header, as it is and with its checksum put right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog_engine::segment::header::SegmentHeader;
use tidelog_engine::segment::parse_file_name;
use tidelog_fuzz::mend;

fuzz_target!(|input: &[u8]| {
    let mut mended = input.to_vec();
    mend::header(&mut mended);
    for bytes in [input, &mended] {
        if let Ok(header) = SegmentHeader::decode(bytes) {
            assert_eq!(header.encode(), bytes[..80], "there is one way to write it");
        }
    }
    if let Ok(name) = std::str::from_utf8(input)
        && let Some(base) = parse_file_name(name)
    {
        assert_eq!(tidelog_engine::segment::file_name(base), name);
    }
});
