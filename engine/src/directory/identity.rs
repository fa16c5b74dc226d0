//! Who a data directory belongs to, and how often it was started: `DATA/identity/a` and `b`.
//!
//! Both files hold the same 64 bytes, so that one bad block does not take a node out of its cluster.
//! 1. Formatting writes both. 2. Opening reads both, takes the valid one with the higher boot epoch,
//!    raises the epoch and writes both again, each by a synced rename. That also heals a bad copy.
//! 3. The new epoch is used only after both copies are durable. So when a crash leaves them one
//!    apart, the higher was never shown to anyone, and falling back to the lower is safe.
//!
//! If neither copy is valid the directory is refused and not touched: a guess could make a node
//! speak for another one.
//!
//! Not here: the lock of the directory (`lock`), and what peers do about an epoch that falls
//! (`consensus`).

pub mod table;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{BootEpoch, ClusterId, Incarnation, NodeId};

use self::table::{Seen, Verdict};
use crate::storage::{Storage, create_dir_durably, read_whole, replace_file};

/// The newest format that this build reads and writes.
pub const FORMAT: u16 = 1;

const LEN: usize = 64;
const MAGIC: [u8; 8] = *b"tidelgID";
const COPIES: [&str; 2] = ["a", "b"];

/// Who a data directory belongs to: 64 bytes, little-endian, in each of the two files.
///
/// | at | size | field         | meaning                                                     |
/// |---:|-----:|---------------|-------------------------------------------------------------|
/// |  0 |    8 | `magic`       | `tidelgID`                                                  |
/// |  8 |    4 | `crc32c`      | of bytes 12..64                                             |
/// | 12 |    2 | `format`      | 1; a reader refuses every value it does not know            |
/// | 14 |    2 | reserved      | zero, enforced                                              |
/// | 16 |   16 | `cluster`     | random, minted with the cluster's certificate authority     |
/// | 32 |   16 | `incarnation` | random, minted when the directory is formatted              |
/// | 48 |    8 | `node`        | number of the node in its cluster                           |
/// | 56 |    8 | `boot_epoch`  | raised at each start; 0 until the first                     |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The formatting of this directory.
    pub incarnation: Incarnation,
    /// The node.
    pub node: NodeId,
    /// The start of the node: 0 after formatting, 1 for the first start.
    pub boot_epoch: BootEpoch,
}

/// An identity as opened, and what was found on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedIdentity {
    /// Durable in both copies.
    pub identity: Identity,
    /// The copy that was bad or missing and has been written again, for the caller to log.
    pub healed: Option<PathBuf>,
    /// The row of the table that decided.
    pub row: &'static str,
}

/// Why a directory's identity cannot be used. In every case but [`IdentityError::Io`] nothing was
/// changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Neither copy verifies.
    #[error(
        "E0201 {dir}: both copies of the identity are bad (a: {a}; b: {b}), so this node cannot tell whom it \
         belongs to and does not start; nothing was changed: run `cp -a BACKUP/identity {dir}` with a backup \
         taken since the node last started, or leave the directory as it is and let the other nodes serve"
    )]
    BothBad {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong with the first copy.
        a: BadCopy,
        /// What is wrong with the second.
        b: BadCopy,
    },
    /// Both copies verify and name different owners.
    #[error(
        "E0202 {dir}: the copies of the identity disagree: a is node {} of cluster {}, incarnation {}; b is node {} of \
         cluster {}, incarnation {}: files of two directories were mixed; put back the copy that belongs here and \
         remove the other",
        a.node, a.cluster, a.incarnation, b.node, b.cluster, b.incarnation
    )]
    Disagree {
        /// The data directory.
        dir: PathBuf,
        /// The first copy.
        a: Box<Identity>,
        /// The second.
        b: Box<Identity>,
    },
    /// The directory was never formatted.
    #[error(
        "E0203 {dir}: no identity: this is not a formatted data directory; check the path, or start with \
         `--bootstrap` if the node is new"
    )]
    Missing {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory is formatted already.
    #[error(
        "E0204 {dir}: already has an identity; it is not formatted a second time: start without `--bootstrap`, or name an empty directory"
    )]
    Exists {
        /// The data directory.
        dir: PathBuf,
    },
    /// A copy was written by a newer release.
    #[error(
        "E0205 {path}: identity of format {found}, this build knows format 1: start the release that wrote it, or a newer one"
    )]
    UnknownFormat {
        /// The copy.
        path: PathBuf,
        /// Its format.
        found: u16,
    },
    /// A file operation failed. The copies are as before, or one or both are written anew.
    #[error(
        "E0206 {path}: cannot {action} the identity: {source}: check the disk and its free space, then start again"
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCopy {
    /// There is no such file.
    #[error("missing")]
    Missing,
    /// Not 64 bytes long.
    #[error("not 64 bytes long")]
    Length,
    /// Does not begin with the magic.
    #[error("not an identity file")]
    Magic,
    /// The checksum differs.
    #[error("checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// As computed.
        expected: u32,
        /// As stored.
        found: u32,
    },
    /// Reserved bytes are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// A newer release wrote it.
    #[error("unknown format {0}")]
    Format(u16),
    /// The medium refuses to give the bytes.
    #[error("unreadable")]
    Unreadable,
}

