//! Rules of the tree that no compiler checks. Each is a pure function from a [`Tree`] to findings.
//!
//! | rule | holds that |
//! |---|---|
//! | `length` | a Rust source file has at most 500 lines |
//! | `names` | no file or folder is named for being a grab bag |
//! | `reachable` | every Rust file is compiled: some `mod` line or manifest leads to it |
//! | `layers` | a crate depends only on the crates that ARCHITECTURE.md lets it know |
//! | `locks` | the engine's locks and atomics come from its one module for them |
//! | `codes` | an error code is used by one variant, has a page, and stands in the index |
//! | `formats` | the layouts and limits in docs/formats are those of the source, and golden files are told there |
//! | `links` | a relative link in a Markdown file leads to something |
//! | `words` | nothing is left open in the tree, and nothing names one machine's folders |
//! | `tests` | no test is switched off without a reason, none sleeps |
//!
//! A rule is loosened only here, where everyone sees it.

pub(crate) mod codes;
mod constants;
mod files;
mod formats;
mod layers;
mod links;
mod locks;
mod reachable;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

use crate::tree::Tree;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    rule: &'static str,
    path: String,
    /// From 1; 0 is the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path)?;
        if self.line > 0 {
            write!(out, ":{}", self.line)?;
        }
        write!(out, ": {}: {}", self.rule, self.what)
    }
}

/// A rule by its name.
pub(crate) struct Rule {
    name: &'static str,
    check: fn(&Tree, &mut Report),
}

/// Every rule.
pub(crate) const RULES: [Rule; 10] = [
    Rule { name: "length", check: files::length },
    Rule { name: "names", check: files::names },
    Rule { name: "reachable", check: reachable::check },
    Rule { name: "layers", check: layers::check },
    Rule { name: "locks", check: locks::check },
    Rule { name: "codes", check: codes::check },
    Rule { name: "formats", check: formats::check },
    Rule { name: "links", check: links::check },
    Rule { name: "words", check: words::left_open_or_private },
    Rule { name: "tests", check: words::tests },
];

/// Collects the findings of one rule.
pub(crate) struct Report {
    rule: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, path: &str, line: usize, what: impl Into<String>) {
        self.findings.push(Finding { rule: self.rule, path: path.to_owned(), line, what: what.into() });
    }
}

/// All findings, rule by rule.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in &RULES {
        let mut report = Report { rule: rule.name, findings: Vec::new() };
        (rule.check)(tree, &mut report);
        findings.append(&mut report.findings);
    }
    findings
}

/// Whether the file holds tests only: it lies in a `tests` folder or is a `tests.rs`.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The part of a source file before its inline test module.
fn without_inline_tests(text: &str) -> &str {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// The lines of a text, numbered as editors do.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}
