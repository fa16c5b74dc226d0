//! From a data directory: batches as they are, with the chain that each must lead to.
//!
//! A thread reads, since reading blocks; a few batches wait between it and the sender. The directory's lock is held, so the
//! source stands still. What is damaged in it ends the import: nothing may be missing in the middle of a log.
//!
//! A batch of which it is unknown whether it was appended is looked for before it is sent again: it is there if the log ends
//! behind it with the right chain.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidelog_client::ClientError;
use tidelog_engine::lock;
use tidelog_engine::offline::{self, Dumped, LogFiles};
use tidelog_engine::os::OsStorage;
use tidelog_engine::segment::frame::chain_after;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{Chain, Offset};
use tokio::sync::mpsc;

use super::{Imported, Of, Target};
use crate::error::CliError;
use crate::{files, progress};

/// Batches that were read and not yet sent.
const WAITING_MAX: usize = 16;
/// How often a batch of unknown fate is looked for and sent again.
const TRIES_MAX: u32 = 10;

/// A batch of the source, and what the channel must be after it.
#[derive(Clone, Debug)]
struct Step {
    batch: Bytes,
    base: Offset,
    end: Offset,
    chain: Chain,
}

/// Imports one log of a data directory.
pub(super) async fn import(target: &Target, dir: &Path, log: Option<&str>) -> Result<Imported, CliError> {
    let dir = files::absolute(dir)?;
    let _held = lock::take(&OsStorage, &dir).map_err(|error| source(&dir, error.to_string()))?;
    let files = choose(offline::find(&OsStorage, &dir)?.logs, &dir, log)?;
    let bytes = files.segments.iter().map(|segment| segment.len).sum();
    let bar = progress::bytes(bytes, "importing");
    let resumed_at = target.settled_end().await?;
    let (steps, mut read) = mpsc::channel(WAITING_MAX);
    let reading = tokio::task::spawn_blocking(move || read_all(&dir, &files, &steps));
    let (mut chain, mut end) = (Chain(0), Offset::ZERO);
    let mut sent = 0;
    while let Some(step) = read.recv().await {
        bar.inc(u64::try_from(step.batch.len()).unwrap_or(0));
        (chain, end) = (step.chain, step.end);
        if step.end > resumed_at {
            if step.base < resumed_at {
                let why = format!("it ends inside of the batch {}..{} of the source", step.base, step.end);
                return Err(CliError::NotTheSource { log: target.log, offset: resumed_at, why });
            }
            sent += step.end.get() - step.base.get();
            append(target, &step).await?;
        } else if step.end == resumed_at {
            target.check_prefix(&step).await?;
        }
    }
    reading.await.map_err(|error| CliError::Runtime { source: std::io::Error::other(error) })??;
    if end < resumed_at {
        let why = format!("it holds {resumed_at} records, and the source {end}");
        return Err(CliError::NotTheSource { log: target.log, offset: end, why });
    }
    let compared = target.prove(end, chain, Of::All).await?;
    bar.finish_and_clear();
    Ok(Imported {
        channel: target.channel.clone(),
        log: target.log.to_string(),
        resumed_at: resumed_at.get(),
        appended: sent,
        records: end.get(),
        chain: Some(crate::status::view::shown(chain)),
        compared,
        proof: "chain",
    })
}

impl Target {
    /// What is there already must be the source's beginning.
    async fn check_prefix(&self, step: &Step) -> Result<(), CliError> {
        self.prove(step.end, step.chain, Of::Leader).await.map(|_| ())
    }
}

/// Appends one batch, and makes sure that it stands where it must.
async fn append(target: &Target, step: &Step) -> Result<(), CliError> {
    for _ in 0..TRIES_MAX {
        match target.client.append(&target.channel, target.log, step.batch.clone()).await {
            Ok(appended) if appended.base_offset == step.base && appended.chain == step.chain => {
                return Ok(());
            }
            Ok(appended) => {
                let why = format!(
                    "the batch of offset {} came to stand at {}: somebody else writes to the partition",
                    step.base, appended.base_offset
                );
                return Err(CliError::NotTheSource { log: target.log, offset: step.base, why });
            }
            Err(error) if !error.may_have_committed() && !matches!(error, ClientError::Timeout { .. }) => {
                return Err(error.into());
            }
            Err(_) => {}
        }
        match target.settled_end().await? {
            end if end == step.end => return target.check_prefix(step).await,
            end if end == step.base => {}
            end => {
                let why = format!("it ends at {end}, and {} or {} was expected", step.base, step.end);
                return Err(CliError::NotTheSource { log: target.log, offset: end, why });
            }
        }
    }
    Err(CliError::Stalled { log: target.log, offset: step.base, end: step.end })
}

/// The log that is meant.
fn choose(mut logs: Vec<LogFiles>, dir: &Path, wanted: Option<&str>) -> Result<LogFiles, CliError> {
    let name = |files: &LogFiles| files.log.map(|log| log.to_string()).unwrap_or_default();
    let names = logs.iter().map(name).collect::<Vec<_>>().join(", ");
    match wanted {
        Some(wanted) => {
            let found = logs.into_iter().find(|files| name(files) == wanted);
            found.ok_or_else(|| source(dir, format!("there is no log {wanted}; there are: {names}")))
        }
        None if logs.len() == 1 => Ok(logs.remove(0)),
        None if logs.is_empty() => Err(source(dir, "there is no log in it".to_owned())),
        None => Err(source(dir, format!("it holds several logs, name one with --log: {names}"))),
    }
}

fn source(dir: &Path, why: String) -> CliError {
    CliError::Source { path: PathBuf::from(dir), why }
}

/// Hands out every batch with its place; offsets begin at 0 whatever the source was trimmed to.
fn read_all(dir: &Path, files: &LogFiles, steps: &mpsc::Sender<Step>) -> Result<(), CliError> {
    let (mut chain, mut next) = (Chain(0), Offset::ZERO);
    let mut failed = None;
    let mut take = |dumped: Dumped<'_>| {
        let bytes = match dumped {
            Dumped::Batch { bytes, .. } => bytes,
            Dumped::Damage(finding) => {
                let place = finding.path.display();
                failed = Some(source(dir, format!("{place} is damaged: {}; mend it first", finding.why)));
                return ControlFlow::Break(());
            }
        };
        let batch = match Batch::parse(bytes, BatchLimits::CAP) {
            Ok(batch) => batch,
            Err(error) => {
                failed = Some(source(dir, error.to_string()));
                return ControlFlow::Break(());
            }
        };
        let base = next;
        next = base.plus(u64::from(batch.count()));
        chain = chain_after(chain, base, &[batch.chain_input()]);
        let step = Step { batch: batch.bytes().clone(), base, end: next, chain };
        match steps.blocking_send(step) {
            Ok(()) => ControlFlow::Continue(()),
            // The sender has ended, and says why.
            Err(_) => ControlFlow::Break(()),
        }
    };
    let wanted = Offset::ZERO..Offset(u64::MAX);
    offline::dump(&OsStorage, files, &wanted, &mut |_| {}, &mut take)?;
    failed.map_or(Ok(()), Err)
}