impl IdentityError {
    /// Whether there was no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => crate::log::error::is_full(source),
            Self::BothBad { .. }
            | Self::Disagree { .. }
            | Self::Missing { .. }
            | Self::Exists { .. }
            | Self::UnknownFormat { .. } => false,
        }
    }
}

impl Identity {
    /// The bytes of one copy.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let mut body = Vec::with_capacity(LEN);
        body.extend_from_slice(&FORMAT.to_le_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&self.cluster.0.to_le_bytes());
        body.extend_from_slice(&self.incarnation.0.to_le_bytes());
        body.extend_from_slice(&self.node.get().to_le_bytes());
        body.extend_from_slice(&self.boot_epoch.get().to_le_bytes());
        let mut bytes = [0; LEN];
        let all = MAGIC.into_iter().chain(crc32c::crc32c(&body).to_le_bytes()).chain(body);
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCopy> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(BadCopy::Length)?;
        if *magic != MAGIC {
            return Err(BadCopy::Magic);
        }
        if bytes.len() != LEN {
            return Err(BadCopy::Length);
        }
        let (crc, body) = rest.split_first_chunk().ok_or(BadCopy::Length)?;
        let (expected, found) = (crc32c::crc32c(body), u32::from_le_bytes(*crc));
        if expected != found {
            return Err(BadCopy::Checksum { expected, found });
        }
        let (format, rest) = body.split_first_chunk().ok_or(BadCopy::Length)?;
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(BadCopy::Format(format));
        }
        let (reserved, rest) = rest.split_first_chunk::<2>().ok_or(BadCopy::Length)?;
        if *reserved != [0; 2] {
            return Err(BadCopy::Reserved);
        }
        let (cluster, rest) = rest.split_first_chunk().ok_or(BadCopy::Length)?;
        let (incarnation, rest) = rest.split_first_chunk().ok_or(BadCopy::Length)?;
        let (node, rest) = rest.split_first_chunk().ok_or(BadCopy::Length)?;
        let (boot_epoch, _) = rest.split_first_chunk().ok_or(BadCopy::Length)?;
        Ok(Self {
            cluster: ClusterId(u128::from_le_bytes(*cluster)),
            incarnation: Incarnation(u128::from_le_bytes(*incarnation)),
            node: NodeId(u64::from_le_bytes(*node)),
            boot_epoch: BootEpoch(u64::from_le_bytes(*boot_epoch)),
        })
    }

    fn same_owner(&self, other: &Self) -> bool {
        (self.cluster, self.incarnation, self.node) == (other.cluster, other.incarnation, other.node)
    }

    /// Writes the identity of a directory that has none yet, with boot epoch 0. Durable on return.
    /// `data_dir` must exist; the caller holds its lock and has found it empty.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] if a copy is there, good or bad; [`IdentityError::Io`].
    pub fn format(
        storage: &dyn Storage,
        data_dir: &Path,
        cluster: ClusterId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<Self, IdentityError> {
        for copy in paths(data_dir) {
            if !matches!(read_copy(storage, &copy), Err(BadCopy::Missing)) {
                return Err(IdentityError::Exists { dir: data_dir.to_path_buf() });
            }
        }
        let identity = Self { cluster, incarnation, node, boot_epoch: BootEpoch::ZERO };
        write_both(storage, data_dir, &identity)?;
        Ok(identity)
    }

    /// Gives the directory a new incarnation: nothing that was promised under the one before binds it any more. Durable
    /// on return. The caller holds the directory's lock, and has set aside what must not outlive the old one.
    ///
    /// One copy goes before the other is written, since two that name different incarnations would be refused: a crash
    /// leaves one whole copy, of the old or of the new incarnation.
    ///
    /// # Errors
    /// As [`Identity::read`]; [`IdentityError::Io`].
    pub fn renew(
        storage: &dyn Storage,
        data_dir: &Path,
        incarnation: Incarnation,
    ) -> Result<Self, IdentityError> {
        let OpenedIdentity { mut identity, .. } = Self::read(storage, data_dir)?;
        identity.incarnation = incarnation;
        let [kept, gone] = paths(data_dir);
        let failed =
            |path: &Path, action, source| IdentityError::Io { path: path.to_path_buf(), action, source };
        // Whichever copy is bad was healed when the directory was last opened; if not, `write_both` does it.
        if read_copy(storage, &kept).is_ok() && read_copy(storage, &gone).is_ok() {
            storage.remove(&gone).map_err(|source| failed(&gone, "remove a copy of", source))?;
            let dir = data_dir.join("identity");
            storage.sync_dir(&dir).map_err(|source| failed(&dir, "sync", source))?;
        }
        write_both(storage, data_dir, &identity)?;
        Ok(identity)
    }

    /// Reads the identity and changes nothing, for tools that look at a stopped node.
    ///
    /// # Errors
    /// As [`Identity::open`], without its writes.
    pub fn read(storage: &dyn Storage, data_dir: &Path) -> Result<OpenedIdentity, IdentityError> {
        let [path_a, path_b] = paths(data_dir);
        let (a, b) = (read_copy(storage, &path_a), read_copy(storage, &path_b));
        let owners_differ = matches!((&a, &b), (Ok(a), Ok(b)) if !a.same_owner(b));
        let seen = |copy: &Result<Self, BadCopy>| match copy {
            Ok(_) if owners_differ => Seen::OtherOwner,
            Ok(_) => Seen::Valid,
            Err(fault) => Seen::of(*fault),
        };
        let row = table::decide(seen(&a), seen(&b));
        let dir = data_dir.to_path_buf();
        match (row.verdict, a, b) {
            (Verdict::Use, Ok(a), Ok(b)) => {
                let identity = if a.boot_epoch >= b.boot_epoch { a } else { b };
                Ok(OpenedIdentity { identity, healed: None, row: row.name })
            }
            (Verdict::Heal, Ok(identity), Err(_)) => {
                Ok(OpenedIdentity { identity, healed: Some(path_b), row: row.name })
            }
            (Verdict::Heal, Err(_), Ok(identity)) => {
                Ok(OpenedIdentity { identity, healed: Some(path_a), row: row.name })
            }
            (Verdict::NotFormatted, _, _) => Err(IdentityError::Missing { dir }),
            (_, Err(BadCopy::Format(found)), _) => Err(IdentityError::UnknownFormat { path: path_a, found }),
            (_, _, Err(BadCopy::Format(found))) => Err(IdentityError::UnknownFormat { path: path_b, found }),
            (_, Err(a), Err(b)) => Err(IdentityError::BothBad { dir, a, b }),
            (_, Ok(a), Ok(b)) => Err(IdentityError::Disagree { dir, a: Box::new(a), b: Box::new(b) }),
            // The table refuses nothing that leaves one copy valid and the other merely bad.
            (_, Ok(_), Err(fault)) | (_, Err(fault), Ok(_)) => {
                Err(IdentityError::BothBad { dir, a: fault, b: fault })
            }
        }
    }

    /// Reads the identity, raises its boot epoch and heals a bad copy. Both copies are durable on
    /// return. The caller holds the directory's lock.
    ///
    /// # Errors
    /// See [`IdentityError`]; only after [`IdentityError::Io`] may a copy have been written.
    pub fn open(storage: &dyn Storage, data_dir: &Path) -> Result<OpenedIdentity, IdentityError> {
        let OpenedIdentity { mut identity, healed, row } = Self::read(storage, data_dir)?;
        identity.boot_epoch = BootEpoch(identity.boot_epoch.get().saturating_add(1));
        write_both(storage, data_dir, &identity)?;
        Ok(OpenedIdentity { identity, healed, row })
    }
}

fn paths(data_dir: &Path) -> [PathBuf; 2] {
    COPIES.map(|copy| data_dir.join("identity").join(copy))
}

fn read_copy(storage: &dyn Storage, path: &Path) -> Result<Identity, BadCopy> {
    match read_whole(storage, path, 4096) {
        Ok(bytes) => Identity::decode(&bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(BadCopy::Missing),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(BadCopy::Length),
        Err(_) => Err(BadCopy::Unreadable),
    }
}

fn write_both(storage: &dyn Storage, data_dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let failed =
        |path: &Path, source| IdentityError::Io { path: path.to_path_buf(), action: "write", source };
    let dir = data_dir.join("identity");
    create_dir_durably(storage, data_dir, &dir).map_err(|source| failed(&dir, source))?;
    for path in paths(data_dir) {
        replace_file(storage, &path, &identity.encode()).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}
