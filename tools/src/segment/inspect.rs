//! `segment inspect`: what lies at a path.

use std::path::PathBuf;

use indicatif::ProgressBar;
use serde::Serialize;
use tidelog_engine::offline::{self, Known, LogFiles, Target};
use tidelog_engine::os::OsStorage;

use super::arguments::Paths;
use super::view::log_name;
use super::{find, progress};
use crate::error::CliError;
use crate::output::{Answer, Output, table};
use crate::values::rfc3339;

#[derive(Serialize)]
struct Inspection {
    paths: Vec<PathView>,
}

#[derive(Serialize)]
struct PathView {
    path: PathBuf,
    data_dir: Option<PathBuf>,
    cluster_id: Option<String>,
    node: Option<u64>,
    boot_epoch: Option<u64>,
    checkpoints: Vec<CheckpointView>,
    logs: Vec<LogView>,
}

#[derive(Serialize)]
struct CheckpointView {
    group: u64,
    index: u64,
    term: u64,
    logs: usize,
}

#[derive(Serialize)]
struct LogView {
    log: String,
    dir: PathBuf,
    /// `start`, `end` and chain in the checkpoint.
    checkpoint: Option<(u64, u64, String)>,
    segments: Vec<SegmentView>,
}

#[derive(Serialize)]
struct SegmentView {
    file: PathBuf,
    bytes: u64,
    base: u64,
    end: u64,
    state: &'static str,
    /// What the system said, if it refused some of what was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    chain_start: Option<String>,
    chain_end: Option<String>,
    max_timestamp: Option<String>,
}

impl Answer for Inspection {
    fn text(&self) -> String {
        self.paths.iter().map(PathView::text).collect::<Vec<_>>().join("\n\n")
    }
}

impl PathView {
    fn text(&self) -> String {
        let mut lines = vec![self.path.display().to_string()];
        if let (Some(cluster), Some(node), Some(epoch)) = (&self.cluster_id, self.node, self.boot_epoch) {
            lines.push(format!("node {node} of cluster {cluster}, boot epoch {epoch}"));
        }
        for checkpoint in &self.checkpoints {
            let CheckpointView { group, index, term, logs } = checkpoint;
            lines.push(format!("group {group}: checkpoint at entry {index} of term {term}, {logs} logs"));
        }
        for log in &self.logs {
            let known = log.checkpoint.as_ref().map_or_else(String::new, |(start, end, chain)| {
                format!(": in the checkpoint offsets {start}..{end}, chain {chain}")
            });
            lines.push(format!("log {}{known}", log.log));
            let rows: Vec<Vec<String>> = log.segments.iter().map(SegmentView::row).collect();
            lines.push(table(&["segment", "bytes", "base", "end", "state", "chain_end", "newest"], &rows));
        }
        lines.join("\n")
    }
}

impl SegmentView {
    fn row(&self) -> Vec<String> {
        let name = self.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        vec![
            name,
            self.bytes.to_string(),
            self.base.to_string(),
            self.end.to_string(),
            self.unreadable.as_ref().map_or_else(
                || self.state.to_owned(),
                |error| format!("{}, cannot be read: {error}", self.state),
            ),
            self.chain_end.clone().unwrap_or_else(|| "-".to_owned()),
            self.max_timestamp.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// Shows what lies at the paths.
pub(crate) fn run(paths: &Paths, output: &Output) -> Result<(), CliError> {
    let paths = paths.paths.iter().map(|path| find(path)).collect::<Result<Vec<_>, CliError>>()?;
    let bar = progress(output, paths.iter().map(Target::bytes).sum(), "reading");
    let paths = paths.iter().map(|target| view(target, &bar)).collect::<Result<Vec<_>, CliError>>()?;
    bar.finish_and_clear();
    output.print(&Inspection { paths });
    Ok(())
}

fn view(target: &Target, bar: &ProgressBar) -> Result<PathView, CliError> {
    let checkpoints = target.checkpoints.iter().map(|checkpoint| CheckpointView {
        group: checkpoint.group.get(),
        index: checkpoint.applied.index.get(),
        term: checkpoint.applied.term.get(),
        logs: checkpoint.logs.len(),
    });
    Ok(PathView {
        path: target.path.clone(),
        data_dir: target.data_dir.clone(),
        cluster_id: target.identity.map(|identity| identity.cluster.to_string()),
        node: target.identity.map(|identity| identity.node.get()),
        boot_epoch: target.identity.map(|identity| identity.boot_epoch.get()),
        checkpoints: checkpoints.collect(),
        logs: target.logs.iter().map(|log| log_view(log, bar)).collect::<Result<Vec<_>, CliError>>()?,
    })
}

fn log_view(files: &LogFiles, bar: &ProgressBar) -> Result<LogView, CliError> {
    let checkpoint = match &files.known {
        Known::Checkpoint { state, .. } => {
            Some((state.start.get(), state.end.get(), state.chain.to_string()))
        }
        Known::Nothing | Known::Unnamed => None,
    };
    let mut segments = Vec::new();
    for segment in files.segments.iter().filter(|segment| files.is_asked(segment.base)) {
        let outline = offline::outline(&OsStorage, files, segment)?;
        bar.inc(segment.len);
        let state = match (outline.header, outline.footer) {
            (None, _) => "bad header",
            (Some(_), Some(_)) => "sealed",
            (Some(_), None) => "not sealed",
        };
        segments.push(SegmentView {
            file: segment.path.clone(),
            bytes: segment.len,
            base: segment.base.get(),
            end: outline.end.get(),
            state,
            unreadable: outline.refused,
            chain_start: outline.header.map(|header| header.chain_start.to_string()),
            chain_end: outline.chain_end.map(|chain| chain.to_string()),
            max_timestamp: outline.footer.map(|footer| rfc3339(footer.max_timestamp)),
        });
    }
    Ok(LogView { log: log_name(files.log, &files.dir), dir: files.dir.clone(), checkpoint, segments })
}
