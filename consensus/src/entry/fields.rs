//! Fields one after the other: how entries and machine states lie in bytes.
//!
//! Little-endian, fixed sizes. A text is its length (2 bytes) and UTF-8; a list its length (4 bytes)
//! and its items; an optional value one byte, 0 or 1, and the value. The reader trusts nothing: a
//! length is checked against its limit and against the bytes that are left before anything is
//! allocated, and [`FieldReader::end`] refuses what is left over.

use std::fmt;

/// Where and why bytes do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedField {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for MalformedField {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "field `{}`: {}", self.field, self.problem)
    }
}

/// Appends fields to bytes.
#[derive(Debug, Default)]
pub(crate) struct FieldWriter {
    bytes: Vec<u8>,
}

macro_rules! write_number {
    ($($name:ident),*) => {
        $(pub(crate) fn $name(&mut self, value: $name) -> &mut Self {
            self.bytes.extend_from_slice(&value.to_le_bytes());
            self
        })*
    };
}

impl FieldWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    write_number!(u8, u16, u32, u64, u128, i32, i64);

    /// # Panics
    /// If `text` is longer than `bytes_max`: whoever proposes checks it.
    pub(crate) fn text(&mut self, text: &str, bytes_max: usize) -> &mut Self {
        assert!(text.len() <= bytes_max, "a text of {} bytes where {bytes_max} are allowed", text.len());
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// # Panics
    /// If there are more than `count_max` items: whoever proposes checks it.
    pub(crate) fn list<T>(
        &mut self,
        items: &[T],
        count_max: usize,
        mut write: impl FnMut(&mut Self, &T),
    ) -> &mut Self {
        assert!(items.len() <= count_max, "a list of {} items where {count_max} are allowed", items.len());
        self.u32(u32::try_from(items.len()).unwrap_or(u32::MAX));
        for item in items {
            write(self, item);
        }
        self
    }

    pub(crate) fn optional<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) -> &mut Self {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes fields off bytes.
#[derive(Debug)]
pub(crate) struct FieldReader<'a> {
    left: &'a [u8],
}

macro_rules! read_number {
    ($($name:ident),*) => {
        $(pub(crate) fn $name(&mut self, field: &'static str) -> Result<$name, MalformedField> {
            let (bytes, left) = self
                .left
                .split_first_chunk()
                .ok_or(MalformedField { field, problem: "the bytes end inside it" })?;
            self.left = left;
            Ok($name::from_le_bytes(*bytes))
        })*
    };
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    read_number!(u8, u16, u32, u64, u128, i32, i64);

    /// One reserved byte.
    pub(crate) fn zero(&mut self, field: &'static str) -> Result<(), MalformedField> {
        match self.u8(field)? {
            0 => Ok(()),
            _ => Err(MalformedField { field, problem: "reserved, but not zero" }),
        }
    }

    pub(crate) fn text(&mut self, field: &'static str, bytes_max: usize) -> Result<String, MalformedField> {
        let len = usize::from(self.u16(field)?);
        if len > bytes_max {
            return Err(MalformedField { field, problem: "longer than is allowed" });
        }
        let (bytes, left) = self
            .left
            .split_at_checked(len)
            .ok_or(MalformedField { field, problem: "the bytes end inside it" })?;
        self.left = left;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| MalformedField { field, problem: "not UTF-8" })
    }

    /// A list whose items take at least `item_bytes_min` bytes each.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        count_max: usize,
        item_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, MalformedField>,
    ) -> Result<Vec<T>, MalformedField> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if count > count_max {
            return Err(MalformedField { field, problem: "more items than are allowed" });
        }
        if count.saturating_mul(item_bytes_min) > self.left.len() {
            return Err(MalformedField { field, problem: "the bytes end inside it" });
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    pub(crate) fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, MalformedField>,
    ) -> Result<Option<T>, MalformedField> {
        match self.u8(field)? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(MalformedField { field, problem: "neither absent (0) nor present (1)" }),
        }
    }

    /// How many bytes are left.
    pub(crate) const fn left(&self) -> usize {
        self.left.len()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), MalformedField> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(MalformedField { field: "end", problem: "more bytes after the last field" })
        }
    }
}
