//! Locks of the engine come from the one module whose scheduler a test can take over.
//!
//! A lock from elsewhere would work, and the races around it would never be tried.

use super::{Report, is_test, numbered, without_inline_tests};
use crate::tree::Tree;

const FROM: &str = "std::sync::";
/// Shared ownership has nothing to schedule.
const FREE: &str = "Arc";
const OWNER: &str = "engine/src/locks.rs";

pub(super) fn check(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts("rs") {
        if !path.starts_with("engine/src/") || path == OWNER || is_test(path) {
            continue;
        }
        for (line, content) in numbered(without_inline_tests(text)) {
            if content.split(FROM).skip(1).any(|named| !named.starts_with(FREE)) {
                report.add(path, line, format!("locks and atomics of the engine come from `{OWNER}`"));
            }
        }
    }
}
