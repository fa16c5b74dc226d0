//! Error codes: one variant each, one page each, and an index made from the pages.
//!
//! A code is *defined* where a string literal of shipped source begins with it, as the display text of
//! an error does: `"E0102 {path}: …"`. Any other mention, in source or prose, must mean one that exists; tests may invent
//! codes, for errors that they make up.

use std::collections::BTreeMap;

use super::{Report, is_test, numbered, without_inline_tests};
use crate::tree::Tree;

/// Folder of the pages.
const PAGES: &str = "docs/errors/";
/// What stands above the list of the index.
const INDEX_HEADING: &str = "## Index\n";
/// Sections of a page, in this order.
const SECTIONS: [&str; 3] = ["## Cause", "## Risk to data", "## What to do"];
/// Which crate owns the codes with which two first digits.
const RANGES: [(&str, &[&str]); 7] = [
    ("engine", &["E01", "E02"]),
    ("consensus", &["E11", "E12", "E13"]),
    ("tls", &["E14"]),
    ("wire", &["E15"]),
    ("frontends", &["E21", "E22"]),
    ("client", &["E31"]),
    ("tools", &["E32"]),
];

pub(super) fn check(tree: &Tree, report: &mut Report) {
    let defined = definitions(tree, report);
    for (code, (path, line)) in &defined {
        if tree.text(&format!("{PAGES}{code}.md")).is_none() {
            report.add(path, *line, format!("{code} has no page {PAGES}{code}.md"));
        }
    }
    pages(tree, &defined, report);
    mentions(tree, &defined, report);
}

/// Where each code is defined; reports a second definition and a code outside its crate's range.
fn definitions(tree: &Tree, report: &mut Report) -> BTreeMap<String, (String, usize)> {
    let mut defined: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for (path, text) in tree.texts("rs").filter(|(path, _)| !is_test(path) && is_shipped(path)) {
        for (line, content) in numbered(without_inline_tests(text)) {
            for code in codes(content).filter(|code| content.contains(&format!("\"{code} "))) {
                if let Some((other, at)) = defined.get(&code) {
                    report.add(path, line, format!("{code} is used already at {other}:{at}"));
                    continue;
                }
                if !in_range(path, &code) {
                    report.add(path, line, format!("{code} is outside the range of this crate"));
                }
                defined.insert(code, (path.to_owned(), line));
            }
        }
    }
    defined
}

fn is_shipped(path: &str) -> bool {
    RANGES.iter().any(|(folder, _)| path.split('/').next() == Some(folder))
}

fn in_range(path: &str, code: &str) -> bool {
    RANGES.iter().any(|(folder, starts)| {
        path.split('/').next() == Some(folder) && starts.iter().any(|start| code.starts_with(start))
    })
}

/// Every page belongs to a code, has its title and sections, and stands in the index.
fn pages(tree: &Tree, defined: &BTreeMap<String, (String, usize)>, report: &mut Report) {
    let index_path = format!("{PAGES}README.md");
    let index = tree.text(&index_path).unwrap_or_default();
    for (path, text) in tree.texts("md") {
        let Some(code) = path.strip_prefix(PAGES).and_then(|name| name.strip_suffix(".md")) else { continue };
        if code == "README" {
            continue;
        }
        if !defined.contains_key(code) {
            report.add(path, 0, format!("no error uses {code}; remove the page or say where it went"));
        }
        if !text.starts_with(&format!("# {code}: ")) {
            report.add(path, 1, format!("must begin `# {code}: ` and a short name"));
        }
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        if found != SECTIONS {
            report.add(path, 0, format!("its sections must be {}", SECTIONS.join(", ")));
        }
    }
    if !pages_of(tree).is_empty() && !index.ends_with(&index_lines(tree)) {
        report.add(&index_path, 0, "its list is not the one of the pages; run `cargo xtask tidy --mend`");
    }
}

/// The pages with their titles, in order.
fn pages_of(tree: &Tree) -> Vec<(&str, &str)> {
    tree.texts("md")
        .filter_map(|(path, text)| Some((path.strip_prefix(PAGES)?, text)))
        .filter(|(name, _)| *name != "README.md")
        .map(|(name, text)| (name, text.lines().next().unwrap_or_default().trim_start_matches("# ")))
        .collect()
}

/// The list that the index must end with, from its heading on.
fn index_lines(tree: &Tree) -> String {
    let mut lines = format!("{INDEX_HEADING}\n");
    for (name, title) in pages_of(tree) {
        lines.push_str(&format!("- [{title}]({name})\n"));
    }
    lines
}

/// The path of the index and the text it should have.
pub(crate) fn index(tree: &Tree) -> (String, String) {
    let path = format!("{PAGES}README.md");
    let text = tree.text(&path).unwrap_or_default();
    let kept = text.split(INDEX_HEADING).next().unwrap_or_default();
    let text = format!("{kept}{}", index_lines(tree));
    (path, text)
}

/// Every mention means a code that exists.
fn mentions(tree: &Tree, defined: &BTreeMap<String, (String, usize)>, report: &mut Report) {
    let sources = tree.texts("rs").filter(|(path, _)| is_shipped(path) && !is_test(path));
    let sources = sources.map(|(path, text)| (path, without_inline_tests(text)));
    for (path, text) in sources.chain(tree.texts("md")) {
        for (line, content) in numbered(text) {
            for code in codes(content).filter(|code| !defined.contains_key(code)) {
                report.add(path, line, format!("{code} is mentioned, but no error has it"));
            }
        }
    }
}

/// Codes in a line: an `E` and four digits that stand alone.
fn codes(line: &str) -> impl Iterator<Item = String> {
    line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| {
            word.len() == 5
                && word
                    .strip_prefix('E')
                    .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        })
        .map(str::to_owned)
}
