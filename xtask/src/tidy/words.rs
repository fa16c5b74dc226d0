//! Words that must not stand in the tree.
//!
//! The markers are put together from halves, so that this file does not find itself.

use super::{Report, is_test, numbered};
use crate::tree::Tree;

/// Marks of work left open.
const LEFT_OPEN: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
];
/// Beginnings of paths that exist on one machine only.
const PRIVATE_PATHS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/", "bash"),
];
/// Ways to sleep in a test instead of waiting for a condition.
const SLEEPS: [&str; 2] = [concat!("thread::sl", "eep("), concat!("time::sl", "eep(")];

pub(super) fn left_open_or_private(tree: &Tree, report: &mut Report) {
    for extension in ["rs", "md", "toml", "sh", "yml"] {
        for (path, text) in tree.texts(extension) {
            for (line, content) in numbered(text) {
                for word in LEFT_OPEN.iter().filter(|word| stands_alone(content, word)) {
                    report.add(path, line, format!("`{word}`: finish it, or write it up as an issue"));
                }
                for start in PRIVATE_PATHS.iter().filter(|start| names_path(content, start)) {
                    report.add(path, line, format!("`{start}…` exists on one machine only"));
                }
            }
        }
    }
}

pub(super) fn tests(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts("rs") {
        for (line, content) in numbered(text) {
            let content = content.trim();
            if content == concat!("#[ig", "nore]") {
                report.add(path, line, "a test is switched off without a reason");
            }
            if is_test(path) && SLEEPS.iter().any(|sleep| content.contains(sleep)) {
                report.add(path, line, "a test sleeps; let it wait for the condition it means");
            }
        }
    }
}

/// Whether `word` stands in `line` with no letter or digit beside it.
fn stands_alone(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
            && (word.ends_with('!') || !after.is_some_and(|letter| letter.is_alphanumeric() || letter == '_'))
    })
}

/// Whether an absolute path beginning with `start` stands in `line`.
fn names_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-}>".contains(letter))
    })
}
