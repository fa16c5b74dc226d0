//! `segment explain`: every byte of a file has a label.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use tidelog_engine::offline::{self, Detail, SegmentMap};
use tidelog_engine::os::OsStorage;

use super::arguments::Explain;
use super::view::content;
use super::{find, progress};
use crate::error::CliError;
use crate::output::{Answer, Output, table};

#[derive(Serialize)]
struct Explanation {
    files: Vec<FileView>,
}

#[derive(Serialize)]
struct FileView {
    file: PathBuf,
    bytes: u64,
    parts: Vec<PartView>,
    /// Bytes of each label; they sum to `bytes`.
    totals: BTreeMap<&'static str, u64>,
    /// What should be behind the end of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacks: Option<PartView>,
}

#[derive(Serialize)]
struct PartView {
    from: u64,
    to: u64,
    label: &'static str,
    content: String,
}

impl PartView {
    fn of(part: &offline::Part) -> Self {
        let (from, to) = (part.bytes.start, part.bytes.end);
        Self { from, to, label: part.label.name(), content: content(&part.label) }
    }
}

impl FileView {
    fn of(file: PathBuf, map: &SegmentMap) -> Self {
        let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
        for part in &map.parts {
            let total = totals.entry(part.label.name()).or_default();
            *total = total.saturating_add(part.bytes.end.saturating_sub(part.bytes.start));
        }
        let parts = map.parts.iter().map(PartView::of).collect();
        Self { file, bytes: map.len, parts, totals, lacks: map.lacks.as_ref().map(PartView::of) }
    }
}

impl Answer for Explanation {
    fn text(&self) -> String {
        let files = self.files.iter().map(|file| {
            let row = |part: &PartView, label: String| {
                let bytes = part.to.saturating_sub(part.from).to_string();
                vec![part.from.to_string(), part.to.to_string(), bytes, label, part.content.clone()]
            };
            let mut rows: Vec<_> = file.parts.iter().map(|part| row(part, part.label.to_owned())).collect();
            rows.extend(file.lacks.iter().map(|part| row(part, "missing".to_owned())));
            let sums: Vec<String> =
                file.totals.iter().map(|(label, bytes)| format!("{label} {bytes}")).collect();
            format!(
                "{}\n{}\n{} = {} bytes, the size of the file",
                file.file.display(),
                table(&["from", "to", "bytes", "label", "content"], &rows),
                sums.join(" + "),
                file.bytes
            )
        });
        files.collect::<Vec<_>>().join("\n\n")
    }
}

/// Explains the segments at the path.
pub(crate) fn run(explain: &Explain, output: &Output) -> Result<(), CliError> {
    let target = find(&explain.path)?;
    let detail = if explain.frames { Detail::EachFrame } else { Detail::Runs };
    let bar = progress(output, target.bytes(), "reading");
    let (mut files, mut ranges) = (Vec::new(), 0);
    for log in &target.logs {
        let verdict = offline::verify_log(&OsStorage, log, detail, &mut |bytes| bar.inc(bytes));
        ranges += verdict.damage.len();
        files.extend(verdict.maps.iter().map(|(segment, _, map)| FileView::of(segment.path.clone(), map)));
    }
    bar.finish_and_clear();
    output.print(&Explanation { files });
    if ranges == 0 { Ok(()) } else { Err(CliError::Damaged { ranges }) }
}
