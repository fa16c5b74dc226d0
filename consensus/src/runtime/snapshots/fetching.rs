//! Brings an offered snapshot into staging, from whichever connected node delivers.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_engine::Engine;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset};

use super::{Open, SnapshotDoor, locked};
use crate::core::{FetchSnapshot, Input, Staged};
use crate::snapshot::{Ended, FetchLimits, Fetcher, Next, StagedSnapshot};
use crate::transport::Transport;

/// Pause before the next attempt of a fetch, times the rounds that brought nothing.
const PAUSE: Duration = Duration::from_millis(200);

impl SnapshotDoor {
    /// Whether `offer` is still the one to be fetched.
    fn is_wanted(&self, offer: &FetchSnapshot) -> bool {
        let fetches = locked(&self.fetches);
        fetches.get(&offer.group).is_some_and(|fetch| fetch.wanted.as_ref() == Some(offer))
            && locked(&self.open).is_some()
    }

    /// Fetches an offer, unless a newer one has come meanwhile, and tells the core how it ended.
    pub(super) fn fetch_now(&self, offer: FetchSnapshot) {
        let turn = locked(&self.fetches).get(&offer.group).map(|fetch| Arc::clone(&fetch.turn));
        let Some(turn) = turn else { return };
        let _turn = locked(&turn);
        let result = match self.is_wanted(&offer) {
            true => self.fetch_all(offer),
            false => return,
        };
        let FetchSnapshot { group, snapshot, .. } = offer;
        let staged = match result {
            Ok(Some(staged)) => {
                let StagedSnapshot { fetched_bytes, file_bytes, .. } = staged;
                tracing::info!(%group, %snapshot, fetched_bytes, file_bytes, "a snapshot is staged");
                let reused = file_bytes.saturating_add(offer.manifest_bytes).saturating_sub(fetched_bytes);
                self.metrics.snapshot_bytes_reused.add(reused);
                self.pin(&staged);
                Staged::Ready
            }
            Ok(None) => return,
            Err(reason) => {
                tracing::warn!(%group, %snapshot, "a snapshot was not fetched: {reason}");
                Staged::Failed
            }
        };
        self.inbox.push_input(Input::SnapshotStaged { group, snapshot, result: staged });
    }

    fn pin(&self, staged: &StagedSnapshot) {
        let Some(open) = self.files() else { return };
        let pin = open.engine.pin(staged.reused.clone());
        if let Some(fetch) = locked(&self.fetches).get_mut(&staged.offer.group) {
            fetch.pinned = Some(pin);
        }
    }

    /// Nothing of the group's fetch is needed any more: it was switched to, or never will be.
    pub(super) fn let_go(&self, group: GroupId) {
        if let Some(fetch) = locked(&self.fetches).get_mut(&group) {
            fetch.pinned = None;
            fetch.wanted = None;
        }
    }

    /// Fetches until all is staged; `None` if it is not wanted any more.
    fn fetch_all(&self, offer: FetchSnapshot) -> Result<Option<StagedSnapshot>, String> {
        let Some(Open { engine, transport: Some(transport), .. }) = self.files() else {
            return Ok(None);
        };
        let cluster = engine.identity().cluster;
        let storage = Arc::clone(engine.storage());
        let mut fetcher = Fetcher::new(storage, engine.dir(), cluster, offer, FetchLimits::default())
            .map_err(|error| self.told(&error))?;
        fetcher.distrust(damage_known(&engine, offer.group));
        drop(engine);
        while self.is_wanted(&offer) {
            let connected: Vec<_> = transport.connected().iter().map(|peer| peer.node).collect();
            fetcher.ask_also(&connected);
            match fetcher.next_step().map_err(|error| self.told(&error))? {
                Next::Staged(staged) => return Ok(Some(staged)),
                Next::Ask { from, request, position, attempt } => {
                    self.runtime.block_on(tokio::time::sleep(PAUSE.saturating_mul(attempt)));
                    let how = self.transfer(&mut fetcher, &transport, &offer, (from, request, position))?;
                    fetcher.ended(how).map_err(|error| self.told(&error))?;
                }
            }
        }
        Ok(None)
    }

    /// One transfer, to its end however it ends. It gives its slot back at once if it is not wanted any more.
    fn transfer(
        &self,
        fetcher: &mut Fetcher,
        transport: &Transport,
        offer: &FetchSnapshot,
        (from, request, position): (NodeId, Bytes, u64),
    ) -> Result<Ended, String> {
        let mut reader = match self.runtime.block_on(transport.fetch(from, request, position)) {
            Ok(reader) => reader,
            Err(error) => return Ok(Ended::Broken(error.to_string())),
        };
        while self.is_wanted(offer) {
            match self.runtime.block_on(reader.next()) {
                Ok(Some(bytes)) => {
                    self.metrics.snapshot_bytes_fetched.add(u64::try_from(bytes.len()).unwrap_or(0));
                    fetcher.arrived(&bytes).map_err(|error| self.told(&error))?;
                }
                Ok(None) => return Ok(Ended::Complete),
                Err(error) => return Ok(Ended::Broken(error.to_string())),
            }
        }
        Ok(Ended::Broken("a newer offer has come, or this node stops".to_owned()))
    }
}

/// Ranges of the group's logs that the newest checkpoint knows to be damaged here.
fn damage_known(engine: &Engine, group: GroupId) -> Vec<(LogId, Range<Offset>)> {
    let loaded = engine.load_checkpoint(group).ok().flatten();
    let logs = loaded.into_iter().flat_map(|loaded| loaded.newest.logs);
    logs.flat_map(|log| log.damage.into_iter().map(move |range| (log.log, range))).collect()
}
