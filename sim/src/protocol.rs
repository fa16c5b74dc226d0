//! What clients ask nodes, and what they are answered: the native protocol, cut down to what the
//! oracles need.

use bytes::Bytes;
use tidelog_consensus::apply::channel::ChannelState;
use tidelog_consensus::core::ProposeFailure;
use tidelog_consensus::entry::MetaCommand;
use tidelog_consensus::outcome::Outcome;
use tidelog_wire::ids::{Generation, GroupId, LogId, Offset};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// Who waits for an answer: a client, for its request of that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The client.
    pub client: ClientId,
    /// Its own number for the request.
    pub number: u64,
    /// The group it is about.
    pub group: GroupId,
    /// For a current read: what to read once it may be.
    pub read: Option<(LogId, Offset)>,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Which channel bears this name.
    Lookup {
        /// The name.
        name: String,
    },
    /// Append a batch.
    Produce {
        /// To which log.
        log: LogId,
        /// In which group that is.
        group: GroupId,
        /// The batch.
        batch: Bytes,
    },
    /// Change the catalogue.
    Change(MetaCommand),
    /// Raise a log's start.
    Trim {
        /// Of which log.
        log: LogId,
        /// In which group that is.
        group: GroupId,
        /// To where.
        start: Offset,
    },
    /// Read what this node has.
    Fetch {
        /// From which log.
        log: LogId,
        /// From where.
        from: Offset,
    },
    /// Read what is current: everything that was acknowledged before.
    FetchCurrent {
        /// From which log.
        log: LogId,
        /// In which group that is.
        group: GroupId,
        /// From where.
        from: Offset,
    },
}

/// What it is answered.
#[derive(Clone, Debug)]
pub enum Response {
    /// The present life of the name.
    Channel {
        /// Its generation.
        generation: Generation,
        /// Where it is in its life.
        state: ChannelState,
        /// The group of each partition's log.
        groups: Vec<GroupId>,
    },
    /// Nobody bears the name here.
    NoChannel,
    /// What applying came to.
    Done(Outcome),
    /// It was not carried out, or nobody knows.
    Failed(ProposeFailure),
    /// What was read.
    Read {
        /// Oldest offset kept.
        start: Offset,
        /// End of what is readable.
        end: Offset,
        /// From where it was read.
        from: Offset,
        /// Batches back to back.
        batches: Vec<Bytes>,
    },
    /// The log is not open here.
    NoLog,
}
