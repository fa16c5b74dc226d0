//! Which of two connections between the same two nodes is kept: a pure rule that both ends apply.
//!
//! Both dial, so that either can bring the pair together. With two connections at hand, the newer
//! boot epoch of the peer wins; in the same life, the one dialled by the lower node id does, and of
//! two dialled by the same node the later one, since that node would not dial again otherwise. Both
//! ends know all of these facts, so both keep the same connection.
//!
//! A life that has been seen is remembered while this process runs. An older one, another process
//! that claims the same start, or another formatting of the same node, is refused: that node runs on
//! a copy of its disk, or on an empty one, and does not know what it promised.

use tidelog_wire::ids::{BootEpoch, Incarnation, NodeId};

use super::{PeerHello, TransportError};

/// One connection, as far as the rule is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) peer: PeerHello,
    pub(super) dialler: NodeId,
    /// The peer's process.
    pub(super) session: u64,
}

/// The newest life of a peer that this process has talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) incarnation: Incarnation,
    pub(super) boot_epoch: BootEpoch,
    pub(super) session: u64,
}

impl LinkFacts {
    pub(super) const fn seen(&self) -> Seen {
        let PeerHello { incarnation, boot_epoch, .. } = self.peer;
        Seen { incarnation, boot_epoch, session: self.session }
    }
}

/// Whether `candidate` is to be used, in place of `current` if there is one.
pub(super) fn admit(
    candidate: &LinkFacts,
    current: Option<&LinkFacts>,
    seen: Option<&Seen>,
) -> Result<(), TransportError> {
    let peer = &candidate.peer;
    if let Some(seen) = seen {
        if peer.incarnation != seen.incarnation {
            return Err(TransportError::IncarnationChanged {
                node: peer.node,
                found: peer.incarnation,
                seen: seen.incarnation,
            });
        }
        if peer.boot_epoch < seen.boot_epoch {
            return Err(TransportError::StaleBootEpoch {
                node: peer.node,
                found: peer.boot_epoch,
                seen: seen.boot_epoch,
            });
        }
        if peer.boot_epoch == seen.boot_epoch && candidate.session != seen.session {
            return Err(TransportError::SecondProcess { node: peer.node, boot_epoch: peer.boot_epoch });
        }
    }
    match current {
        Some(current)
            if current.peer.boot_epoch == peer.boot_epoch && current.dialler < candidate.dialler =>
        {
            Err(TransportError::Duplicate { node: peer.node })
        }
        Some(_) | None => Ok(()),
    }
}
