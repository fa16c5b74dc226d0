//! What can go wrong between two nodes. None of it harms this node: at worst a connection is closed.

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use tidelog_tls::TlsError;
use tidelog_wire::ids::{BootEpoch, ClusterId, Incarnation, NodeId};

/// Why something did not go to, or come from, another node.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address for peers cannot be used.
    #[error("E1301 {address}: cannot listen for peers: {source}: free the port or configure another one")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The peer belongs to another cluster.
    #[error(
        "E1302 the peer at {address} belongs to cluster {theirs}, this node to {ours}: check the addresses of both clusters"
    )]
    ForeignCluster {
        /// Where it is.
        address: SocketAddr,
        /// Our cluster.
        ours: ClusterId,
        /// Its cluster.
        theirs: ClusterId,
    },
    /// The peer claims to be another node than was dialled.
    #[error(
        "E1303 the peer at {address} says it is node {claimed}, expected node {expected}: check the peer addresses of both nodes"
    )]
    WrongNode {
        /// Where it is.
        address: SocketAddr,
        /// The node that was dialled.
        expected: NodeId,
        /// The node it says it is.
        claimed: NodeId,
    },
    /// No version of the peer protocol is spoken by both.
    #[error(
        "E1304 node {node} speaks versions {theirs:?} of the peer protocol, this node {ours:?}: upgrade the older one step by step"
    )]
    Version {
        /// The peer.
        node: NodeId,
        /// First and last version that we speak.
        ours: (u16, u16),
        /// First and last version that it speaks.
        theirs: (u16, u16),
    },
    /// The peer started from an older state of its disk, or is a process that should be gone.
    #[error(
        "E1305 node {node} comes with boot epoch {found}, but {seen} was seen before: it runs on an old copy of its \
         data directory, or an old process still runs: it must not vote, so it is a guest until it has joined anew"
    )]
    StaleBootEpoch {
        /// The peer.
        node: NodeId,
        /// Its boot epoch.
        found: BootEpoch,
        /// The newest one seen.
        seen: BootEpoch,
    },
    /// The peer's data directory was formatted anew.
    #[error(
        "E1306 node {node} comes with incarnation {found}, but {seen} is known: its data directory was formatted \
         again, so it has forgotten what it promised: it is a guest until it has joined (`tidelogd --join`), or bring the \
         old directory back"
    )]
    IncarnationChanged {
        /// The peer.
        node: NodeId,
        /// Its incarnation.
        found: Incarnation,
        /// The one seen before.
        seen: Incarnation,
    },
    /// Two processes claim the same start of the same node.
    #[error(
        "E1319 node {node} comes with boot epoch {boot_epoch}, which another process had: two processes run on copies          of one data directory, or it was set back: stop the one that does not belong there, it must not vote"
    )]
    SecondProcess {
        /// The peer.
        node: NodeId,
        /// The boot epoch that both claim.
        boot_epoch: BootEpoch,
    },
    /// The catalogue does not know the peer.
    #[error(
        "E1307 node {node} has not joined the cluster: it may ask, and takes part in nothing; start it with `tidelogd --join`"
    )]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// The peer was removed from the cluster.
    #[error(
        "E1320 node {node} was removed from the cluster: it takes part in nothing; stop it, or start it with `tidelogd \
         --rejoin` to have it back as a new node"
    )]
    Removed {
        /// The node.
        node: NodeId,
    },
    /// The peer's cluster was made with the same authority, but it is another one.
    #[error(
        "E1321 node {node} belongs to the cluster founded by {theirs}, this node to the one founded by {ours}: one authority \
         made both, so some nodes were bootstrapped anew while others kept their state; decide which cluster to keep, then start \
         each node of the other one with `tidelogd --rejoin`"
    )]
    OtherFounding {
        /// The peer.
        node: NodeId,
        /// Our founding.
        ours: Incarnation,
        /// Its founding.
        theirs: Incarnation,
    },
    /// Somebody else has this node's own number.
    #[error(
        "E1322 the peer at {address} says it is node {node}, which is this node: two processes have one certificate; stop one"
    )]
    OurOwnNode {
        /// Where it is.
        address: SocketAddr,
        /// This node.
        node: NodeId,
    },
    /// The peer takes this node for a guest, or this node the peer.
    #[error("E1323 node {node} is a guest here: it may ask, and fetches nothing: let it join first")]
    Guest {
        /// The node.
        node: NodeId,
    },
    /// A length on the wire exceeds its limit.
    #[error(
        "E1308 node {node} announced {bytes} bytes of {what}, at most {max} are allowed: the two nodes run different releases, or one is damaged"
    )]
    TooLarge {
        /// The peer.
        node: NodeId,
        /// What was announced.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Bytes on the wire are not what the protocol says.
    #[error(
        "E1309 node {node} sent a bad {what}: the two nodes run different releases, or one is damaged; the connection was closed"
    )]
    Malformed {
        /// The peer.
        node: NodeId,
        /// What was expected.
        what: &'static str,
    },
    /// The connection ended.
    #[error(
        "E1310 the connection to {peer} is gone: {source}: it is dialled again; if it stays so, check node and network"
    )]
    Lost {
        /// The other end.
        peer: Remote,
        /// What the QUIC library said.
        source: quinn::ConnectionError,
    },
    /// The peer did not answer in time.
    #[error(
        "E1311 {peer} did not {action} within {limit:?}: check that it runs and that the network lets UDP through"
    )]
    Timeout {
        /// The other end.
        peer: Remote,
        /// What was awaited.
        action: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The peer refused this node, and said why.
    #[error("E1312 {peer} refuses this node: {reason}")]
    Refused {
        /// The other end.
        peer: Remote,
        /// Its words.
        reason: String,
    },
    /// The pair has a connection already.
    #[error("E1313 node {node} is connected already; the other connection is kept")]
    Duplicate {
        /// The peer.
        node: NodeId,
    },
    /// A newer connection took the place of this one.
    #[error("E1314 the connection to node {node} was replaced by a newer one, with boot epoch {boot_epoch}")]
    Replaced {
        /// The peer.
        node: NodeId,
        /// The boot epoch on the newer one.
        boot_epoch: BootEpoch,
    },
    /// This node was named by the catalogue just now, and says so anew.
    #[error("E1324 node {node} has joined the cluster and introduces itself anew")]
    Introduced {
        /// The node.
        node: NodeId,
    },
    /// There is no connection now.
    #[error("E1315 node {node} is not connected: it is being dialled; try again, or ask another node")]
    NotConnected {
        /// The peer.
        node: NodeId,
    },
    /// The peer does not serve what was asked for.
    #[error("E1316 node {node} does not serve this: {reason}: ask again later, or another node")]
    BulkRefused {
        /// The peer.
        node: NodeId,
        /// Its words.
        reason: String,
    },
    /// A bulk transfer stopped before its end.
    #[error(
        "E1317 node {node} stopped at byte {position} of {total}: fetch again from there, or ask another node"
    )]
    BulkEnded {
        /// The peer.
        node: NodeId,
        /// What has arrived.
        position: u64,
        /// What was announced.
        total: u64,
    },
    /// The peer's certificate is not what it should be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// This transport has been stopped.
    #[error("E1318 this node is stopping and talks to no peer any more")]
    Stopped,
}

