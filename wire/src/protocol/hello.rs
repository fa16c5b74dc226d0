//! The greeting: who speaks, and which version from now on.
//!
//! Headers of two frames whose beginning never changes, whatever the version:
//!
//! | at | size | field of [`Hello`] | meaning                                        |
//! |---:|-----:|--------------------|------------------------------------------------|
//! |  0 |    4 | magic              | `tdlg`                                         |
//! |  4 |    2 | `version_lowest`   | little-endian: oldest version the client speaks |
//! |  6 |    2 | `version_highest`  | little-endian: newest version the client speaks |
//! |  8 |    . | `client`           | the client's name and release, UTF-8, to the end |
//!
//! | at | size | field of the answer | meaning                                                         |
//! |---:|-----:|---------------------|-----------------------------------------------------------------|
//! |  0 |    4 | magic               | `tdlg`                                                          |
//! |  4 |    2 | version             | little-endian: the version spoken from now on, or 0: refused    |
//! |  6 |    . | body                | version 1: bincode of the rest of [`Welcome`]; 0: lowest and highest version spoken, `u16` each |

use bincode::{Decode, Encode};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec;
use super::error::ProtocolError;
use super::frame::Frame;
use super::{VERSION_HIGHEST, VERSION_LOWEST};
use crate::ids::{BootEpoch, ClusterId, Incarnation, NodeId};
use crate::limits;

const MAGIC: [u8; 4] = *b"tdlg";
const REFUSED: u16 = 0;

/// A client's first words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version it speaks.
    pub version_lowest: u16,
    /// Newest version it speaks.
    pub version_highest: u16,
    /// Its name and release, for logs.
    pub client: String,
}

/// A node's first words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version spoken from now on.
    pub version: u16,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which node.
    pub node: NodeId,
    /// Which formatting of its directory.
    pub incarnation: Incarnation,
    /// Which start.
    pub boot_epoch: BootEpoch,
    /// What it accepts.
    pub limits: ServerLimits,
}

/// What a node accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ServerLimits {
    /// Largest batch.
    pub batch_bytes_max: u32,
    /// Largest answer to a fetch.
    pub fetch_bytes_max: u32,
    /// Most unanswered requests on one connection; a connection with more is not read from until one is answered.
    pub requests_max: u32,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloAnswer {
    /// Go on.
    Welcome(Welcome),
    /// No version in common.
    Refused(HelloRefusal),
}

/// The versions that the refusing node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloRefusal {
    /// The oldest.
    pub version_lowest: u16,
    /// The newest.
    pub version_highest: u16,
}

#[derive(Encode, Decode)]
struct WelcomeBody {
    cluster: ClusterId,
    node: NodeId,
    incarnation: Incarnation,
    boot_epoch: BootEpoch,
    limits: ServerLimits,
}

impl Hello {
    /// The greeting of this build.
    #[must_use]
    pub fn new(client: &str) -> Self {
        Self { version_lowest: VERSION_LOWEST, version_highest: VERSION_HIGHEST, client: client.to_owned() }
    }

    /// Appends it as a frame.
    ///
    /// # Errors
    /// [`ProtocolError::HeaderTooLarge`]: the name is too long.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), ProtocolError> {
        if self.client.len() > limits::TEXT_BYTES_MAX {
            return Err(ProtocolError::HeaderTooLarge {
                found: self.client.len(),
                max: limits::TEXT_BYTES_MAX,
            });
        }
        let mut header = BytesMut::with_capacity(8 + self.client.len());
        header.put_slice(&MAGIC);
        header.put_u16_le(self.version_lowest);
        header.put_u16_le(self.version_highest);
        header.put_slice(self.client.as_bytes());
        Frame::put_head(&header, 0, out)
    }

    /// Reads it out of the first frame of a connection.
    ///
    /// # Errors
    /// [`ProtocolError::NotAGreeting`], [`ProtocolError::Header`]: close the connection.
    pub fn decode(frame: &Frame) -> Result<Self, ProtocolError> {
        let mut header = greeting(frame)?;
        let (version_lowest, version_highest) = versions("a greeting", &mut header)?;
        if header.len() > limits::TEXT_BYTES_MAX {
            return Err(short("a greeting", "the client's name is too long"));
        }
        let client = String::from_utf8(header.to_vec())
            .map_err(|_| short("a greeting", "the client's name is not UTF-8"))?;
        Ok(Self { version_lowest, version_highest, client })
    }

    /// The version to speak with this client: the newest that both know.
    ///
    /// # Errors
    /// What to answer if there is none.
    pub fn choose_version(&self) -> Result<u16, HelloRefusal> {
        let newest = self.version_highest.min(VERSION_HIGHEST);
        if newest >= self.version_lowest.max(VERSION_LOWEST) {
            Ok(newest)
        } else {
            Err(HelloRefusal { version_lowest: VERSION_LOWEST, version_highest: VERSION_HIGHEST })
        }
    }
}

