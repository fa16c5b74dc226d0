//! What a disk may do to a file, for property tests.

use proptest::prelude::*;

/// One thing that a disk may do to a file.
#[derive(Clone, Debug)]
pub(crate) enum Harm {
    Flip(u64, u8),
    Zero(u64, u64),
    Cut(u64),
    Grow(Vec<u8>),
    Move { from: u64, to: u64, len: u64 },
}

/// Any of them.
pub(crate) fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (0..5_000_u64, 0..8_u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        (0..5_000_u64, 1..600_u64).prop_map(|(at, len)| Harm::Zero(at, len)),
        (0..5_000_u64).prop_map(Harm::Cut),
        proptest::collection::vec(any::<u8>(), 1..200).prop_map(Harm::Grow),
        (0..4_000_u64, 0..4_000_u64, 1..900_u64).prop_map(|(from, to, len)| Harm::Move { from, to, len }),
    ]
}

/// Does it to the bytes of a file.
pub(crate) fn inflict(bytes: &mut Vec<u8>, harm: &Harm) {
    let len = bytes.len();
    let within = |at: u64| usize::try_from(at).unwrap().min(len);
    match harm {
        Harm::Flip(at, bit) => {
            if let Some(byte) = bytes.get_mut(within(*at)) {
                *byte ^= 1 << bit;
            }
        }
        Harm::Zero(at, count) => bytes[within(*at)..within(at + count)].fill(0),
        Harm::Cut(at) => bytes.truncate(within(*at)),
        Harm::Grow(more) => bytes.extend(more),
        Harm::Move { from, to, len } => {
            let moved = bytes[within(*from)..within(from + len)].to_vec();
            let to = within(*to);
            let room = moved.len().min(bytes.len() - to);
            bytes[to..to + room].copy_from_slice(&moved[..room]);
        }
    }
}
