//! The format documents against the source.
//!
//! 1. `<!-- layout: FILE ITEM -->` above a table of a page says whose layout it is: the table in the doc of `ITEM` in `FILE` (of
//!    the file itself, if `ITEM` is `//!`). Both must have the same offsets, sizes and names in the same order. A layout table
//!    of a page without that line is a finding. `<!-- layout: FILE ITEM CONST -->` says too that the table ends at `CONST`.
//! 2. Every layout table, in page or source, is without gaps, and the magic it names is one of the source file.
//! 3. Where `ITEM` has an `encode`, the fields stand in it in the table's order. That they lie there in the bytes is
//!    shown by the tests of each crate, which read the same tables.
//! 4. `<!-- limits -->` stands above a table of limits: its last column names file and constant, whose value must be that of
//!    the second column.
//! 5. The golden files are told in a page, and those that pages name are there.
//! 6. Every file and directory that engine and consensus make at the top of a data directory has a row in the page of that
//!    directory.
//! 7. A `row` that a page says recovery decides by is one of its table.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::constants::{quantity, value_of};
use super::{Report, numbered};
use crate::tree::Tree;

/// Folder of the pages.
const PAGES: &str = "docs/formats/";
/// Where golden files lie in each crate.
const GOLDEN: &str = "/testdata/format-1/";

/// The page of the data directory.
const DIRECTORY: &str = "docs/formats/directory.md";
/// How sources name what lies at the top of a data directory.
const AT_THE_TOP: [&str; 3] = ["data_dir.join(\"", "data.join(\"", "root.join(\""];

/// The decision table of recovery.
const RECOVERY: &str = "engine/src/log/recovery/table.rs";

/// A row of a layout table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    line: usize,
    at: String,
    size: String,
    field: String,
    meaning: String,
}

impl Row {
    fn same_as(&self, other: &Self) -> bool {
        (&self.at, &self.size, &self.field) == (&other.at, &other.size, &other.field)
    }
}

pub(super) fn check(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts("md").filter(|(path, _)| path.starts_with(PAGES)) {
        page(tree, path, text, report);
        recovery_rows(tree, path, text, report);
    }
    for (path, text) in tree.texts("rs") {
        for (start, _) in numbered(text).filter(|(_, line)| is_layout_head(undoc(line))) {
            let rows = table(text.lines().skip(start).map(undoc), start + 2);
            without_gaps(path, &rows, report);
        }
    }
    golden(tree, report);
    top_names(tree, report);
}

/// What lies at the top of a data directory, as the sources name it, is told in its page.
fn top_names(tree: &Tree, report: &mut Report) {
    let page = tree.text(DIRECTORY).unwrap_or_default();
    let makes = |path: &str| {
        (path.starts_with("engine/src/") || path.starts_with("consensus/src/")) && !path.contains("/tests")
    };
    for (path, text) in tree.texts("rs").filter(|(path, _)| makes(path)) {
        for (line, content) in numbered(text) {
            for name in AT_THE_TOP.iter().filter_map(|named| content.split_once(named)?.1.split('"').next()) {
                let rows = page.lines().filter(|row| row.starts_with("| `"));
                let cells = rows.filter_map(|row| row.split('|').nth(1));
                let mut told =
                    cells.flat_map(|cell| cell.split('`')).map(|code| code.split('/').next().unwrap_or(code));
                if !told.any(|told| told == name) {
                    report.add(path, line, format!("{DIRECTORY} has no row for `{name}`"));
                }
            }
        }
    }
}

/// One page: its layouts and its limits.
fn page(tree: &Tree, path: &str, text: &str, report: &mut Report) {
    let mut told: Option<Vec<&str>> = None;
    for (line, content) in numbered(text) {
        let content = content.trim();
        let comment = content.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        match comment.map(|comment| comment.split(' ').collect::<Vec<_>>()).as_deref() {
            Some(["layout:", named @ ..]) => told = Some(named.to_vec()),
            Some(["limits"]) => limits(tree, path, text, line, report),
            Some(_) | None if is_layout_head(content) => {
                let rows = table(text.lines().skip(line), line + 2);
                without_gaps(path, &rows, report);
                match told.take().as_deref() {
                    Some([file, item, constant @ ..]) => {
                        layout(tree, path, line, &rows, (file, item, constant.first().copied()), report);
                    }
                    Some(_) | None => {
                        report.add(
                            path,
                            line,
                            "no `<!-- layout: FILE ITEM -->` above the table says whose layout it is",
                        );
                    }
                }
            }
            Some(_) | None => {}
        }
    }
    if let Some(named) = told {
        report.add(path, 0, format!("no table follows `layout: {}`", named.join(" ")));
    }
}

