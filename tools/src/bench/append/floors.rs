//! The floors: what no acknowledged append can be quicker than.
//!
//! | floor | what is done |
//! |---|---|
//! | sync | the bytes of the batch written to a prefilled file on the same file system, and synced |
//! | client echo | 1 KiB sent to the leader and back, on the connection and the stream that batches take |
//! | peer echo | 1 KiB sent by the leader to a follower and back, on the connection and the stream that appends take, as the leader measures it |

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tidelog_client::Client;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::floor::SyncFloor;
use tidelog_wire::ids::NodeId;
use tidelog_wire::limits::KIB;
use tokio::time::Instant;

use super::load::Once;
use super::report::{histogram, note};
use crate::error::CliError;

/// Samples of each floor that do not count.
const WARM_UP: u32 = 50;

/// What measures the floors, and what they were.
pub(super) struct Floors {
    disk: SyncFloor,
    client: Client,
    leader: NodeId,
    /// Another node, if there is one.
    peer: Option<NodeId>,
    batch: Bytes,
    echo: Bytes,
    /// Every second round goes backwards, so that none always follows the same one.
    backwards: bool,
    pub(super) sync: Histogram<u64>,
    pub(super) client_echo: Histogram<u64>,
    pub(super) peer_echo: Histogram<u64>,
}

impl Floors {
    /// Makes the file at `path`; `batch` is what it writes.
    pub(super) fn prepare(
        path: &Path,
        client: Client,
        (leader, peer): (NodeId, Option<NodeId>),
        batch: Bytes,
    ) -> Result<Self, CliError> {
        let failed =
            |source| CliError::File { path: path.to_owned(), action: "prefill it with zeros", source };
        Ok(Self {
            disk: SyncFloor::prepare(&OsStorage, path).map_err(failed)?,
            client,
            leader,
            peer,
            batch,
            echo: Bytes::from(vec![7; KIB]),
            backwards: false,
            sync: histogram()?,
            client_echo: histogram()?,
            peer_echo: histogram()?,
        })
    }

    pub(super) async fn warm_up(&mut self) -> Result<(), CliError> {
        for _ in 0..WARM_UP {
            self.sample().await?;
        }
        for histogram in [&mut self.sync, &mut self.client_echo, &mut self.peer_echo] {
            histogram.reset();
        }
        Ok(())
    }

    /// Each once.
    pub(super) async fn sample(&mut self) -> Result<(), CliError> {
        self.sync()?;
        self.client_echo().await?;
        self.peer_echo().await
    }

    /// Each once, and `append` in their row, with a pause after each.
    pub(super) async fn sample_around(&mut self, pause: Duration, append: Once<'_>) -> Result<(), CliError> {
        self.backwards = !self.backwards;
        let mut append = Some(append);
        for turn in 0..4 {
            match if self.backwards { 3 - turn } else { turn } {
                0 => self.sync()?,
                1 => self.client_echo().await?,
                2 => self.peer_echo().await?,
                _ => {
                    if let Some(append) = append.take() {
                        append.append().await?;
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CliError> {
        let begun = Instant::now();
        let synced = self.disk.write_and_sync(&self.batch);
        let took = begun.elapsed();
        let path = std::path::PathBuf::from("sync-floor");
        synced.map_err(|source| CliError::File { path, action: "write and sync it", source })?;
        note(&mut self.sync, took);
        Ok(())
    }

    async fn client_echo(&mut self) -> Result<(), CliError> {
        let begun = Instant::now();
        self.client.echo(self.leader, None, self.echo.clone()).await?;
        note(&mut self.client_echo, begun.elapsed());
        Ok(())
    }

    async fn peer_echo(&mut self) -> Result<(), CliError> {
        let Some(peer) = self.peer else { return Ok(()) };
        let ns = self.client.echo(self.leader, Some(peer), self.echo.clone()).await?;
        note(&mut self.peer_echo, Duration::from_nanos(ns.unwrap_or_default()));
        Ok(())
    }
}
