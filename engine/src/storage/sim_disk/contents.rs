//! One simulated file: what the disk holds, what the cache holds, and what lies between them.
//!
//! A power cut leaves of every sector either the durable bytes, or the bytes that the cache held
//! after any one of the unsynced writes to it; sectors choose for themselves, so writes are lost,
//! torn and reordered. Lengths are metadata: they reach the disk in order, but independently of the
//! data, so a file may have its new length and zeros where the data should be, or the reverse.

use std::ops::Range;

use super::chance::Chance;
use super::image::{Image, SECTOR};
use crate::locks::Arc;

/// A change of a file's bytes that no sync has covered yet.
#[derive(Clone, Debug)]
enum Unsynced {
    Write { position: u64, bytes: Arc<[u8]> },
    Truncate { len: u64 },
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Nothing of it reached the disk.
    LoseAll,
    /// All of it did.
    KeepAll,
    /// Each piece decides for itself.
    Mixed,
    /// The same in the fewest choices that reach every state: one for each sector that a write changed,
    /// one for each change of length, one for each name. The first alternative is always that it is kept.
    Told,
}

/// What becomes of one unsynced write.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Kept,
    /// Sectors from this one of its own on are lost.
    Head(u64),
    /// Each sector decides for itself.
    Scattered,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    durable: Image,
    cached: Image,
    unsynced: Vec<Unsynced>,
    /// Bytes that the medium refuses to give. Writing them anew heals them.
    spoiled: Vec<Range<u64>>,
}

impl Contents {
    pub(super) const fn cached(&self) -> &Image {
        &self.cached
    }

    pub(super) const fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        self.write_lost(position, bytes);
        self.unsynced.push(Unsynced::Write { position, bytes: Arc::from(bytes) });
        let end = position.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.spoiled.retain(|bad| bad.end <= position || end <= bad.start);
    }

    /// A write that the device reports as done and never does: no sync and no crash brings it to the disk.
    pub(super) fn write_lost(&mut self, position: u64, bytes: &[u8]) {
        self.cached.write(position, bytes);
    }

    /// Bytes of another write land here, as far as the file reaches.
    pub(super) fn write_stray(&mut self, position: u64, bytes: &[u8]) {
        for image in [&mut self.durable, &mut self.cached] {
            let room = usize::try_from(image.len().saturating_sub(position)).unwrap_or(usize::MAX);
            image.write(position, bytes.get(..room).unwrap_or(bytes));
        }
    }

    /// Makes a range unreadable.
    pub(super) fn spoil(&mut self, bytes: Range<u64>) {
        self.spoiled.push(bytes);
    }

    /// Whether a range can be read.
    pub(super) fn is_readable(&self, from: u64, to: u64) -> bool {
        self.spoiled.iter().all(|bad| bad.end <= from || to <= bad.start)
    }

    /// The system takes its memory back: what is not waiting to be written is read from the disk again.
    pub(super) fn drop_cache(&mut self) {
        if self.unsynced.is_empty() {
            self.cached = self.durable.clone();
        }
    }

    pub(super) fn truncate(&mut self, len: u64) {
        self.cached.truncate(len);
        self.unsynced.push(Unsynced::Truncate { len });
    }

    pub(super) fn sync(&mut self) {
        // A cut zeroes everything beyond it, so pages from the lowest cut on are taken whole.
        let mut lowest_cut = None;
        for change in &self.unsynced {
            match change {
                Unsynced::Write { position, bytes } => {
                    self.durable.take_range(&self.cached, *position, bytes.len());
                }
                Unsynced::Truncate { len } => {
                    lowest_cut = Some(lowest_cut.map_or(*len, |lowest: u64| lowest.min(*len)));
                }
            }
        }
        if let Some(lowest) = lowest_cut {
            self.durable.take_tail(&self.cached, lowest);
        }
        self.unsynced.clear();
    }

    /// A sync failed. The kernel has marked the pages clean: later syncs report success and write
    /// nothing of them, in this process or the next.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    pub(super) fn flip(&mut self, position: u64, bit: u8) -> bool {
        self.durable.flip(position, bit) | self.cached.flip(position, bit)
    }

    /// How many of the unsynced changes change the length.
    fn length_changes(&self) -> usize {
        let mut len = self.durable.len();
        let changes_it = |change: &&Unsynced| {
            let before = len;
            len = match change {
                Unsynced::Write { position, bytes } => {
                    len.max(position.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
                }
                Unsynced::Truncate { len } => *len,
            };
            len != before || matches!(change, Unsynced::Truncate { .. })
        };
        self.unsynced.iter().filter(changes_it).count()
    }

    /// The power is cut: what was not synced survives by chance, the cache is gone.
    pub(super) fn cut(&mut self, style: Style, chance: &mut Chance) {
        let mut result = self.durable.clone();
        if style != Style::LoseAll && !self.unsynced.is_empty() {
            let mut running = self.durable.clone();
            let changes = match style {
                Style::Told => self.length_changes(),
                Style::LoseAll | Style::KeepAll | Style::Mixed => self.unsynced.len(),
            };
            let mut lengths = Lengths::choose(style, changes, &running, chance);
            for change in &self.unsynced {
                match change {
                    Unsynced::Write { position, bytes } => {
                        let before = running.len();
                        running.write(*position, bytes);
                        if running.len() > before {
                            lengths.grew(before, running.len(), chance);
                        }
                        let fate = Fate::choose(style, bytes.len(), chance);
                        keep_sectors(&mut result, &running, *position, bytes.len(), fate, chance);
                    }
                    Unsynced::Truncate { len } => {
                        running.truncate(*len);
                        if lengths.cut(*len) {
                            result.truncate(*len);
                        }
                    }
                }
            }
            result.truncate(lengths.len);
        }
        self.cached = result.clone();
        self.durable = result;
        self.unsynced.clear();
    }
}