/// A table of a page against the one in the source, and against the encoder and the constant beside that.
fn layout(
    tree: &Tree,
    path: &str,
    line: usize,
    rows: &[Row],
    (file, item, constant): (&str, &str, Option<&str>),
    report: &mut Report,
) {
    let Some(source) = tree.text(file) else {
        report.add(path, line, format!("`{file}` is not there"));
        return;
    };
    let Some(theirs) = table_of(source, item) else {
        report.add(path, line, format!("the doc of `{item}` in {file} has no layout table"));
        return;
    };
    if rows.len() != theirs.len() {
        report.add(path, line, format!("{} fields, `{item}` in {file} has {}", rows.len(), theirs.len()));
    }
    for (ours, theirs) in rows.iter().zip(&theirs).filter(|(ours, theirs)| !ours.same_as(theirs)) {
        let shown = |row: &Row| format!("{} at {}, {} bytes", row.field, row.at, row.size);
        let what = format!("{}; {file}:{} says {}", shown(ours), theirs.line, shown(theirs));
        report.add(path, ours.line, what);
    }
    for magic in
        theirs.iter().filter(|row| row.field == "magic").filter_map(|row| row.meaning.split('`').nth(1))
    {
        if !source.contains(&format!("b\"{magic}\"")) {
            report.add(path, line, format!("{file} has no magic `{magic}`"));
        }
    }
    if let (Some(constant), Some(end)) = (constant, end_of(&theirs))
        && value_of(source, constant) != Some(end)
    {
        let found = value_of(source, constant).map_or("no number".to_owned(), |value| value.to_string());
        report.add(path, line, format!("the table ends at {end}, `{constant}` in {file} is {found}"));
    }
    if let Some(encoder) = encoder_of(source, item) {
        let mut rest = encoder;
        for row in theirs.iter().filter(|row| row.meaning_is_code()) {
            match rest.to_lowercase().find(&row.field) {
                Some(at) => rest = rest.get(at + row.field.len()..).unwrap_or_default(),
                None => {
                    let what =
                        format!("`{}` is not written in its turn by `{item}::encode` of {file}", row.field);
                    report.add(path, line, what);
                }
            }
        }
    }
}

impl Row {
    /// Whether the field is one of the code, not of the format only.
    fn meaning_is_code(&self) -> bool {
        !["magic", "crc32c", "format", "reserved", "flags"].contains(&self.field.as_str())
    }
}

/// The body of `encode` in the first `impl` of `item`.
fn encoder_of<'a>(source: &'a str, item: &str) -> Option<&'a str> {
    let (_, body) = source.split_once(&format!("\nimpl {item} {{"))?;
    let (body, _) = body.split_once("\n}\n")?;
    let (_, encoder) = body.split_once("fn encode(")?;
    Some(encoder.split("\n    }\n").next().unwrap_or(encoder))
}

/// The layout table in the doc of `item`, or of the file.
fn table_of(source: &str, item: &str) -> Option<Vec<Row>> {
    let lines: Vec<&str> = source.lines().collect();
    let head = if item == "//!" {
        lines.iter().position(|line| line.starts_with("//!") && is_layout_head(undoc(line)))?
    } else {
        let declared = lines.iter().position(|line| declares(line, item))?;
        let doc = lines.get(..declared)?;
        let begins = doc
            .iter()
            .rposition(|line| !line.starts_with("///") && !line.starts_with("#["))
            .map_or(0, |at| at + 1);
        begins + doc.get(begins..)?.iter().position(|line| is_layout_head(undoc(line)))?
    };
    Some(table(lines.iter().skip(head + 1).map(|line| undoc(line)), head + 3))
}

/// Whether a line declares the struct or function `item`, at any visibility.
fn declares(line: &str, item: &str) -> bool {
    ["struct ", "fn "].iter().any(|kind| {
        let named =
            line.split_once(kind).filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        named
            .and_then(|(_, rest)| rest.strip_prefix(item))
            .is_some_and(|rest| rest.starts_with([' ', '(', ';', '<']))
    })
}

/// A line without what makes it a doc comment.
fn undoc(line: &str) -> &str {
    let line = line.trim();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).unwrap_or(line).trim()
}

