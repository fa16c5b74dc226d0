//! Whether what was read back is what was sent: the same bytes, each once, in the same order.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read;

use crate::produce::input::{InputError, Lines};

/// Compares values, as they come, with the lines of the input.
pub(crate) struct Comparison<R> {
    input: Lines<R>,
    /// For each value, by its hash: how often it was sent and not read back. Below zero: read more often than sent.
    open: BTreeMap<u64, i64>,
    read: u64,
    identical: bool,
}

/// What the comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Values read back.
    pub(crate) read: u64,
    /// Values of the input that are missing.
    pub(crate) lost: u64,
    /// Values that are there more often than in the input.
    pub(crate) duplicated: u64,
    /// Byte for byte the input, in its order.
    pub(crate) identical: bool,
}

impl<R: Read> Comparison<R> {
    pub(crate) fn new(input: Lines<R>) -> Self {
        Self { input, open: BTreeMap::new(), read: 0, identical: true }
    }

    /// The next value that was read back.
    pub(crate) fn value(&mut self, value: &[u8]) -> Result<(), InputError> {
        self.read += 1;
        let expected = self.input.read()?;
        if expected.as_ref().is_some_and(|line| line.value == value) {
            return Ok(());
        }
        self.identical = false;
        if let Some(line) = expected {
            self.note(&line.value, 1);
        }
        self.note(value, -1);
        Ok(())
    }

    /// To be called when nothing more is there to be read back.
    pub(crate) fn finish(mut self) -> Result<Verdict, InputError> {
        while let Some(line) = self.input.read()? {
            self.identical = false;
            self.note(&line.value, 1);
        }
        let sum = |sign: i64| {
            let counts = self.open.values().map(|count| u64::try_from(count * sign).unwrap_or(0));
            counts.sum()
        };
        Ok(Verdict { read: self.read, lost: sum(1), duplicated: sum(-1), identical: self.identical })
    }

    fn note(&mut self, value: &[u8], change: i64) {
        let mut hasher = DefaultHasher::new();
        hasher.write(value);
        *self.open.entry(hasher.finish()).or_default() += change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(input: &'static str, read_back: &[&str]) -> Verdict {
        let mut comparison = Comparison::new(Lines::new(input.as_bytes(), None));
        for value in read_back {
            comparison.value(value.as_bytes()).unwrap();
        }
        comparison.finish().unwrap()
    }

    #[test]
    fn the_same_values_in_the_same_order_are_identical() {
        let verdict = verdict("a\nb\nb\n", &["a", "b", "b"]);
        assert_eq!(verdict, Verdict { read: 3, lost: 0, duplicated: 0, identical: true });
    }

    /// Every way of breaking the promise is told apart.
    #[test]
    fn a_lost_a_repeated_a_changed_and_a_displaced_value_are_each_seen() {
        let is = |read, lost, duplicated| Verdict { read, lost, duplicated, identical: false };
        assert_eq!(verdict("a\nb\nc\n", &["a", "c"]), is(2, 1, 0), "one in the middle is lost");
        assert_eq!(verdict("a\nb\nc\n", &["a", "b"]), is(2, 1, 0), "the last is lost");
        assert_eq!(verdict("a\nb\nc\n", &["a", "b", "b", "c"]), is(4, 0, 1), "one came twice");
        assert_eq!(verdict("a\nb\n", &["a", "x"]), is(2, 1, 1), "one was changed");
        assert_eq!(verdict("a\nb\n", &["b", "a"]), is(2, 0, 0), "the order is another");
        assert_eq!(verdict("a\n", &[]), is(0, 1, 0), "nothing is left");
    }
}
