//! Contents of a simulated file: a sparse map of shared pages, so that copies cost little.

use std::collections::BTreeMap;

use crate::locks::Arc;

/// Bytes that a disk writes as one.
pub(super) const SECTOR: u64 = 512;
const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

type Page = [u8; PAGE_LEN];

/// What a file holds, either in the cache or on the disk. Bytes that no page covers are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// The part of one page that a range of bytes covers.
struct Piece {
    page: u64,
    start: usize,
    len: usize,
}

/// Cuts `position..position + len` at page borders.
fn pieces(position: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut at = position;
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let start = usize::try_from(at.wrapping_rem(PAGE)).unwrap_or(0);
        let len = left.min(PAGE_LEN.saturating_sub(start));
        let piece = Piece { page: at.wrapping_div(PAGE), start, len };
        at = at.saturating_add(u64::try_from(len).unwrap_or(PAGE));
        left = left.saturating_sub(len);
        Some(piece)
    })
}

impl Image {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf`, with zeros beyond the end. The caller checks the length.
    pub(super) fn read(&self, position: u64, buf: &mut [u8]) {
        let mut rest = buf;
        for piece in pieces(position, rest.len()) {
            let Some((into, after)) = rest.split_at_mut_checked(piece.len) else { return };
            let end = piece.start.saturating_add(piece.len);
            match self.pages.get(&piece.page).and_then(|page| page.get(piece.start..end)) {
                Some(from) => into.copy_from_slice(from),
                None => into.fill(0),
            }
            rest = after;
        }
    }

    /// Puts `bytes` at `position` without touching the length.
    fn put(&mut self, position: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for piece in pieces(position, bytes.len()) {
            let Some((from, after)) = rest.split_at_checked(piece.len) else { return };
            rest = after;
            // Zeros where nothing is need no page: a prefill costs nothing.
            if is_zeros(from) && !self.pages.contains_key(&piece.page) {
                continue;
            }
            let page = self.pages.entry(piece.page).or_insert_with(|| Arc::new([0; PAGE_LEN]));
            let end = piece.start.saturating_add(piece.len);
            if let Some(into) = Arc::make_mut(page).get_mut(piece.start..end) {
                into.copy_from_slice(from);
            }
        }
    }

    /// Writes, extending the file if needed.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        self.put(position, bytes);
        let end = position.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.len = self.len.max(end);
    }

    /// Sets the length; whatever lay beyond it is zero from then on.
    pub(super) fn truncate(&mut self, len: u64) {
        let whole = len.wrapping_div(PAGE);
        let start = usize::try_from(len.wrapping_rem(PAGE)).unwrap_or(0);
        drop(self.pages.split_off(&if start == 0 { whole } else { whole.saturating_add(1) }));
        if start > 0
            && let Some(page) = self.pages.get_mut(&whole)
            && let Some(tail) = Arc::make_mut(page).get_mut(start..)
        {
            tail.fill(0);
        }
        self.len = len;
    }

    /// Whether a sector has the same bytes here and in `other`, whatever the lengths.
    pub(super) fn holds_same(&self, other: &Self, sector: u64) -> bool {
        let position = sector.saturating_mul(SECTOR);
        let page = position.wrapping_div(PAGE);
        match (self.pages.get(&page), other.pages.get(&page)) {
            (None, None) => return true,
            (Some(ours), Some(theirs)) if Arc::ptr_eq(ours, theirs) => return true,
            (Some(_) | None, Some(_)) | (Some(_), None) => {}
        }
        let (mut ours, mut theirs) = ([0; 512], [0; 512]);
        self.read(position, &mut ours);
        other.read(position, &mut theirs);
        ours == theirs
    }

    /// Takes one sector's bytes from `other`, whatever the lengths.
    pub(super) fn take_sector(&mut self, other: &Self, sector: u64) {
        let mut bytes = [0; 512];
        let position = sector.saturating_mul(SECTOR);
        other.read(position, &mut bytes);
        self.put(position, &bytes);
    }

    /// Takes the length, and the pages that cover `position..position + len`, from `other`.
    pub(super) fn take_range(&mut self, other: &Self, position: u64, len: usize) {
        for piece in pieces(position, len) {
            match other.pages.get(&piece.page) {
                Some(page) => drop(self.pages.insert(piece.page, Arc::clone(page))),
                None => drop(self.pages.remove(&piece.page)),
            }
        }
        self.len = other.len;
    }

    /// Takes the length, and everything from `position` on, from `other`.
    pub(super) fn take_tail(&mut self, other: &Self, position: u64) {
        let first = position.wrapping_div(PAGE);
        drop(self.pages.split_off(&first));
        self.pages.extend(other.pages.range(first..).map(|(page, bytes)| (*page, Arc::clone(bytes))));
        self.len = other.len;
    }

    /// Inverts one bit of a byte within the length; false if it lies beyond.
    pub(super) fn flip(&mut self, position: u64, bit: u8) -> bool {
        if position >= self.len {
            return false;
        }
        let mut byte = [0];
        self.read(position, &mut byte);
        self.put(position, &byte.map(|byte| byte ^ 1_u8.wrapping_shl(u32::from(bit))));
        true
    }

    /// All bytes but zeros, page by page with the page's number, for hashing.
    pub(super) fn each_page(&self, mut visit: impl FnMut(u64, &[u8])) {
        for (number, page) in &self.pages {
            if !is_zeros(page.as_slice()) {
                visit(*number, page.as_slice());
            }
        }
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    static ZEROS: Page = [0; PAGE_LEN];
    ZEROS.get(..bytes.len()) == Some(bytes)
}
