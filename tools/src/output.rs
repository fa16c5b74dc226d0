//! How a command answers: as JSON for programs, as text for people.
//!
//! Answers go to standard output, one JSON object a line with `--json`. Errors go to standard error; with `--json` a
//! command that has not answered yet says them on standard output too, as `{"error": "…"}`.
//!
//! A reader that went away (`tidelog … | head`) is no failure: nothing is left to be told to anyone.

use std::cell::Cell;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::error::CliError;

/// Where answers go.
pub(crate) struct Output {
    json: bool,
    answered: Cell<bool>,
}

/// Something that a command answers.
pub(crate) trait Answer: Serialize {
    /// The answer for people, without a newline at its end.
    fn text(&self) -> String;
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, answered: Cell::new(false) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Says that the command writes its answer itself.
    pub(crate) fn set_answered(&self) {
        self.answered.set(true);
    }

    /// Prints `answer`.
    pub(crate) fn print(&self, answer: &impl Answer) {
        self.answered.set(true);
        if self.json {
            line(&to_json(answer));
        } else {
            line(&answer.text());
        }
    }

    /// Tells `error`.
    pub(crate) fn fail(&self, error: &CliError) {
        if self.json && !self.answered.get() {
            line(&to_json(&serde_json::json!({ "error": error.to_string() })));
        }
        eprintln!("error: {error}");
    }
}

/// The answer as one line of JSON.
fn to_json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn line(text: &str) {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot write the answer: {error}");
    }
}

/// A table with a head, its columns as wide as they need to be; numbers to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let lines = std::iter::once(&head).chain(rows).map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            if cell.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let rows = [vec!["flights".to_owned(), "12".to_owned()], vec!["a".to_owned(), "3456".to_owned()]];
        assert_eq!(table(&["channel", "end"], &rows), "channel  end\nflights    12\na        3456");
    }
}
