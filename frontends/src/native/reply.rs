//! Errors as native clients get them: a code for programs, the text for people, and whether to repeat.

use tidelog_wire::protocol::{ErrorCode, ErrorReply, ProtocolError, Retry};

use crate::broker::BrokerError;

/// Pauses that clients are asked to make, in milliseconds.
const ELECTION_MS: u32 = 50;
const NOT_READY_MS: u32 = 50;
const DISK_FULL_MS: u32 = 1_000;

/// The answer for what the broker did not do.
pub(super) fn of_broker(error: &BrokerError) -> ErrorReply {
    let (code, retry) = code_and_retry(error);
    ErrorReply { code, message: error.to_string(), retry }
}

fn code_and_retry(error: &BrokerError) -> (ErrorCode, Retry) {
    match error {
        BrokerError::NotLeader { leader, .. } => {
            (ErrorCode::NotLeader { leader: Some(*leader) }, Retry::Leader)
        }
        BrokerError::NoQuorum { .. } => (ErrorCode::NoQuorum, Retry::Here { after_ms: ELECTION_MS }),
        BrokerError::UnknownChannel { .. } | BrokerError::UnknownLog { .. } => {
            (ErrorCode::UnknownChannel, Retry::Never)
        }
        BrokerError::GenerationMismatch { asked, current } => {
            (ErrorCode::GenerationMismatch { asked: *asked, current: *current }, Retry::Never)
        }
        BrokerError::OffsetOutOfRange { asked, start, end, .. } => {
            (ErrorCode::OffsetOutOfRange { asked: *asked, start: *start, end: *end }, Retry::Never)
        }
        BrokerError::BatchTooLarge { bytes, max } => {
            (ErrorCode::BatchTooLarge { bytes: *bytes, max: *max }, Retry::Never)
        }
        BrokerError::CorruptBatch { .. } => (ErrorCode::CorruptBatch, Retry::Here { after_ms: 0 }),
        BrokerError::InvalidBatch { .. } => (ErrorCode::InvalidBatch, Retry::Never),
        BrokerError::OutOfOrderSequence { .. } => (ErrorCode::OutOfOrderSequence, Retry::Never),
        BrokerError::ProducerFenced { .. } => (ErrorCode::ProducerFenced, Retry::Never),
        BrokerError::MayHaveCommitted { .. } => {
            (ErrorCode::TimedOutMayHaveCommitted, Retry::MayHaveCommitted)
        }
        BrokerError::Busy { retry_after_ms, .. } => {
            let retry_after_ms = *retry_after_ms;
            (ErrorCode::Busy { retry_after_ms }, Retry::Here { after_ms: retry_after_ms })
        }
        BrokerError::NotReady { .. } => (ErrorCode::NotReady, Retry::Here { after_ms: NOT_READY_MS }),
        BrokerError::DamagedRange { start, end, .. } | BrokerError::UnreadableRange { start, end, .. } => {
            (ErrorCode::DamagedRange { start: *start, end: *end }, Retry::Never)
        }
        BrokerError::ChannelExists { .. } => (ErrorCode::ChannelExists, Retry::Never),
        BrokerError::DiskFull { .. } => (ErrorCode::DiskFull, Retry::Here { after_ms: DISK_FULL_MS }),
        BrokerError::Stopping => (ErrorCode::ShuttingDown, Retry::Leader),
        BrokerError::InvalidRequest { .. } | BrokerError::Unsafe { .. } => {
            (ErrorCode::InvalidRequest, Retry::Never)
        }
        BrokerError::ReadFailed { .. } => (ErrorCode::Internal, Retry::Never),
        // Something was done, only not what was asked for.
        BrokerError::Unexpected { .. } => (ErrorCode::Internal, Retry::MayHaveCommitted),
    }
}

/// The answer for a request that cannot be decoded.
pub(super) fn undecodable(error: &ProtocolError) -> ErrorReply {
    ErrorReply { code: ErrorCode::InvalidRequest, message: error.to_string(), retry: Retry::Never }
}

/// The answer instead of one that no frame can hold.
pub(super) fn unsendable(error: &ProtocolError) -> ErrorReply {
    ErrorReply { code: ErrorCode::Internal, message: error.to_string(), retry: Retry::Never }
}
