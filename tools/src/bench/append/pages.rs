//! What the nodes count about themselves meanwhile, read from their metrics pages.
//!
//! While load runs, the pages are looked at many times a second: a stretch between two looks in which a checkpoint ran
//! or ended on any node counts as during a checkpoint. That is never too short, and too long by less than two looks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tidelog_client::ProfileNode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Most bytes of a page that are read.
const PAGE_BYTES_MAX: u64 = 8 << 20;

const SYNCS: &str = "tidelog_fsync_seconds_count";
const CHECKPOINTS: &str = "tidelog_checkpoint_seconds_count";
const CHECKPOINTING: &str = "tidelog_checkpoints_running";
const NAMES: [&str; 3] = [SYNCS, CHECKPOINTS, CHECKPOINTING];

/// The counts of one page.
type Counts = BTreeMap<&'static str, u64>;

/// What was seen in a run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Syncs of raft logs, all nodes together.
    pub(super) syncs: u64,
    /// Checkpoints of groups, all nodes together.
    pub(super) checkpoints: u64,
    /// When checkpoints were written, rising.
    pub(super) during: Vec<Range<Instant>>,
}

/// Gives the stretches in which checkpoints ran.
type Looking = JoinHandle<Vec<Range<Instant>>>;

/// Looks at the pages until it is finished.
pub(super) struct Watch {
    before: Vec<Option<Counts>>,
    looking: Option<(oneshot::Sender<()>, Looking)>,
}

impl Watch {
    /// Begins; with `often`, many times a second.
    pub(super) async fn start(nodes: &[ProfileNode], often: bool) -> Self {
        let before = look(nodes).await;
        let looking = often.then(|| {
            let (stop, stopped) = oneshot::channel();
            (stop, tokio::spawn(watch(nodes.to_vec(), stopped)))
        });
        Self { before, looking }
    }

    /// Ends, and tells what was seen.
    pub(super) async fn finish(&mut self, nodes: &[ProfileNode]) -> Seen {
        let mut seen = Seen::default();
        if let Some((stop, looking)) = self.looking.take() {
            drop(stop);
            seen.during = looking.await.unwrap_or_default();
        }
        for (now, before) in look(nodes).await.iter().zip(&self.before) {
            seen.syncs += rise(now.as_ref(), before.as_ref(), SYNCS);
            seen.checkpoints += rise(now.as_ref(), before.as_ref(), CHECKPOINTS);
        }
        seen
    }
}

fn rise(now: Option<&Counts>, before: Option<&Counts>, name: &str) -> u64 {
    let count = |counts: Option<&Counts>| counts.and_then(|counts| counts.get(name)).copied().unwrap_or(0);
    count(now).saturating_sub(count(before))
}

async fn watch(nodes: Vec<ProfileNode>, mut stopped: oneshot::Receiver<()>) -> Vec<Range<Instant>> {
    let mut during: Vec<Range<Instant>> = Vec::new();
    let (mut since, mut before) = (Instant::now(), look(&nodes).await);
    loop {
        if tokio::time::timeout(LOOK_EVERY, &mut stopped).await.is_ok() {
            return during;
        }
        let (at, now) = (Instant::now(), look(&nodes).await);
        let busy = now.iter().zip(&before).any(|(now, before)| {
            let runs = |counts: &Option<Counts>| {
                counts.as_ref().and_then(|counts| counts.get(CHECKPOINTING)).is_some_and(|runs| *runs > 0)
            };
            rise(now.as_ref(), before.as_ref(), CHECKPOINTS) > 0 || runs(now) || runs(before)
        });
        if busy {
            match during.last_mut() {
                Some(last) if last.end >= since => last.end = at,
                Some(_) | None => during.push(since..at),
            }
        }
        (since, before) = (at, now);
    }
}

/// The counts of every node now; none of one that does not answer.
async fn look(nodes: &[ProfileNode]) -> Vec<Option<Counts>> {
    let mut counts = Vec::new();
    for node in nodes {
        let asked = tokio::time::timeout(ANSWER_MAX, page(&node.admin)).await;
        counts.push(asked.ok().and_then(Result::ok).map(|page| read(&page)));
    }
    counts
}

async fn page(admin: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn read(page: &str) -> Counts {
    let mut counts = Counts::new();
    for line in page.lines() {
        let Some((name, number)) = line.split_once(' ') else { continue };
        if let (Some(name), Ok(number)) = (NAMES.iter().find(|known| **known == name), number.parse()) {
            counts.insert(*name, number);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_a_page_and_what_did_not_answer_counts_nothing() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP tidelog_fsync_seconds x\ntidelog_fsync_seconds_count 31\n\
            tidelog_checkpoint_seconds_count many\ntidelog_other 7\n";
        let counts = read(page);
        assert_eq!(counts, [(SYNCS, 31)].into());
        assert_eq!(rise(Some(&counts), None, SYNCS), 31);
        assert_eq!(rise(None, Some(&counts), SYNCS), 0);
    }
}
