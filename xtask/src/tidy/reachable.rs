//! Whether every Rust file is compiled at all.
//!
//! Starts at the files that cargo takes as crate roots (by place, or named by `path = "…"` in a
//! manifest) and follows `mod name;` lines. What is never met is dead text that looks alive.

use std::collections::BTreeSet;

use super::{Report, numbered};
use crate::tree::Tree;

pub(super) fn check(tree: &Tree, report: &mut Report) {
    let mut open = roots(tree);
    let mut met = BTreeSet::new();
    while let Some(path) = open.pop() {
        if let Some(text) = tree.text(&path)
            && met.insert(path.clone())
        {
            let root = is_root(tree, &path);
            open.extend(children(&path, text, root));
        }
    }
    for (path, _) in tree.texts("rs") {
        if !met.contains(path) {
            report.add(path, 0, "no `mod` line or manifest leads here; declare it or remove it");
        }
    }
}

/// Crate roots of every package of the tree.
fn roots(tree: &Tree) -> Vec<String> {
    tree.texts("rs").map(|(path, _)| path).filter(|path| is_root(tree, path)).map(str::to_owned).collect()
}

fn is_root(tree: &Tree, path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    (0..parts.len()).any(|depth| {
        let (folder, inside) = parts.split_at(depth);
        let package = folder.iter().fold(String::new(), |path, part| path + part + "/");
        tree.text(&format!("{package}Cargo.toml"))
            .is_some_and(|manifest| manifest.contains("[package]") && is_root_of(manifest, inside))
    })
}

fn is_root_of(manifest: &str, inside: &[&str]) -> bool {
    let by_place = matches!(
        inside,
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests" | "benches" | "examples", _]
            | ["tests" | "benches" | "examples", _, "main.rs"]
    );
    by_place || manifest.contains(&format!("path = \"{}\"", inside.join("/")))
}

/// Files that the `mod` lines of `text` may mean; those that do not exist are simply never met.
fn children(path: &str, text: &str, root: bool) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let below = if root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut children = Vec::new();
    let mut named_path = None;
    for (_, line) in numbered(text) {
        let line = line.trim();
        if let Some(quoted) = line.strip_prefix("#[path = \"") {
            named_path = quoted.split('"').next().map(|file| format!("{folder}/{file}"));
        } else if let Some(module) = declared(line) {
            match named_path.take() {
                Some(file) => children.push(file),
                None => {
                    children.push(format!("{below}/{module}.rs"));
                    children.push(format!("{below}/{module}/mod.rs"));
                }
            }
        }
    }
    children
}

/// The module that a line `mod name;` declares, at any visibility.
fn declared(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("mod ")?;
    let visible = before.is_empty() || before.starts_with("pub");
    let name = after.split(';').next()?;
    let plain = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    (visible && plain && after.contains(';')).then_some(name)
}