impl HelloAnswer {
    /// Appends it as a frame.
    ///
    /// # Errors
    /// None that the world can cause: it always fits.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), ProtocolError> {
        let mut header = BytesMut::with_capacity(96);
        header.put_slice(&MAGIC);
        match self {
            Self::Welcome(welcome) => {
                header.put_u16_le(welcome.version);
                let body = WelcomeBody {
                    cluster: welcome.cluster,
                    node: welcome.node,
                    incarnation: welcome.incarnation,
                    boot_epoch: welcome.boot_epoch,
                    limits: welcome.limits,
                };
                codec::put("a welcome", None, &body, &mut header)?;
            }
            Self::Refused(refusal) => {
                header.put_u16_le(REFUSED);
                header.put_u16_le(refusal.version_lowest);
                header.put_u16_le(refusal.version_highest);
            }
        }
        Frame::put_head(&header, 0, out)
    }

    /// Reads it out of the first frame that comes back.
    ///
    /// # Errors
    /// [`ProtocolError::NotAGreeting`], [`ProtocolError::Header`], [`ProtocolError::Trailing`], and
    /// [`ProtocolError::Version`] if the node chose a version that this build does not speak.
    pub fn decode(frame: &Frame) -> Result<Self, ProtocolError> {
        let mut header = greeting(frame)?;
        if header.len() < 2 {
            return Err(short("a welcome", "cut short"));
        }
        let version = header.get_u16_le();
        if version == REFUSED {
            let (version_lowest, version_highest) = versions("a refusal", &mut header)?;
            return match header.len() {
                0 => Ok(Self::Refused(HelloRefusal { version_lowest, version_highest })),
                extra => Err(ProtocolError::Trailing { what: "a refusal", correlation: None, extra }),
            };
        }
        if !(VERSION_LOWEST..=VERSION_HIGHEST).contains(&version) {
            return Err(ProtocolError::Version {
                asked_lowest: VERSION_LOWEST,
                asked_highest: VERSION_HIGHEST,
                spoken_lowest: version,
                spoken_highest: version,
            });
        }
        let body = codec::decode_all::<WelcomeBody>("a welcome", None, &header)?;
        let WelcomeBody { cluster, node, incarnation, boot_epoch, limits } = body;
        Ok(Self::Welcome(Welcome { version, cluster, node, incarnation, boot_epoch, limits }))
    }
}

fn greeting(frame: &Frame) -> Result<Bytes, ProtocolError> {
    let mut header = frame.header.clone();
    if !frame.payload.is_empty() || !header.starts_with(&MAGIC) {
        return Err(ProtocolError::NotAGreeting);
    }
    header.advance(MAGIC.len());
    Ok(header)
}

fn versions(what: &'static str, header: &mut Bytes) -> Result<(u16, u16), ProtocolError> {
    if header.len() < 4 {
        return Err(short(what, "cut short"));
    }
    Ok((header.get_u16_le(), header.get_u16_le()))
}

fn short(what: &'static str, reason: &str) -> ProtocolError {
    ProtocolError::Header { what, correlation: None, reason: reason.to_owned() }
}