/// The other end, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A node that proved who it is, or was dialled as such.
    Node(NodeId),
    /// Somebody at an address.
    Address(SocketAddr),
}

impl fmt::Display for Remote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(out, "node {node}"),
            Self::Address(address) => write!(out, "the peer at {address}"),
        }
    }
}

/// Why a connection was closed, as a number for the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    Stopping,
    Refused,
    Protocol,
    Duplicate,
    Replaced,
}

impl CloseCode {
    pub(super) fn number(self) -> quinn::VarInt {
        quinn::VarInt::from_u32(match self {
            Self::Stopping => 1,
            Self::Refused => 2,
            Self::Protocol => 3,
            Self::Duplicate => 4,
            Self::Replaced => 5,
        })
    }
}

impl TransportError {
    /// How the other end is told.
    pub(super) const fn close_code(&self) -> CloseCode {
        match self {
            Self::ForeignCluster { .. }
            | Self::WrongNode { .. }
            | Self::Version { .. }
            | Self::StaleBootEpoch { .. }
            | Self::IncarnationChanged { .. }
            | Self::SecondProcess { .. }
            | Self::UnknownNode { .. }
            | Self::Removed { .. }
            | Self::OtherFounding { .. }
            | Self::OurOwnNode { .. }
            | Self::Tls(_) => CloseCode::Refused,
            Self::Duplicate { .. } => CloseCode::Duplicate,
            Self::Replaced { .. } | Self::Introduced { .. } => CloseCode::Replaced,
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Timeout { .. }
            | Self::Refused { .. }
            | Self::Lost { .. }
            | Self::NotConnected { .. }
            | Self::Guest { .. }
            | Self::BulkRefused { .. }
            | Self::BulkEnded { .. } => CloseCode::Protocol,
            Self::Listen { .. } | Self::Stopped => CloseCode::Stopping,
        }
    }

    /// Whether the other end broke the protocol, rather than a connection or its time being over.
    pub(super) const fn is_violation(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Malformed { .. })
    }

    /// What a closed connection means, in our words.
    pub(super) fn from_closed(peer: Remote, source: quinn::ConnectionError) -> Self {
        if let quinn::ConnectionError::ApplicationClosed(close) = &source {
            let reason = || String::from_utf8_lossy(&close.reason).into_owned();
            let told = |code: CloseCode| close.error_code == code.number();
            if told(CloseCode::Refused) || told(CloseCode::Protocol) {
                return Self::Refused { peer, reason: reason() };
            }
            if let (true, Remote::Node(node)) = (told(CloseCode::Duplicate), peer) {
                return Self::Duplicate { node };
            }
        }
        Self::Lost { peer, source }
    }
}
