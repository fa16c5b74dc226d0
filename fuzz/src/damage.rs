//! Damage to a data directory: what a disk does, and what only somebody who knows the checksums can do.

use std::path::{Path, PathBuf};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::Storage;

use crate::{LOGS, data, mend, read, write};

/// Most that a file is grown to.
const FILE_BYTES_MAX: usize = 2 << 20;

/// One act of damage. `file` counts through the files of logs and checkpoints.
#[derive(Arbitrary, Clone, Debug)]
pub enum Damage {
    /// A bit turns over.
    Flip { file: u8, at: u32, bit: u8 },
    /// Sectors read as zero.
    Zero { file: u8, sector: u16, count: u8 },
    /// The end is gone.
    Cut { file: u8, to: u32 },
    /// Something stands behind the end.
    Grow { file: u8, bytes: u16, with: u8 },
    /// Two sectors changed places.
    Swap { file: u8, one: u16, other: u16 },
    /// A sector of one file stands in another: a misdirected write.
    Splice { from: u8, from_sector: u16, to: u8, to_sector: u16 },
    /// A file stands under another name too.
    Copy { file: u8, name: Name },
    /// A file stands under another name.
    Rename { file: u8, name: Name },
    /// A file is gone.
    Remove { file: u8 },
    /// Bytes are written over.
    Write { file: u8, at: u32, bytes: Vec<u8> },
    /// A number in a frame header becomes another one, and the checksum is right.
    ForgeFrame { file: u8, frame: u8, field: u8, value: u64 },
    /// The same in a segment header.
    ForgeHeader { file: u8, field: u8, value: u64 },
    /// The same in a footer.
    ForgeFooter { file: u8, field: u8, value: u64 },
    /// All checksums of a file are put right.
    Mend { file: u8 },
}

/// A name that a file may get.
#[derive(Arbitrary, Clone, Debug)]
pub enum Name {
    /// That of a segment.
    Segment { log: bool, base: u8 },
    /// That of none, in a log's directory.
    Other { log: bool, number: u8 },
}

impl Name {
    fn path(&self) -> PathBuf {
        let (log, name) = match self {
            Self::Segment { log, base } => (log, format!("{base:020}.seg")),
            Self::Other { log, number } => (log, format!("{number}.seg.tmp")),
        };
        let log = LOGS[usize::from(*log)];
        data().join(format!("logs/{}/{}/{name}", log.generation, log.partition))
    }
}

/// Field offsets of a frame header, with their sizes.
const FRAME_FIELDS: [(usize, usize); 9] =
    [(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 2), (46, 2)];
/// Field offsets of a segment header.
const HEADER_FIELDS: [(usize, usize); 9] =
    [(8, 2), (10, 2), (12, 4), (16, 8), (32, 8), (40, 8), (48, 8), (56, 8), (64, 8)];
/// Field offsets of a footer.
const FOOTER_FIELDS: [(usize, usize); 9] =
    [(8, 2), (10, 2), (12, 4), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (56, 4)];

impl Damage {
    /// Whether checksums were put right, so that what is read may be what nobody wrote.
    pub fn forges(&self) -> bool {
        matches!(
            self,
            Self::ForgeFrame { .. } | Self::ForgeHeader { .. } | Self::ForgeFooter { .. } | Self::Mend { .. }
        )
    }

    /// Does it.
    pub fn strike(&self, disk: &SimDisk) {
        let files: Vec<PathBuf> = disk.files().into_iter().filter(|path| is_target(path)).collect();
        let pick = |number: u8| files.get(usize::from(number) % files.len().max(1));
        match self {
            Self::Copy { file, name } => {
                if let Some(bytes) = pick(*file).and_then(|path| read(disk, path)) {
                    write(disk, &name.path(), &bytes);
                }
            }
            Self::Rename { file, name } => {
                if let Some(path) = pick(*file)
                    && disk.create_dir(name.path().parent().unwrap_or(data())).is_ok()
                {
                    disk.rename(path, &name.path()).expect("a file of the list");
                }
            }
            Self::Remove { file } => {
                if let Some(path) = pick(*file) {
                    disk.remove(path).expect("a file of the list");
                }
            }
            Self::Splice { from, from_sector, to, to_sector } => {
                let source = pick(*from).and_then(|path| read(disk, path)).unwrap_or_default();
                let sector =
                    source.chunks(512).nth(usize::from(*from_sector) % source.len().div_ceil(512).max(1));
                let sector = sector.unwrap_or_default().to_vec();
                change(disk, pick(*to), |bytes| {
                    let at = sector_at(bytes, *to_sector);
                    put(bytes, at, &sector);
                });
            }
            Self::Flip { file, .. }
            | Self::Zero { file, .. }
            | Self::Cut { file, .. }
            | Self::Grow { file, .. }
            | Self::Swap { file, .. }
            | Self::Write { file, .. }
            | Self::ForgeFrame { file, .. }
            | Self::ForgeHeader { file, .. }
            | Self::ForgeFooter { file, .. }
            | Self::Mend { file } => {
                let path = pick(*file);
                let checkpoint = path.is_some_and(|path| path.starts_with(data().join("checkpoints")));
                change(disk, path, |bytes| self.alter(bytes, checkpoint));
            }
        }
    }

