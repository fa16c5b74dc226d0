//! `tidelog cluster recover --accept-loss`: the way out for a node alone whose raft log cannot be read.
//!
//! What that gives up is said first, and has to be confirmed by typing it. Everything else is refused: where other nodes count, they
//! have what this one lost, and no command is needed.
//!
//! Not here: what is done (`tidelog_consensus::recover`).

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tidelog_consensus::recover::{self, Loss};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, TimestampMs};

use super::arguments::Recover;
use crate::error::CliError;
use crate::files;
use crate::output::{Answer, Output};

/// What has to be typed.
const SENTENCE: &str = "accept the loss";

#[derive(Serialize)]
struct Recovered {
    node: NodeId,
    data_dir: PathBuf,
    /// Whether it was done, or only looked at.
    accepted: bool,
    /// The last entry of each group that is kept.
    kept: Vec<Kept>,
    /// Logs that no checkpoint knows: of channels created since.
    unknown_logs: Vec<String>,
}

#[derive(Serialize)]
struct Kept {
    group: GroupId,
    index: RaftIndex,
}

impl Recovered {
    fn of(data_dir: PathBuf, loss: &Loss, accepted: bool) -> Self {
        let kept = loss.kept.iter().map(|(group, entry)| Kept { group: *group, index: entry.index });
        Self {
            node: loss.node,
            data_dir,
            accepted,
            kept: kept.collect(),
            unknown_logs: loss.unknown_logs.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Answer for Recovered {
    fn text(&self) -> String {
        let mut lines = vec![format!("node {} in {}", self.node, self.data_dir.display())];
        lines.extend(self.kept.iter().map(|kept| {
            format!("group {}: kept up to entry {}; every later one is given up", kept.group, kept.index)
        }));
        if !self.unknown_logs.is_empty() {
            lines.push(format!(
                "logs of channels that were created since, given up whole: {}",
                self.unknown_logs.join(", ")
            ));
        }
        lines.push(if self.accepted {
            "done: raft log and votes are in quarantine; start the node".to_owned()
        } else {
            "nothing was changed: repeat it with --accept-loss to go on without what is given up".to_owned()
        });
        lines.join("\n")
    }
}

/// Says what would be given up; gives it up if that is wanted and confirmed.
pub(super) fn run(recover: &Recover, output: &Output) -> Result<(), CliError> {
    let dir = files::absolute(&recover.data_dir)?;
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let now = || TimestampMs(Timestamp::now().as_millisecond());
    let loss = recover::examine(&storage, &dir, now()).map_err(Box::new)?;
    let found = Recovered::of(dir.clone(), &loss, false);
    if !recover.accept_loss {
        output.print(&found);
        return Ok(());
    }
    if !recover.yes {
        confirm(&found)?;
    }
    let loss = recover::accept_loss(&storage, &dir, now()).map_err(Box::new)?;
    output.print(&Recovered::of(dir, &loss, true));
    Ok(())
}

/// Shows what is given up, and wants it typed.
fn confirm(found: &Recovered) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::NotConfirmed { sentence: SENTENCE });
    }
    eprint!("{}\ntype `{SENTENCE}` to go on: ", found.text());
    let mut typed = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().read_line(&mut typed));
    read.map_err(|source| CliError::Runtime { source })?;
    if typed.trim() == SENTENCE { Ok(()) } else { Err(CliError::NotConfirmed { sentence: SENTENCE }) }
}
