//! The first thing that either end of a connection says.

use tidelog_wire::ids::{BootEpoch, ClusterId, Incarnation, NodeId, RaftIndex};

/// Versions of the peer protocol that this build speaks, first and last.
pub const VERSIONS: (u16, u16) = (1, 1);

pub(super) const HELLO_LEN: usize = 96;
const MAGIC: [u8; 8] = *b"tidelgPR";

/// Who is at one end of a connection: which node, of which cluster, in which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The formatting of its data directory.
    pub incarnation: Incarnation,
    /// Its start.
    pub boot_epoch: BootEpoch,
}

/// The bytes of a hello, both of the dialling end and of the answer: 96, little-endian.
///
/// | at | size | field         | meaning                                                            |
/// |---:|-----:|---------------|--------------------------------------------------------------------|
/// |  0 |    8 | `magic`       | `tidelgPR`                                                         |
/// |  8 |    2 | `version_min` | oldest version spoken; in the answer the version chosen            |
/// | 10 |    2 | `version_max` | newest version spoken; in the answer the version chosen            |
/// | 12 |    4 | reserved      | zero, enforced                                                     |
/// | 16 |   16 | `cluster`     | cluster id                                                         |
/// | 32 |   16 | `incarnation` | of the data directory                                              |
/// | 48 |    8 | `node`        | node id; the certificate must be of the same                       |
/// | 56 |    8 | `boot_epoch`  | of the process                                                     |
/// | 64 |    8 | `session`     | random, drawn by the process: tells two apart that claim one start |
/// | 72 |   16 | `founding`    | first incarnation in the speaker's catalogue; 0 if it has none     |
/// | 88 |    8 | `named_at`    | entry of the meta group as of which the speaker's catalogue names its own incarnation; 0 if it does not |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HelloFrame {
    pub(super) versions: (u16, u16),
    pub(super) hello: PeerHello,
    pub(super) session: u64,
    pub(super) founding: Option<Incarnation>,
    pub(super) named_at: RaftIndex,
}

impl HelloFrame {
    pub(super) fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        let all = MAGIC
            .into_iter()
            .chain(self.versions.0.to_le_bytes())
            .chain(self.versions.1.to_le_bytes())
            .chain([0; 4])
            .chain(self.hello.cluster.0.to_le_bytes())
            .chain(self.hello.incarnation.0.to_le_bytes())
            .chain(self.hello.node.get().to_le_bytes())
            .chain(self.hello.boot_epoch.get().to_le_bytes())
            .chain(self.session.to_le_bytes())
            .chain(self.founding.map_or(0, |founding| founding.0).to_le_bytes())
            .chain(self.named_at.get().to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }

    /// `None` if the bytes are no hello. Only the versions of a hello never change their place.
    pub(super) fn decode(bytes: &[u8; HELLO_LEN]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (version_min, rest) = rest.split_first_chunk()?;
        let (version_max, rest) = rest.split_first_chunk()?;
        let (reserved, rest) = rest.split_first_chunk::<4>()?;
        let (cluster, rest) = rest.split_first_chunk()?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (node, rest) = rest.split_first_chunk()?;
        let (boot_epoch, rest) = rest.split_first_chunk()?;
        let (session, rest) = rest.split_first_chunk()?;
        let (founding, rest) = rest.split_first_chunk()?;
        let (named_at, _) = rest.split_first_chunk()?;
        let versions = (u16::from_le_bytes(*version_min), u16::from_le_bytes(*version_max));
        if *magic != MAGIC || *reserved != [0; 4] || versions.0 > versions.1 {
            return None;
        }
        let hello = PeerHello {
            cluster: ClusterId(u128::from_le_bytes(*cluster)),
            incarnation: Incarnation(u128::from_le_bytes(*incarnation)),
            node: NodeId(u64::from_le_bytes(*node)),
            boot_epoch: BootEpoch(u64::from_le_bytes(*boot_epoch)),
        };
        let founding = Some(Incarnation(u128::from_le_bytes(*founding))).filter(|founding| founding.0 != 0);
        let named_at = RaftIndex(u64::from_le_bytes(*named_at));
        Some(Self { versions, hello, session: u64::from_le_bytes(*session), founding, named_at })
    }
}

/// The newest version that both speak.
pub(super) fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let newest = ours.1.min(theirs.1);
    (newest >= ours.0 && newest >= theirs.0).then_some(newest)
}
