//! What this node knows of the others: where they are, and whose raft messages it takes.
//!
//! It comes from the catalogue, and is given anew whenever that changes ([`Transport::know`](super::Transport::know)).
//! Beside it stand the configured seeds: nodes to dial even before any catalogue names them.
//!
//! A link is a **member** if the catalogue names the life at its other end, and else a **guest**: it may ask, its raft
//! messages are neither taken nor sent. Two cases need care:
//! - A catalogue that is behind knows neither the nodes that joined nor those whose directory was replaced meanwhile, and
//!   could never learn of them if one of these led. So each hello says from which entry of the meta group on its
//!   speaker's own catalogue names the speaker. If that is beyond what this node has applied, the speaker knows better: an
//!   applied entry is a committed one, whoever says so.
//! - Two clusters may have been made with one authority, and so bear one cluster id. They are told apart by their
//!   **founding**: the incarnation that was entered first into the catalogue. Nodes of two foundings do not connect.
//!
//! Not here: what the rule says of each link (`link`), and who fills this in (the runtime).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tidelog_wire::ids::{BootEpoch, Incarnation, NodeId, RaftIndex};

use super::Shared;
use super::pairing::{Route, keep_connected};

/// What a node knows of its cluster. The default is that of one without a catalogue, which takes everybody who has a
/// certificate for a member: it has no replica that could be misled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The first incarnation that was entered into the catalogue; `None` before.
    pub founding: Option<Incarnation>,
    /// The entry of the meta group that all this is as of; 0 without a catalogue.
    pub index: RaftIndex,
    /// `index`, if the catalogue names this node's own incarnation; else 0.
    pub named_at: RaftIndex,
    /// All nodes that the catalogue knows. An entry for this node itself is ignored.
    pub nodes: BTreeMap<NodeId, KnownNode>,
}

/// What is known of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// Where it is dialled; `None` if only the configuration says so, or nobody.
    pub address: Option<SocketAddr>,
    /// In which life it is a member.
    pub life: KnownLife,
}

/// The life of a node that the catalogue names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownLife {
    /// A node of the beginning that has not registered yet: whoever has its certificate.
    Unbound,
    /// This one, and later starts of the same directory.
    Bound(Seen),
    /// It was removed, with this incarnation as the last.
    Removed(Incarnation),
}

/// A start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The formatting of its data directory.
    pub incarnation: Incarnation,
    /// The start.
    pub boot_epoch: BootEpoch,
    /// The process: tells two apart that claim one start.
    pub session: u64,
}

impl Shared {
    /// Takes over what is known: peers appear, move and go, and every link is judged anew.
    pub(super) fn know(self: &Arc<Self>, directory: Directory) {
        let nodes: BTreeSet<_> = self.seeds.keys().chain(directory.nodes.keys()).copied().collect();
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = directory;
        for node in nodes.iter().copied().filter(|node| *node != self.hello.node) {
            let Some(peer) = self.peer_or_guest(node) else { continue };
            peer.set_route(self.route(node));
            if peer.begins_dialling() {
                self.runtime.spawn(keep_connected(Arc::clone(self), peer));
            }
        }
        let peers: Vec<_> = self.peers().values().cloned().collect();
        for peer in peers {
            if !nodes.contains(&peer.node()) {
                peer.set_route(Route::Wait);
                self.forget_guest(&peer);
            }
            self.runtime.spawn(peer.judge_again(Arc::clone(self)));
        }
    }
}
