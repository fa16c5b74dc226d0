//! What a raft snapshot carries: not data, but the hash and length of a manifest.
//!
//! | at | size | field            | meaning                                             |
//! |---:|-----:|------------------|-----------------------------------------------------|
//! |  0 |    2 | `format`         | 1; every other value is refused                     |
//! |  2 |    2 | `count`          | of members, at most 64                              |
//! |  4 |    4 | reserved         | zero, enforced                                      |
//! |  8 |    8 | `digest`         | xxh3-64 of the manifest's bytes, and its name       |
//! | 16 |    8 | `manifest_bytes` | length of the manifest, checked before it is fetched |
//! | 24 |   16 | members          | replica id, node id; `count` times, rising by replica |
//!
//! Little-endian. Index, term and the numbers of the members stand in raft's own snapshot metadata.
//!
//! An offer is given to a follower only if its members name it: nobody takes a snapshot that it is not in. If the
//! newest checkpoint is older than the follower's membership, a newer one is asked for.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::Snapshot;
use raft::{ProgressState, SnapshotStatus};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{NodeId, RaftIndex, ReplicaId};

use super::io::{Compaction, Effects, ExportRequest, SnapshotOffer};
use super::members::{conf_state, decode_nodes, encode_nodes};
use super::replica::Replica;

const HEAD_BYTES: usize = 24;
const FORMAT: u16 = 1;

/// Hash and length of a manifest, and where the members of its snapshot are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfferData {
    pub(super) digest: u64,
    pub(super) manifest_bytes: u64,
    pub(super) nodes: BTreeMap<ReplicaId, NodeId>,
}

impl OfferData {
    pub(super) fn encode(&self) -> Bytes {
        let count = u16::try_from(self.nodes.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(HEAD_BYTES.saturating_add(self.nodes.len().saturating_mul(16)));
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        bytes.extend_from_slice(&self.manifest_bytes.to_le_bytes());
        encode_nodes(&mut bytes, self.nodes.clone());
        bytes.into()
    }

    /// `None` unless these are the bytes of a format that is known.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first_chunk::<2>()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let (reserved, rest) = rest.split_first_chunk::<4>()?;
        let (digest, rest) = rest.split_first_chunk::<8>()?;
        let (manifest_bytes, rest) = rest.split_first_chunk::<8>()?;
        if u16::from_le_bytes(*format) != FORMAT || *reserved != [0; 4] {
            return None;
        }
        Some(Self {
            digest: u64::from_le_bytes(*digest),
            manifest_bytes: u64::from_le_bytes(*manifest_bytes),
            nodes: decode_nodes(rest, u16::from_le_bytes(*count))?,
        })
    }
}

impl Replica {
    /// A follower that does not catch up after an offer is probed again, which repeats the offer.
    pub(super) fn retry_snapshots(&mut self) {
        let peers: Vec<_> = self.roll.members.keys().map(|id| id.get()).collect();
        for peer in peers {
            let waiting = self
                .raw
                .raft
                .prs()
                .get(peer)
                .is_some_and(|progress| progress.state == ProgressState::Snapshot);
            if !waiting {
                self.in_snapshot.remove(&peer);
                continue;
            }
            let ticks = self.in_snapshot.entry(peer).or_default();
            *ticks = ticks.saturating_add(1);
            if *ticks >= self.ticks.snapshot_retry {
                self.in_snapshot.remove(&peer);
                self.raw.report_snapshot(peer, SnapshotStatus::Failure);
            }
        }
    }

    /// Forgets what no kept checkpoint needs, as far as no offered snapshot needs it.
    pub(super) fn checkpointed(&mut self, compact_to: RaftIndex, effects: &mut Effects) {
        if self.is_switching() {
            return;
        }
        let mut to = compact_to.get().min(self.raw.raft.raft_log.applied);
        if !self.in_snapshot.is_empty()
            && let Some(offer) = &self.raw.store().offer
        {
            to = to.min(offer.get_metadata().index);
        }
        let store = self.raw.mut_store();
        if to <= store.terms.base().index.get() || !store.terms.compact(RaftIndex(to)) {
            return;
        }
        let first_kept = RaftIndex(to.saturating_add(1));
        effects.compactions.push(Compaction { group: self.group, first_kept });
    }

    pub(super) fn offer(&mut self, offer: &SnapshotOffer) {
        self.export_asked = None;
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = offer.snapshot.index.get();
        metadata.term = offer.snapshot.term.get();
        metadata.set_conf_state(conf_state(&offer.members));
        let nodes = offer.members.replicas.iter().copied().collect();
        let data = OfferData { digest: offer.digest, manifest_bytes: offer.manifest_bytes, nodes };
        snapshot.data = data.encode();
        self.raw.mut_store().offer = Some(snapshot);
    }

    pub(super) fn withdraw(&mut self, snapshot: EntryId) {
        let offer = &mut self.raw.mut_store().offer;
        if offer.as_ref().is_some_and(|held| held.get_metadata().index == snapshot.index.get()) {
            *offer = None;
        }
    }

    /// Asks for an export if raft wanted to send a snapshot and there was none that is fit: not too often, but
    /// at once if a newer one is needed than was asked for.
    pub(super) fn ask_export(&mut self, effects: &mut Effects) {
        let Some(at_least) = self.raw.store().take_wants_offer() else { return };
        let retry = self.ticks.snapshot_retry;
        if self.export_asked.is_none_or(|(ticks, asked)| ticks >= retry || asked < at_least) {
            self.export_asked = Some((0, at_least));
            effects.exports.push(ExportRequest { group: self.group, at_least });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_1() -> OfferData {
        let nodes = [(1, 0), (5, 2)].map(|(replica, node)| (ReplicaId(replica), NodeId(node))).into();
        OfferData { digest: 0x0102_0304_0506_0708, manifest_bytes: 4096, nodes }
    }

    #[test]
    fn format_1_offer_bytes_never_change() {
        let bytes = include_bytes!("../../testdata/format-1/snapshot/offer.bin");
        assert_eq!(&format_1().encode()[..], bytes);
        assert_eq!(OfferData::decode(bytes), Some(format_1()));
    }

    #[test]
    fn other_formats_and_lengths_are_refused() {
        let good = format_1().encode();
        for length in 0..good.len() {
            assert_eq!(OfferData::decode(&good[..length]), None);
        }
        for byte in 0..8 {
            let mut bad = good.to_vec();
            bad[byte] ^= 0x80;
            assert_eq!(OfferData::decode(&bad), None, "byte {byte} is checked");
        }
        assert_eq!(OfferData::decode(&[good.as_ref(), &[0]].concat()), None);
    }
}