    /// Damage to the bytes of one file.
    fn alter(&self, bytes: &mut Vec<u8>, checkpoint: bool) {
        match self {
            Self::Flip { at, bit, .. } => {
                let at = within(bytes, *at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Zero { sector, count, .. } => {
                let at = sector_at(bytes, *sector);
                let zeros = vec![0; 512 * usize::from(*count % 4 + 1)];
                put(bytes, at, &zeros);
            }
            Self::Cut { to, .. } => bytes.truncate(within(bytes, *to)),
            Self::Grow { bytes: more, with, .. } => {
                bytes.resize((bytes.len() + usize::from(*more)).min(FILE_BYTES_MAX), *with);
            }
            Self::Swap { one, other, .. } => {
                let (one, other) = (sector_at(bytes, *one), sector_at(bytes, *other));
                let first = bytes.get(one..one + 512).map(<[u8]>::to_vec);
                let second = bytes.get(other..other + 512).map(<[u8]>::to_vec);
                if let (Some(first), Some(second)) = (first, second) {
                    put(bytes, one, &second);
                    put(bytes, other, &first);
                }
            }
            Self::Write { at, bytes: new, .. } => {
                let at = within(bytes, *at);
                put(bytes, at, new);
            }
            Self::ForgeFrame { frame, field, value, .. } => {
                let all = mend::frames(bytes);
                if let Some(position) = all.get(usize::from(*frame) % all.len().max(1)) {
                    field_of(bytes, *position, &FRAME_FIELDS, *field, *value);
                    mend::frame(bytes, *position);
                }
            }
            Self::ForgeHeader { field, value, .. } => {
                field_of(bytes, 0, &HEADER_FIELDS, *field, *value);
                mend::header(bytes);
            }
            Self::ForgeFooter { field, value, .. } => {
                if let Some(begin) = bytes.len().checked_sub(64) {
                    field_of(bytes, begin, &FOOTER_FIELDS, *field, *value);
                    mend::footer(bytes);
                }
            }
            Self::Mend { .. } if checkpoint => mend::checkpoint(bytes),
            Self::Mend { .. } => mend::segment(bytes),
            Self::Splice { .. } | Self::Copy { .. } | Self::Rename { .. } | Self::Remove { .. } => {}
        }
    }
}

fn is_target(path: &Path) -> bool {
    path.starts_with(data().join("logs")) || path.starts_with(data().join("checkpoints"))
}

fn change(disk: &SimDisk, path: Option<&PathBuf>, alter: impl FnOnce(&mut Vec<u8>)) {
    let Some(path) = path else { return };
    let mut bytes = read(disk, path).expect("a file of the list");
    alter(&mut bytes);
    write(disk, path, &bytes);
}

/// A place in the file: mostly near its beginning, where the frames are, not in a million zeros behind them.
fn within(bytes: &[u8], at: u32) -> usize {
    let at = at as usize;
    if at >= 0x8000_0000 { bytes.len().saturating_sub(at % 256) } else { at % bytes.len().clamp(1, 8192) }
}

fn sector_at(bytes: &[u8], sector: u16) -> usize {
    512 * (usize::from(sector) % (bytes.len() / 512).clamp(1, 16))
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(new) {
        *to = *from;
    }
}

fn field_of(bytes: &mut [u8], at: usize, fields: &[(usize, usize)], field: u8, value: u64) {
    let (offset, size) = fields[usize::from(field) % fields.len()];
    put(bytes, at + offset, &value.to_le_bytes()[..size]);
}
