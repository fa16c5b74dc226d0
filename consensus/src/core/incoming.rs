//! A snapshot on its way in: offered, brought into staging, switched to.
//!
//! ```text
//! None --offer--> Fetching --Staged::Ready, stepped--> Installing --SnapshotInstalled--> None
//!                  ^   | '------Staged::Failed, or stale------------------------------------^
//!                  '---' an offer of a newer term: its leader does not take the older one
//! ```
//! raft throws its log and members away the moment it is given a snapshot, so it is given none before
//! all of it lies in staging, whole and verified. Until then the offer is kept here, and newer offers
//! of the same snapshot replace it, since only one of the present term is taken.
//!
//! While installing, raft's log begins behind what is applied. Until the switch is reported, nothing
//! but heartbeats of the present term is taken and the clock stands still for this replica: a campaign
//! would ask for entries that are gone, and a new term would write a hard state that the switch, which
//! clears the raft log, would take back.

use raft::eraftpb::{Message, MessageType};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::NodeId;

use super::io::{Effects, FetchSnapshot, ProposeFailure, Staged};
use super::offer::OfferData;
use super::replica::{Replica, failed};
use super::start::entry_id;
use super::status::SnapshotPhase;
use crate::raft_log::InstallMark;

/// How far a snapshot has come.
#[derive(Debug)]
pub(super) enum Incoming {
    /// None under way.
    None,
    /// Being brought into staging; the offer is stepped when it is there.
    Fetching {
        /// Which.
        snapshot: EntryId,
        /// Hash of its manifest.
        digest: u64,
        /// The newest offer of it.
        offer: Box<Message>,
    },
    /// Being switched to.
    Installing {
        /// Which.
        snapshot: EntryId,
    },
}

impl Incoming {
    pub(super) const fn is_installing(&self) -> bool {
        matches!(self, Self::Installing { .. })
    }

    pub(super) const fn phase(&self) -> SnapshotPhase {
        match self {
            Self::None => SnapshotPhase::None,
            Self::Fetching { .. } => SnapshotPhase::Fetching,
            Self::Installing { .. } => SnapshotPhase::Installing,
        }
    }

    /// raft took the snapshot: from here to its mark.
    pub(super) fn install(&mut self, snapshot: EntryId) -> InstallMark {
        let digest = match self {
            Self::Fetching { snapshot: staged, digest, .. } if *staged == snapshot => Some(*digest),
            Self::Fetching { .. } | Self::None | Self::Installing { .. } => None,
        };
        assert!(digest.is_some(), "raft took a snapshot at entry {snapshot} that was not staged");
        *self = Self::Installing { snapshot };
        InstallMark { index: snapshot.index, term: snapshot.term, digest: digest.unwrap_or_default() }
    }
}

impl Replica {
    /// Whether an offer would make raft throw its log away. If not, raft may see it at once.
    pub(super) fn must_stage(&self, message: &Message) -> bool {
        let metadata = message.get_snapshot().get_metadata();
        let log = &self.raw.raft.raft_log;
        message.term >= self.raw.raft.term
            && metadata.index > log.committed
            && !log.match_term(metadata.index, metadata.term)
    }

    /// Takes an offer, and asks for its files unless something is being fetched already.
    pub(super) fn stage(&mut self, from: NodeId, message: Message, effects: &mut Effects) {
        let metadata = message.get_snapshot().get_metadata();
        let offered = entry_id(metadata.index, metadata.term);
        let Some(data) = OfferData::decode(&message.get_snapshot().data) else { return };
        match &mut self.incoming {
            Incoming::Fetching { snapshot, digest, offer }
                if *snapshot == offered && *digest == data.digest =>
            {
                **offer = message;
                return;
            }
            // What is staged of the older one is used for the newer.
            Incoming::Fetching { offer, .. } if message.term <= offer.term => return,
            Incoming::Installing { .. } => return,
            Incoming::None | Incoming::Fetching { .. } => {}
        }
        self.incoming =
            Incoming::Fetching { snapshot: offered, digest: data.digest, offer: Box::new(message) };
        effects.fetches.push(FetchSnapshot {
            group: self.group,
            from,
            snapshot: offered,
            digest: data.digest,
            manifest_bytes: data.manifest_bytes,
        });
    }

    /// The staging of `snapshot` has ended.
    pub(super) fn staged(&mut self, snapshot: EntryId, result: Staged, effects: &mut Effects) {
        let Incoming::Fetching { snapshot: fetching, offer, .. } = &self.incoming else { return };
        if *fetching != snapshot {
            return;
        }
        let offer = match result {
            Staged::Ready => (**offer).clone(),
            Staged::Failed => {
                self.incoming = Incoming::None;
                effects.abandoned.push(self.group);
                return;
            }
        };
        debug_assert!(offer.get_msg_type() == MessageType::MsgSnapshot, "only offers are kept");
        // The log may have gone on, or the term: then this offer is worth nothing, and the leader of
        // today makes its own. What lies in staging is used again.
        if offer.term == self.raw.raft.term && self.must_stage(&offer) {
            self.step(offer);
        }
        if self.raw.raft.raft_log.unstable_snapshot().is_none() {
            self.incoming = Incoming::None;
            effects.abandoned.push(self.group);
        }
    }

    /// The switch to `snapshot` is done.
    pub(super) fn installed(&mut self, snapshot: EntryId, effects: &mut Effects) {
        let Incoming::Installing { snapshot: installing } = &self.incoming else { return };
        if *installing != snapshot {
            return;
        }
        self.incoming = Incoming::None;
        self.release(effects);
        let index = snapshot.index.get();
        self.raw.advance_apply_to(index);
        self.emitted = self.emitted.max(index);
        self.applying.clear();
        self.applying_bytes = 0;
        let unseen = self.tokens.drain_to(index);
        effects
            .replies
            .extend(unseen.into_iter().map(|token| failed(token, ProposeFailure::MayHaveCommitted)));
    }
}
