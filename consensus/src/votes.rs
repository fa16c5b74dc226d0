//! The durable votes of a node: term and vote of each group, apart from the raft log.
//!
//! The raft log holds them too. They are kept a second time so that the loss of the log's end is
//! *seen*: a vote is recorded only after the raft log that knows it was synced, so a votes file ahead
//! of the raft log is evidence that the log lost what it had promised.
//!
//! 1. A group has a pair of slots, each in a sector of its own. A change is written over the older
//!    slot and synced, so a torn write costs nothing: the newer slot still stands.
//! 2. Opening takes the newer valid slot of each pair, writes it again and syncs the file before anybody is
//!    told: after a failed sync the cache holds what no sync would write any more.
//! 3. A pair of which neither slot verifies cannot come from a crash. It is reported, and the raft
//!    log's own hard state is what remains of that group's promise.
//!
//! Not here: the judgement that a replica has lost its memory (`crate::core`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_engine::storage::{File, OpenMode, Position, Storage, parent};
use tidelog_wire::ids::{GroupId, ReplicaId, Term};

#[cfg(test)]
mod tests;

/// Name of the file in the data directory.
pub const VOTES_FILE: &str = "votes";
/// Most groups that the file has room for.
pub const GROUPS_MAX: u64 = 65_536;

const SLOT_BYTES: usize = 48;
const SECTOR: u64 = 512;
/// The rest of a slot's sector.
const BEHIND_SLOT: [u8; 512 - SLOT_BYTES] = [0; 512 - SLOT_BYTES];
const PAIR: u64 = 2 * SECTOR;
/// The file grows by room for this many groups.
const GROW_PAIRS: u64 = 16;
const FORMAT: u16 = 1;

/// Whom a replica voted for, and in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// The group.
    pub group: GroupId,
    /// Whose vote it is. What another replica of the group has voted says nothing of this one.
    pub replica: ReplicaId,
    /// The term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
}

/// The votes cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum VotesError {
    /// The disk failed.
    #[error(
        "E1110 {path}: cannot {action}: {source}; what this node has voted is now unknown: check the disk, \
         then restart the node"
    )]
    Io {
        /// The votes file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// No room.
    #[error("E1111 {path}: no room for group {group}: at most {GROUPS_MAX} groups can live on one node")]
    TooManyGroups {
        /// The votes file.
        path: PathBuf,
        /// The group.
        group: GroupId,
    },
}

/// A place in the votes file that does not verify, in a way that no crash leaves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "E1112 {path}: the slots at byte {position} do not verify: a vote was lost; the raft log's hard state is \
     used instead: check the disk"
)]
pub struct VoteDamage {
    /// The votes file.
    pub path: PathBuf,
    /// Where the pair of slots begins.
    pub position: Position,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VotesFound {
    /// The vote of each group in the file.
    pub votes: BTreeMap<GroupId, Vote>,
    /// Pairs that do not verify.
    pub damage: Vec<VoteDamage>,
}

/// The votes file of a node, open for changes.
#[derive(Debug)]
pub struct Votes {
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where each group's pair is, and its newest slot.
    pairs: BTreeMap<GroupId, Pair>,
    next_pair: u64,
    /// A write or sync failed: the file must not be touched again.
    fenced: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    number: u64,
    newest: Slot,
    /// Whether the newest slot is the second of the pair.
    second: bool,
}

/// One slot: 48 bytes at the start of a 512-byte sector, little-endian. The rest of the sector is zero.
///
/// | at | size | field      | meaning                                                     |
/// |---:|-----:|------------|-------------------------------------------------------------|
/// |  0 |    4 | `crc32c`   | of the slot's position in the file (8 bytes) and bytes 4..48 |
/// |  4 |    2 | `format`   | 1; a reader refuses every value it does not know            |
/// |  6 |    2 | reserved   | zero, enforced                                              |
/// |  8 |    8 | `group`    | the group                                                   |
/// | 16 |    8 | `sequence` | from 1, and after 2^64 - 1 comes 0; of a pair, the later one counts |
/// | 24 |    8 | `term`     | the term                                                    |
/// | 32 |    8 | `vote`     | replica id voted for, 0 for none                            |
/// | 40 |    8 | `replica`  | replica id of the voter, not 0                              |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    vote: Vote,
}

