//! What happened in a run, as lines and as one hash: two runs of a seed must agree in both.

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::schedule::Micros;

/// Collects what happens.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// With `lines`, keeps a line for each event; without, only the hash.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        Self { hash: 0, events: 0, lines: lines.then(Vec::new) }
    }

    /// Notes an event.
    pub fn note(&mut self, at: Micros, what: &'static str, fields: &[(&'static str, u64)]) {
        self.events = self.events.saturating_add(1);
        self.hash = xxh3_64_with_seed(what.as_bytes(), self.hash ^ at.0);
        for (_, value) in fields {
            self.hash = xxh3_64_with_seed(&value.to_le_bytes(), self.hash);
        }
        if let Some(lines) = &mut self.lines {
            let mut line = format!("{:4}.{:06} {what}", at.0 / 1_000_000, at.0 % 1_000_000);
            for (name, value) in fields {
                // Writing to a string cannot fail.
                if write!(line, " {name}={value}").is_err() {
                    break;
                }
            }
            lines.push(line);
        }
    }

    /// Notes words that come with an event, such as an error's. They count in the hash too.
    pub fn words(&mut self, at: Micros, what: &'static str, words: &str) {
        self.events = self.events.saturating_add(1);
        self.hash = xxh3_64_with_seed(words.as_bytes(), self.hash ^ at.0);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:4}.{:06} {what}: {words}", at.0 / 1_000_000, at.0 % 1_000_000));
        }
    }

    /// The hash of all events so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
