//! Zigzag varints: small numbers of either sign in few bytes, low seven bits first.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Most bytes of a varint of 64 bits.
const BYTES_MAX: u32 = 10;

/// Takes one off `bytes`. `None` if it is cut short or longer than 64 bits.
pub(super) fn take(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0_u64;
    for number in 0..BYTES_MAX {
        if bytes.is_empty() {
            return None;
        }
        let byte = bytes.get_u8();
        let low = u64::from(byte & 0x7f);
        let shift = 7 * number;
        if (low << shift) >> shift != low {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            let magnitude = (value >> 1).cast_signed();
            return Some(if value & 1 == 0 { magnitude } else { !magnitude });
        }
    }
    None
}

/// Appends one.
pub(super) fn put(value: i64, out: &mut BytesMut) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.put_u8(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.put_u8(low);
}

/// How many bytes [`put`] appends.
pub(super) const fn len(value: i64) -> usize {
    let mut rest = zigzag(value) >> 7;
    let mut bytes = 1;
    while rest > 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_numbers_have_known_bytes() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (-64, &[127]),
            (64, &[0x80, 1]),
            (i64::MIN, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut out = BytesMut::new();
            put(value, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_no_number() {
        assert_eq!(take(&mut Bytes::from_static(&[0x80])), None);
        assert_eq!(take(&mut Bytes::from_static(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2])), None);
        assert_eq!(take(&mut Bytes::from_static(&[0x80; 11])), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back(value in any::<i64>()) {
            let mut out = BytesMut::new();
            put(value, &mut out);
            prop_assert_eq!(out.len(), len(value));
            prop_assert_eq!(take(&mut out.freeze()), Some(value));
        }
    }
}
