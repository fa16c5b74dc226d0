//! Which crate may know which, as ARCHITECTURE.md draws it.

use super::{Report, numbered};
use crate::tree::Tree;

/// A crate's folder, and those of our own crates that it may depend on.
const LAYERS: [(&str, &[&str]); 12] = [
    ("wire", &[]),
    ("tls", &["wire"]),
    ("engine", &["wire"]),
    ("consensus", &["engine", "tls", "wire"]),
    ("frontends", &["consensus", "engine", "tls", "wire"]),
    ("client", &["tls", "wire"]),
    ("tools", &["client", "consensus", "engine", "tls", "wire"]),
    ("sim", &["consensus", "engine", "wire"]),
    ("crash", &["consensus", "engine", "wire"]),
    ("chaos", &["client", "engine", "tls", "wire"]),
    ("benches", &["client", "consensus", "engine", "frontends", "tls", "tools", "wire"]),
    ("xtask", &[]),
];

pub(super) fn check(tree: &Tree, report: &mut Report) {
    for (folder, allowed) in LAYERS {
        let manifest = format!("{folder}/Cargo.toml");
        let Some(text) = tree.text(&manifest) else { continue };
        let mut tests_only = false;
        for (line, content) in numbered(text) {
            if content.starts_with('[') {
                tests_only = content.contains("dev-dependencies");
            }
            let Some(known) = dependency(content) else { continue };
            if known != folder && !allowed.contains(&known) && !tests_only {
                report.add(&manifest, line, format!("{folder} must not know {known}; see ARCHITECTURE.md"));
            }
        }
    }
}

/// The folder of our own crate that a manifest line depends on.
fn dependency(line: &str) -> Option<&str> {
    let name = line.strip_prefix("tidelog-")?;
    let end = name.find(|letter: char| !letter.is_alphanumeric())?;
    let (name, rest) = name.split_at(end);
    (rest.starts_with(['.', ' ', '='])).then_some(name)
}
