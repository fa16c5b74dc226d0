//! Which partition a key belongs to: murmur2, as Kafka's default partitioner computes it.
//!
//! Clients in other languages route by the same function, so a key lands in the same partition whoever produces it. The
//! function is fixed for ever: changing it would scatter the keys of every channel.

use crate::ids::Partition;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The hash of `bytes`, 32 bits.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    // The length enters modulo 2^32, as in the original.
    let [b0, b1, b2, b3, ..] = bytes.len().to_le_bytes();
    let mut hash = SEED ^ u32::from_le_bytes([b0, b1, b2, b3]);
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (byte, shift) in rest.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` among `partitions`, of which there must be at least one.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> Partition {
    Partition((murmur2(key) & 0x7fff_ffff) % partitions.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors by which the clients in other languages check themselves.
    #[test]
    fn hashes_are_those_of_kafka() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn negative_hashes_lose_their_sign_bit_before_the_division() {
        assert_eq!(
            partition_of(b"foobar", 10),
            Partition(((-790_332_482_i32 & i32::MAX) % 10).cast_unsigned())
        );
        assert_eq!(partition_of(b"anything", 1), Partition(0));
    }
}
