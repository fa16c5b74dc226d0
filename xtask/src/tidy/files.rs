//! How long files are, and what they are called.

use super::Report;
use crate::tree::Tree;

/// Longest Rust source file, in lines.
const LINES_MAX: usize = 500;
/// Names that say nothing about what is inside.
const GRAB_BAGS: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "impls", "stuff"];

pub(super) fn length(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts("rs") {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            report.add(path, 0, format!("{lines} lines; split it by purpose below {LINES_MAX}"));
        }
    }
}

pub(super) fn names(tree: &Tree, report: &mut Report) {
    for path in tree.paths() {
        for part in path.split('/') {
            let stem = part.split('.').next().unwrap_or(part);
            if GRAB_BAGS.contains(&stem) {
                report.add(path, 0, format!("`{part}` names no purpose; call it by what it does"));
            }
        }
    }
}