impl Slot {
    fn encode(&self, position: Position) -> [u8; SLOT_BYTES] {
        let Vote { group, replica, term, vote } = self.vote;
        let voted = vote.map_or(0, ReplicaId::get);
        let numbers = [group.get(), self.sequence, term.get(), voted, replica.get()];
        let mut bytes = [0; SLOT_BYTES];
        let head = [0; 4].into_iter().chain(FORMAT.to_le_bytes()).chain([0; 2]);
        let body = numbers.into_iter().flat_map(u64::to_le_bytes);
        for (at, value) in bytes.iter_mut().zip(head.chain(body)) {
            *at = value;
        }
        let crc = checksum(position, &bytes);
        for (at, value) in bytes.iter_mut().zip(crc.to_le_bytes()) {
            *at = value;
        }
        bytes
    }

    fn decode(position: Position, sector: &[u8]) -> Option<Self> {
        let (bytes, rest) = sector.split_first_chunk::<SLOT_BYTES>()?;
        let (crc, fields) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*crc) != checksum(position, bytes) || rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        let (format, fields) = fields.split_first_chunk::<2>()?;
        let (reserved, fields) = fields.split_first_chunk::<2>()?;
        let (group, fields) = fields.split_first_chunk::<8>()?;
        let (sequence, fields) = fields.split_first_chunk::<8>()?;
        let (term, fields) = fields.split_first_chunk::<8>()?;
        let (vote, fields) = fields.split_first_chunk::<8>()?;
        let replica = u64::from_le_bytes(*fields.first_chunk::<8>()?);
        if u16::from_le_bytes(*format) != FORMAT || *reserved != [0; 2] || replica == 0 {
            return None;
        }
        let vote = u64::from_le_bytes(*vote);
        Some(Self {
            sequence: u64::from_le_bytes(*sequence),
            vote: Vote {
                group: GroupId(u64::from_le_bytes(*group)),
                replica: ReplicaId(replica),
                term: Term(u64::from_le_bytes(*term)),
                vote: (vote != 0).then_some(ReplicaId(vote)),
            },
        })
    }

    /// Whether this slot of a pair was written after the other. Numbers go round, as the serial numbers of
    /// RFC 1982 do: whatever a disk holds, what is written next counts.
    fn follows(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence).wrapping_sub(1) < u64::MAX / 2
    }
}

fn checksum(position: Position, slot: &[u8; SLOT_BYTES]) -> u32 {
    let crc = crc32c::crc32c(&position.get().to_le_bytes());
    crc32c::crc32c_append(crc, slot.get(4..).unwrap_or_default())
}

/// What a pair of sectors says.
enum PairFound {
    Free,
    Vote { newest: Slot, second: bool },
    Damaged,
}

fn read_pair(position: Position, bytes: &[u8]) -> PairFound {
    let (first, second) =
        bytes.split_at_checked(usize::try_from(SECTOR).unwrap_or(512)).unwrap_or((bytes, &[]));
    let slots = (Slot::decode(position, first), Slot::decode(second_slot(position), second));
    let is_zero = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    match slots {
        (Some(one), Some(two)) if one.vote.group != two.vote.group => PairFound::Damaged,
        (Some(one), Some(two)) if two.follows(&one) => PairFound::Vote { newest: two, second: true },
        (Some(one), _) => PairFound::Vote { newest: one, second: false },
        (None, Some(two)) => PairFound::Vote { newest: two, second: true },
        // The first write of a pair goes to its first slot; torn, it was never promised.
        (None, None) if is_zero(second) => PairFound::Free,
        (None, None) => PairFound::Damaged,
    }
}

fn second_slot(pair: Position) -> Position {
    Position(pair.get().saturating_add(SECTOR))
}

fn position_of(pair: u64) -> Position {
    Position(pair.saturating_mul(PAIR))
}

impl Votes {
    /// Opens the votes file in the data directory `dir`, making it if it is not there.
    ///
    /// On return, what it says is durable.
    ///
    /// # Errors
    /// [`VotesError::Io`] if the disk failed, or the file is longer than any votes file.
    pub fn open(storage: &dyn Storage, dir: &Path) -> Result<(Self, VotesFound), VotesError> {
        let path = dir.join(VOTES_FILE);
        let (file, bytes) = open_file(storage, &path).map_err(|source| VotesError::Io {
            path: path.clone(),
            action: "open the votes file",
            source,
        })?;
        let mut found = VotesFound::default();
        let mut votes = Self { path, file, pairs: BTreeMap::new(), next_pair: 0, fenced: false };
        let pair_bytes = usize::try_from(PAIR).unwrap_or(1024);
        for (number, bytes) in (0..).zip(bytes.chunks(pair_bytes)) {
            match read_pair(position_of(number), bytes) {
                PairFound::Free => continue,
                PairFound::Vote { newest, second } => {
                    votes.found(&mut found, Pair { number, newest, second });
                }
                PairFound::Damaged => {
                    found.damage.push(VoteDamage { path: votes.path.clone(), position: position_of(number) });
                }
            }
            votes.next_pair = number.saturating_add(1);
        }
        votes.write_again()?;
        Ok((votes, found))
    }

