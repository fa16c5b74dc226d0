//! Relative links between the Markdown files.

use super::{Report, numbered};
use crate::tree::Tree;

pub(super) fn check(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts("md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut in_code = false;
        for (line, content) in numbered(text) {
            if content.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for target in targets(content) {
                let resolved = resolve(folder, target);
                if !resolved.is_some_and(|resolved| resolved.is_empty() || tree.holds(&resolved)) {
                    report.add(path, line, format!("the link to `{target}` leads nowhere"));
                }
            }
        }
    }
}

/// Relative targets of the links in a line, without anchors.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| {
            !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:")
        })
        .map(|target| target.split('#').next().unwrap_or(target))
}

/// The path from the root that `target` means in `folder`; none if it leaves the repository.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}
