//! Who is at the other end of a link, and which of two links between the same nodes is kept: pure rules.
//!
//! **Standing** ([`judge`]). A life that the catalogue names, or that this process has talked to as such, is a member. An
//! older start of it, another process that claims the same start, another formatting, a removed or an unknown node is a
//! guest: it runs on a copy of its disk, or on an empty one, and does not know what it promised. It may ask how to
//! go on; nothing that it says to a raft group is taken.
//!
//! **Choice** ([`admit`]). Both nodes dial, so that either can bring the pair together. Of two connections of one
//! incarnation the newer boot epoch wins; in the same life, the one dialled by the lower node id does, and of two
//! dialled by the same node the later one, since that node would not dial again otherwise. Both ends know all of these
//! facts, so both keep the same connection. Of two incarnations a guest never takes the place of a member.

use tidelog_wire::ids::{Incarnation, NodeId, RaftIndex};

use super::directory::{Directory, KnownLife, Seen};
use super::hello::HelloFrame;
use super::{PeerHello, TransportError};

/// One connection, as far as the rules are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) peer: PeerHello,
    pub(super) dialler: NodeId,
    /// The peer's process.
    pub(super) session: u64,
    /// From where on in the meta group the peer's own catalogue names the peer's incarnation.
    pub(super) named_at: RaftIndex,
    /// Of the peer's cluster, as far as the peer knows.
    pub(super) founding: Option<Incarnation>,
}

impl LinkFacts {
    pub(super) const fn of(theirs: &HelloFrame, dialler: NodeId) -> Self {
        let HelloFrame { hello: peer, session, founding, named_at, .. } = *theirs;
        Self { peer, dialler, session, named_at, founding }
    }

    pub(super) const fn seen(&self) -> Seen {
        let PeerHello { incarnation, boot_epoch, .. } = self.peer;
        Seen { incarnation, boot_epoch, session: self.session }
    }
}

/// Whether the peer is a member; if not, why.
pub(super) fn judge(
    link: &LinkFacts,
    directory: &Directory,
    seen: Option<&Seen>,
) -> Result<(), TransportError> {
    let node = link.peer.node;
    let known = directory.nodes.get(&node).map(|known| known.life);
    match seen {
        Some(seen) if seen.incarnation == link.peer.incarnation => not_older(link, seen)?,
        // Only a catalogue says which of two formattings is the newer one.
        Some(seen) if matches!(known, None | Some(KnownLife::Unbound)) => return Err(changed(link, seen)),
        Some(_) | None => {}
    }
    if directory.index == RaftIndex::ZERO {
        return Ok(());
    }
    let knows_better = link.named_at > directory.index;
    match known {
        Some(KnownLife::Unbound) => Ok(()),
        Some(KnownLife::Bound(known)) if known.incarnation == link.peer.incarnation => {
            not_older(link, &known)
        }
        Some(KnownLife::Removed(known)) if known == link.peer.incarnation => {
            Err(TransportError::Removed { node })
        }
        Some(KnownLife::Bound(_) | KnownLife::Removed(_)) | None if knows_better => Ok(()),
        Some(KnownLife::Bound(known)) => Err(changed(link, &known)),
        Some(KnownLife::Removed(_)) => Err(TransportError::Removed { node }),
        None => Err(TransportError::UnknownNode { node }),
    }
}

fn changed(link: &LinkFacts, known: &Seen) -> TransportError {
    let PeerHello { node, incarnation: found, .. } = link.peer;
    TransportError::IncarnationChanged { node, found, seen: known.incarnation }
}

/// A later start of the life that is known, or that one itself.
fn not_older(link: &LinkFacts, known: &Seen) -> Result<(), TransportError> {
    let PeerHello { node, boot_epoch, .. } = link.peer;
    if boot_epoch < known.boot_epoch {
        return Err(TransportError::StaleBootEpoch { node, found: boot_epoch, seen: known.boot_epoch });
    }
    if boot_epoch == known.boot_epoch && link.session != known.session {
        return Err(TransportError::SecondProcess { node, boot_epoch });
    }
    Ok(())
}

/// Whether `candidate`, a member or not, is to be used in place of `current`, which is a member or not.
pub(super) fn admit(
    (candidate, member): (&LinkFacts, bool),
    current: Option<(&LinkFacts, bool)>,
) -> Result<(), TransportError> {
    let Some((current, current_member)) = current else { return Ok(()) };
    if candidate.peer.incarnation != current.peer.incarnation {
        return if current_member && !member { Err(changed(candidate, &current.seen())) } else { Ok(()) };
    }
    not_older(candidate, &current.seen())?;
    if current.peer.boot_epoch == candidate.peer.boot_epoch && current.dialler < candidate.dialler {
        return Err(TransportError::Duplicate { node: candidate.peer.node });
    }
    Ok(())
}