fn is_layout_head(line: &str) -> bool {
    let mut cells = line.split('|').map(str::trim);
    (cells.next(), cells.next(), cells.next()) == (Some(""), Some("at"), Some("size"))
        && cells.next().is_some_and(|cell| cell.starts_with("field"))
}

/// The rows of a table whose head is the line before: first the line under the head is skipped, which is line `first` - 1.
fn table<'a>(lines: impl Iterator<Item = &'a str>, first: usize) -> Vec<Row> {
    let rows = lines.skip(1).map(str::trim).take_while(|line| line.starts_with('|'));
    (first..)
        .zip(rows)
        .map(|(line, row)| {
            let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let mut next = || cells.next().unwrap_or_default();
            let (at, size, field) = (next(), next(), next().replace('`', ""));
            Row { line, at, size, field, meaning: cells.collect::<Vec<_>>().join("|") }
        })
        .collect()
}

/// Each field of a fixed place begins where the one before it ends.
fn without_gaps(path: &str, rows: &[Row], report: &mut Report) {
    for (one, next) in rows.iter().zip(rows.iter().skip(1)) {
        let numbers = (one.at.parse::<u64>(), one.size.parse::<u64>(), next.at.parse::<u64>());
        if let (Ok(at), Ok(size), Ok(next_at)) = numbers
            && at + size != next_at
        {
            report.add(
                path,
                next.line,
                format!(
                    "`{}` at {next_at} does not follow `{}`, which ends at {}",
                    next.field,
                    one.field,
                    at + size
                ),
            );
        }
    }
}

/// Where the last field ends, if that is fixed.
fn end_of(rows: &[Row]) -> Option<u64> {
    let last = rows.last()?;
    Some(last.at.parse::<u64>().ok()? + last.size.parse::<u64>().ok()?)
}

/// The table of limits whose comment stands in line `line`.
fn limits(tree: &Tree, path: &str, text: &str, line: usize, report: &mut Report) {
    let table = text.lines().skip(line).take_while(|row| row.starts_with('|'));
    let rows = table.skip(2);
    let mut any = false;
    for (at, row) in (line + 3..).zip(rows) {
        any = true;
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let named: Vec<&str> =
            cells.last().map_or("", |cell| cell).split('`').filter(|part| !part.trim().is_empty()).collect();
        let (Some(told), [file, constant]) = (cells.get(1), named.as_slice()) else {
            report.add(path, at, "the row of a limit is: limit, value, `file` `constant`");
            continue;
        };
        let Some(source) = tree.text(file) else {
            report.add(path, at, format!("`{file}` is not there"));
            continue;
        };
        match (value_of(source, constant), quantity(told)) {
            (Some(value), Some(quantity)) if value == quantity => {}
            (Some(value), _) => report.add(path, at, format!("`{told}`; `{constant}` in {file} is {value}")),
            (None, _) => {
                report.add(path, at, format!("{file} has no constant `{constant}` that is a plain number"));
            }
        }
    }
    if !any {
        report.add(path, line, "no table of limits follows");
    }
}

/// Rows of recovery that a page speaks of, as in: row `broken_above`.
fn recovery_rows(tree: &Tree, path: &str, text: &str, report: &mut Report) {
    let table = tree.text(RECOVERY).unwrap_or_default();
    for (line, content) in numbered(text) {
        for name in content.split("row `").skip(1).filter_map(|rest| rest.split('`').next()) {
            if !table.contains(&format!("row(\"{name}\",")) {
                report.add(path, line, format!("recovery's table has no row `{name}`"));
            }
        }
    }
}

/// Golden files and the pages that name them.
fn golden(tree: &Tree, report: &mut Report) {
    let mut named = BTreeSet::new();
    for (path, text) in tree.texts("md").filter(|(path, _)| path.starts_with(PAGES)) {
        for (line, content) in numbered(text) {
            for file in content.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit('/').next()) {
                if !file.ends_with(".bin") && !file.ends_with(".note") {
                    continue;
                }
                if file.contains('<')
                    || tree.paths().any(|path| path.contains(GOLDEN) && path.ends_with(&format!("/{file}")))
                {
                    named.insert(file.to_owned());
                } else {
                    report.add(path, line, format!("there is no golden file `{file}`"));
                }
            }
        }
    }
    for path in tree.paths().filter(|path| path.contains(GOLDEN)) {
        let file = path.rsplit('/').next().unwrap_or(path);
        if !named.contains(file) {
            report.add(path, 0, "no page in docs/formats names this golden file");
        }
    }
}
