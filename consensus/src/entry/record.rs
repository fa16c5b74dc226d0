//! Who and where a node is, as it says itself.

use tidelog_wire::ids::{BootEpoch, Incarnation, NodeId};

use super::{FieldReader, FieldWriter, MalformedField, TEXT_BYTES_MAX};

/// Who and where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The node.
    pub node: NodeId,
    /// The formatting of its data directory.
    pub incarnation: Incarnation,
    /// Its start; a record with a lower one than is known is refused.
    pub boot_epoch: BootEpoch,
    /// Drawn at random by the process: tells it from another that claims the same start.
    pub session: u64,
    /// Address of the native protocol, `host:port`.
    pub native: String,
    /// Address of the Kafka protocol, if served.
    pub kafka: Option<String>,
    /// Address of admin HTTP.
    pub admin: String,
    /// Address for other nodes.
    pub peer: String,
    /// Release it runs.
    pub version: String,
    /// The newest rules of apply that this release knows, see [`crate::apply::APPLY_VERSION`].
    pub apply_version_max: u16,
}

impl NodeRecord {
    /// Writes the fields of kind 16; see [`encode`](super::encode).
    pub(crate) fn write(&self, to: &mut FieldWriter) {
        to.u64(self.node.get()).u128(self.incarnation.0).u64(self.boot_epoch.get()).u64(self.session);
        to.text(&self.native, TEXT_BYTES_MAX);
        to.optional(self.kafka.as_ref(), |to, kafka| {
            to.text(kafka, TEXT_BYTES_MAX);
        });
        to.text(&self.admin, TEXT_BYTES_MAX)
            .text(&self.peer, TEXT_BYTES_MAX)
            .text(&self.version, TEXT_BYTES_MAX)
            .u16(self.apply_version_max);
    }

    /// Reads the fields of kind 16; see [`encode`](super::encode).
    pub(crate) fn read(from: &mut FieldReader<'_>) -> Result<Self, MalformedField> {
        Ok(Self {
            node: NodeId(from.u64("node")?),
            incarnation: Incarnation(from.u128("incarnation")?),
            boot_epoch: BootEpoch(from.u64("boot_epoch")?),
            session: from.u64("session")?,
            native: from.text("native", TEXT_BYTES_MAX)?,
            kafka: from.optional("kafka", |from| from.text("kafka", TEXT_BYTES_MAX))?,
            admin: from.text("admin", TEXT_BYTES_MAX)?,
            peer: from.text("peer", TEXT_BYTES_MAX)?,
            version: from.text("version", TEXT_BYTES_MAX)?,
            apply_version_max: from.u16("apply_version_max")?,
        })
    }
}