    /// Makes what was read durable. The kernel may have given up writing it and call it clean.
    fn write_again(&self) -> Result<(), VotesError> {
        for pair in self.pairs.values() {
            self.write(pair)?;
        }
        self.file.sync().map_err(self.io("sync the votes file"))
    }

    /// Writes the newest slot of a pair, with all of its sector: whatever lies behind a slot would make it invalid.
    fn write(&self, pair: &Pair) -> Result<(), VotesError> {
        let first = position_of(pair.number);
        let position = if pair.second { second_slot(first) } else { first };
        let slot = pair.newest.encode(position);
        self.file.write_at(position, &[&slot, &BEHIND_SLOT]).map_err(self.io("write a vote"))
    }

    fn found(&mut self, found: &mut VotesFound, pair: Pair) {
        let vote = pair.newest.vote;
        let newer = found.votes.get(&vote.group).is_none_or(|known| (known.term) < vote.term);
        if newer {
            found.votes.insert(vote.group, vote);
            self.pairs.insert(vote.group, pair);
        }
    }

    /// Records `votes` with one sync; of several for one group the last. Those that change nothing are
    /// skipped.
    ///
    /// Call it only after the raft log that knows them was synced.
    ///
    /// # Errors
    /// [`VotesError`]: none of them may be acted upon. After [`VotesError::Io`] the file takes no
    /// further votes: stop the node.
    pub fn record(&mut self, votes: &[Vote]) -> Result<(), VotesError> {
        if self.fenced {
            return Err(self.io("write to a fenced votes file")(ErrorKind::Other.into()));
        }
        // Never both slots of a pair before one sync: a crash could tear both.
        let last: BTreeMap<GroupId, Vote> = votes.iter().map(|vote| (vote.group, *vote)).collect();
        let mut changed = false;
        for vote in last.into_values() {
            changed |= self.put(vote)?;
        }
        if changed {
            self.fenced = true;
            self.file.sync().map_err(self.io("sync the votes file"))?;
            self.fenced = false;
        }
        Ok(())
    }

    fn put(&mut self, vote: Vote) -> Result<bool, VotesError> {
        let pair = match self.pairs.get(&vote.group) {
            Some(pair) if pair.newest.vote == vote => return Ok(false),
            Some(pair) => Pair {
                newest: Slot { sequence: pair.newest.sequence.wrapping_add(1), vote },
                second: !pair.second,
                ..*pair
            },
            None => {
                Pair { number: self.new_pair(vote.group)?, newest: Slot { sequence: 1, vote }, second: false }
            }
        };
        self.fenced = true;
        self.write(&pair)?;
        self.fenced = false;
        self.pairs.insert(vote.group, pair);
        Ok(true)
    }

    /// A free pair, making room for it if there is none.
    fn new_pair(&mut self, group: GroupId) -> Result<u64, VotesError> {
        let number = self.next_pair;
        if number >= GROUPS_MAX {
            return Err(VotesError::TooManyGroups { path: self.path.clone(), group });
        }
        let end = position_of(number.saturating_add(1));
        if self.file.len().map_err(self.io("ask the length of the votes file"))? < end.get() {
            let grow = GROW_PAIRS.saturating_mul(PAIR);
            self.file.prefill(position_of(number), grow).map_err(self.io("grow the votes file"))?;
        }
        self.next_pair = number.saturating_add(1);
        Ok(number)
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> VotesError {
        let path = self.path.clone();
        move |source| VotesError::Io { path, action, source }
    }
}

fn open_file(storage: &dyn Storage, path: &Path) -> io::Result<(Arc<dyn File>, Vec<u8>)> {
    let file = match storage.open(path, OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => storage.open(path, OpenMode::CreateNew)?,
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > GROUPS_MAX.saturating_add(GROW_PAIRS).saturating_mul(PAIR) {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?];
    file.read_at(Position::ZERO, &mut bytes)?;
    // What a file lacks is zeros once it has grown, and is taken for those before.
    bytes.resize(bytes.len().next_multiple_of(usize::try_from(PAIR).unwrap_or(1024)), 0);
    storage.sync_dir(parent(path))?;
    Ok((file, bytes))
}
