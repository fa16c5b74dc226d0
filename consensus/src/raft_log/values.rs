//! The small values that both raft logs keep beside the entries, and the checks that both make.
//!
//! raft-engine and the simulated log each wrap these bytes in a checksum of their own, so there is
//! none here.

use raft::eraftpb::{Entry, HardState};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

use super::{GroupLog, InstallMark, RaftLogError, Span, TermRun};

/// Length of an encoded [`HardState`] and of an encoded [`InstallMark`].
pub(super) const VALUE_BYTES: usize = 25;
const FORMAT: u8 = 1;

/// Encodes a hard state.
///
/// | at | size | field    | meaning                               |
/// |---:|-----:|----------|---------------------------------------|
/// |  0 |    1 | `format` | 1; every other value is refused       |
/// |  1 |    8 | `term`   | little-endian, as the rest            |
/// |  9 |    8 | `vote`   | replica id, 0 for none                |
/// | 17 |    8 | `commit` | index known committed when written    |
pub(super) fn encode_hard_state(state: &HardState) -> [u8; VALUE_BYTES] {
    three_numbers(state.term, state.vote, state.commit)
}

/// Encodes an install mark.
///
/// | at | size | field    | meaning                                  |
/// |---:|-----:|----------|------------------------------------------|
/// |  0 |    1 | `format` | 1; every other value is refused          |
/// |  1 |    8 | `index`  | last entry in the snapshot               |
/// |  9 |    8 | `term`   | of that entry                            |
/// | 17 |    8 | `digest` | of the manifest; names its staging place |
pub(super) fn encode_install_mark(mark: &InstallMark) -> [u8; VALUE_BYTES] {
    three_numbers(mark.index.get(), mark.term.get(), mark.digest)
}

/// Encodes the first index kept: format (1 byte, always 1), index (8 bytes, little-endian).
pub(super) fn encode_index(index: RaftIndex) -> [u8; 9] {
    one_number(index.get())
}

/// Encodes whose log it is: format (1 byte, always 1), replica id (8 bytes, little-endian, not 0).
pub(super) fn encode_replica(replica: ReplicaId) -> [u8; 9] {
    one_number(replica.get())
}

pub(super) fn decode_index(bytes: &[u8]) -> Option<RaftIndex> {
    number(bytes).map(RaftIndex)
}

pub(super) fn decode_replica(bytes: &[u8]) -> Option<ReplicaId> {
    number(bytes).filter(|replica| *replica != 0).map(ReplicaId)
}

fn one_number(number: u64) -> [u8; 9] {
    let mut bytes = [0; 9];
    for (slot, value) in bytes.iter_mut().zip(std::iter::once(FORMAT).chain(number.to_le_bytes())) {
        *slot = value;
    }
    bytes
}

fn number(bytes: &[u8]) -> Option<u64> {
    let (format, number) = bytes.split_first()?;
    let number: &[u8; 8] = number.try_into().ok()?;
    (*format == FORMAT).then_some(u64::from_le_bytes(*number))
}

pub(super) fn decode_hard_state(bytes: &[u8]) -> Option<HardState> {
    let (term, vote, commit) = split(bytes)?;
    Some(HardState { term, vote, commit, ..HardState::default() })
}

pub(super) fn decode_install_mark(bytes: &[u8]) -> Option<InstallMark> {
    let (index, term, digest) = split(bytes)?;
    Some(InstallMark { index: RaftIndex(index), term: Term(term), digest })
}

fn three_numbers(a: u64, b: u64, c: u64) -> [u8; VALUE_BYTES] {
    let mut bytes = [0; VALUE_BYTES];
    let values = a.to_le_bytes().into_iter().chain(b.to_le_bytes()).chain(c.to_le_bytes());
    for (slot, value) in bytes.iter_mut().zip(std::iter::once(FORMAT).chain(values)) {
        *slot = value;
    }
    bytes
}

fn split(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let bytes: &[u8; VALUE_BYTES] = bytes.try_into().ok()?;
    let (format, rest) = bytes.split_first()?;
    if *format != FORMAT {
        return None;
    }
    let (a, rest) = rest.split_first_chunk()?;
    let (b, rest) = rest.split_first_chunk()?;
    let (c, _) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*a), u64::from_le_bytes(*b), u64::from_le_bytes(*c)))
}

/// Checks that `entries` continue or overwrite a log that holds `held`, and returns the span after.
///
/// # Errors
/// [`RaftLogError::Gap`] if they leave a hole, are not consecutive, or reach below the first entry.
pub(super) fn span_after(
    group: GroupId,
    held: Option<Span>,
    entries: &[Entry],
) -> Result<Option<Span>, RaftLogError> {
    let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(held) };
    let gap = |at: u64| RaftLogError::Gap {
        group,
        first: RaftIndex(at),
        held: held.map_or_else(
            || "no entries".to_owned(),
            |span| format!("entries {}..={}", span.first, span.last),
        ),
    };
    let mut last = first;
    for (entry, expected) in entries.iter().zip(first..) {
        if entry.index != expected {
            return Err(gap(entry.index));
        }
        last = entry.index;
    }
    let oldest = match held {
        None => first,
        Some(span) if first < span.first.get() || first > span.last.get().saturating_add(1) => {
            return Err(gap(first));
        }
        Some(span) => span.first.get(),
    };
    Ok(Some(Span { first: RaftIndex(oldest), last: RaftIndex(last) }))
}

/// What is wrong with an entry that follows others.
pub(super) struct BadEntry {
    pub(super) expected: String,
    pub(super) found: String,
}

/// Adds `entry` to what a load has seen: it must have the next index and a term that does not fall.
pub(super) fn note_entry(log: &mut GroupLog, index: RaftIndex, entry: &Entry) -> Result<(), BadEntry> {
    if entry.index != index.get() {
        return Err(BadEntry { expected: format!("index {index}"), found: format!("index {}", entry.index) });
    }
    let before = log.terms.last().map_or(0, |run| run.term.get());
    if entry.term < before {
        return Err(BadEntry {
            expected: format!("a term not below {before}"),
            found: format!("term {}", entry.term),
        });
    }
    if entry.term > before || log.terms.is_empty() {
        log.terms.push(TermRun { first: index, term: Term(entry.term) });
    }
    Ok(())
}
