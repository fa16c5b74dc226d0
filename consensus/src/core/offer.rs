//! What a raft snapshot carries: not data, but the hash and length of a manifest.
//!
//! | at | size | field            | meaning                                             |
//! |---:|-----:|------------------|-----------------------------------------------------|
//! |  0 |    2 | `format`         | 1; every other value is refused                     |
//! |  2 |    6 | reserved         | zero, enforced                                      |
//! |  8 |    8 | `digest`         | xxh3-64 of the manifest's bytes, and its name       |
//! | 16 |    8 | `manifest_bytes` | length of the manifest, checked before it is fetched |
//!
//! Little-endian. Index, term and members stand in raft's own snapshot metadata.

use bytes::Bytes;

/// Length of the encoding.
pub(super) const OFFER_BYTES: usize = 24;
const FORMAT: u64 = 1;

/// Hash and length of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfferData {
    pub(super) digest: u64,
    pub(super) manifest_bytes: u64,
}

impl OfferData {
    pub(super) fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(OFFER_BYTES);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        bytes.extend_from_slice(&self.manifest_bytes.to_le_bytes());
        bytes.into()
    }

    /// `None` unless these are the bytes of a format that is known.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<8>()?;
        let (manifest_bytes, rest) = rest.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*head) == FORMAT && rest.is_empty()).then(|| Self {
            digest: u64::from_le_bytes(*digest),
            manifest_bytes: u64::from_le_bytes(*manifest_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT_1: OfferData = OfferData { digest: 0x0102_0304_0506_0708, manifest_bytes: 4096 };

    #[test]
    fn format_1_offer_bytes_never_change() {
        let bytes = include_bytes!("../../testdata/format-1/snapshot/offer.bin");
        assert_eq!(&FORMAT_1.encode()[..], bytes);
        assert_eq!(OfferData::decode(bytes), Some(FORMAT_1));
    }

    #[test]
    fn other_formats_and_lengths_are_refused() {
        let good = FORMAT_1.encode();
        for length in 0..good.len() {
            assert_eq!(OfferData::decode(&good[..length]), None);
        }
        for byte in 0..8 {
            let mut bad = good.to_vec();
            bad[byte] ^= 0x80;
            assert_eq!(OfferData::decode(&bad), None, "byte {byte} is checked");
        }
        assert_eq!(OfferData::decode(&[good.as_ref(), &[0]].concat()), None);
    }
}