impl Fate {
    fn choose(style: Style, len: usize, chance: &mut Chance) -> Self {
        match style {
            Style::LoseAll => Self::Lost,
            Style::KeepAll => Self::Kept,
            Style::Told => Self::Scattered,
            Style::Mixed => match chance.up_to(5) {
                0 | 1 => Self::Lost,
                2 | 3 => Self::Kept,
                4 => Self::Head(chance.up_to(u64::try_from(len).unwrap_or(0).wrapping_div(SECTOR))),
                _ => Self::Scattered,
            },
        }
    }
}

/// Copies to `result` those sectors of a write that reached the disk, as the cache held them.
fn keep_sectors(
    result: &mut Image,
    running: &Image,
    position: u64,
    len: usize,
    fate: Fate,
    chance: &mut Chance,
) {
    let Some(last) = u64::try_from(len).ok().and_then(|len| len.checked_sub(1)) else { return };
    let first = position.wrapping_div(SECTOR);
    let last = position.saturating_add(last).wrapping_div(SECTOR);
    for sector in first..=last {
        if result.holds_same(running, sector) {
            continue;
        }
        let kept = match fate {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Head(count) => sector.saturating_sub(first) < count,
            Fate::Scattered => chance.one_in(2),
        };
        if kept {
            result.take_sector(running, sector);
        }
    }
}

/// How many of the unsynced changes of length reached the disk: the first so many.
struct Lengths {
    left: u64,
    ragged: bool,
    len: u64,
}

impl Lengths {
    fn choose(style: Style, changes: usize, durable: &Image, chance: &mut Chance) -> Self {
        let changes = u64::try_from(changes).unwrap_or(u64::MAX);
        if style == Style::Told {
            let left = changes.saturating_sub(chance.up_to(changes));
            return Self { left, ragged: false, len: durable.len() };
        }
        let mixed = style == Style::Mixed;
        // Half of the time all lengths are there: the harshest case for data that is not.
        let left = if mixed && chance.one_in(2) { chance.up_to(changes) } else { changes };
        Self { left, ragged: mixed && chance.one_in(4), len: durable.len() }
    }

    fn grew(&mut self, from: u64, to: u64, chance: &mut Chance) {
        if self.left == 0 {
            return;
        }
        self.left = self.left.saturating_sub(1);
        // The last length to reach the disk may be one from the middle of a write.
        let part = if self.left == 0 && self.ragged { chance.up_to(to.saturating_sub(from)) } else { 0 };
        self.len = to.saturating_sub(part);
    }

    const fn cut(&mut self, len: u64) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.len = len;
        true
    }
}
