//! What can be wrong with the bytes of the protocol, each with its code.

/// Why received bytes are not what the protocol says, or something cannot be put into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A length beyond the limit. Costs the stream.
    #[error(
        "E1521 protocol: {part} of {found} bytes, at most {max} are allowed: \
         the peer speaks something else, or sends too much at once; close the stream"
    )]
    FrameTooLarge {
        /// Which length.
        part: &'static str,
        /// As received.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Lengths that contradict each other. Costs the stream.
    #[error(
        "E1522 protocol: a frame of {rest} bytes with a header of {header}: \
         the peer speaks something else; close the stream"
    )]
    FrameLengths {
        /// Bytes behind the first length.
        rest: usize,
        /// Bytes of the header.
        header: usize,
    },
    /// The stream ended inside a frame.
    #[error("E1523 protocol: the stream ended {found} bytes into a frame: the peer went away; connect again")]
    CutShort {
        /// Bytes of the frame that came.
        found: usize,
    },
    /// The header does not decode. Costs the request, if its correlation id is known, else the stream.
    #[error(
        "E1524 protocol: header of {what} does not decode: {reason}; use a client and nodes of matching releases"
    )]
    Header {
        /// What was expected.
        what: &'static str,
        /// Correlation id of the request or answer, if it could be read.
        correlation: Option<u64>,
        /// What the codec says.
        reason: String,
    },
    /// Bytes behind the header's end.
    #[error(
        "E1525 protocol: {extra} bytes behind the header of {what}; use a client and nodes of matching releases"
    )]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// Correlation id of the request or answer, if it has one.
        correlation: Option<u64>,
        /// Bytes too many.
        extra: usize,
    },
    /// A payload where none belongs, or none where one does.
    #[error(
        "E1526 protocol: {what} with a payload of {found} bytes; only a produced batch and fetched batches have one"
    )]
    Payload {
        /// What was decoded.
        what: &'static str,
        /// Correlation id of the request or answer.
        correlation: u64,
        /// Bytes of payload.
        found: usize,
    },
    /// The first frame is no greeting of ours.
    #[error(
        "E1527 protocol: the connection does not begin with a greeting of tidelog: connect to a native port"
    )]
    NotAGreeting,
    /// No version in common.
    #[error(
        "E1528 protocol: versions {asked_lowest}..={asked_highest} are asked for, {spoken_lowest}..={spoken_highest} \
         are spoken: use a client and nodes of matching releases"
    )]
    Version {
        /// Asked for, the lowest.
        asked_lowest: u16,
        /// Asked for, the highest.
        asked_highest: u16,
        /// Spoken, the lowest.
        spoken_lowest: u16,
        /// Spoken, the highest.
        spoken_highest: u16,
    },
    /// A header that no peer would accept. Nothing was sent.
    #[error("E1529 protocol: a header of {found} bytes cannot be sent, at most {max}: ask for less at once")]
    HeaderTooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A payload that no peer would accept. Nothing was sent.
    #[error("E1530 protocol: a payload of {found} bytes cannot be sent, at most {max}: use smaller batches")]
    PayloadTooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        max: usize,
    },
}

impl ProtocolError {
    /// The request or answer that the error belongs to. `None`: the stream cannot be used any more.
    #[must_use]
    pub const fn correlation(&self) -> Option<u64> {
        match self {
            Self::Header { correlation, .. } | Self::Trailing { correlation, .. } => *correlation,
            Self::Payload { correlation, .. } => Some(*correlation),
            Self::FrameTooLarge { .. }
            | Self::FrameLengths { .. }
            | Self::CutShort { .. }
            | Self::NotAGreeting
            | Self::Version { .. }
            | Self::HeaderTooLarge { .. }
            | Self::PayloadTooLarge { .. } => None,
        }
    }
}
