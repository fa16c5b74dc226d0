//! What must be true in every run: one property a file, each under the name that the literature gives it.
//!
//! A checker is told what happened and says at once if it contradicts the property. What it is told is what
//! *is*: the bytes of segments on the simulated disks, the entries that lie in raft logs, the messages on the
//! wire, and what clients were answered. No checker asks the code under test whether it did right. The first
//! contradiction ends the run: what follows from a broken state explains nothing.
//!
//! | file | property |
//! |---|---|
//! | [`election_safety`] | at most one leader a term |
//! | [`leader_append_only`] | a leader never takes back an entry |
//! | [`log_matching`] | equal index and term: equal logs up to there |
//! | [`leader_completeness`] | what is committed is in the log of every later leader |
//! | [`state_machine_safety`] | one entry, and one outcome, at an index |
//! | [`acknowledged_durability`] | what is acknowledged is durable on a quorum, and is read back |
//! | [`offset_density`] | offsets have no gaps |
//! | [`chain_agreement`] | one chain at an offset |
//! | [`sealed_segments`] | sealed segments are the same byte for byte, and never change |
//! | [`generation_isolation`] | no life of a name shows what another holds |
//! | [`exactly_once`] | a producer's batches stand once, in their order |
//! | [`high_watermark`] | a current read sees what was acknowledged or seen before it |
//! | [`monotonic_reads`] | what was read is read again |
//! | [`amnesia`] | who forgot does not vote, nor count |
//! | [`full_redundancy`] | once healed, everything is there as often as it should be |
//! | [`log_start`] | records go only when somebody asked |
//!
//! [`raft_logs`], [`segments`] and [`history`] are no checkers: they are what checkers look at.

pub mod acknowledged_durability;
pub mod amnesia;
pub mod chain_agreement;
pub mod election_safety;
pub mod exactly_once;
pub mod full_redundancy;
pub mod generation_isolation;
pub mod high_watermark;
pub mod history;
pub mod leader_append_only;
pub mod leader_completeness;
pub mod log_matching;
pub mod log_start;
pub mod monotonic_reads;
pub mod offset_density;
pub mod raft_logs;
pub mod sealed_segments;
pub mod segments;
pub mod state_machine_safety;

use std::fmt;

use bytes::Bytes;
use tidelog_wire::ids::{LogId, NodeId, Offset};

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub property: &'static str,
    /// What was seen instead.
    pub seen: String,
}

impl Violation {
    /// A violation of `property`.
    #[must_use]
    pub fn of(property: &'static str, seen: String) -> Self {
        Self { property, seen }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.property, self.seen)
    }
}

/// All checkers that keep a memory of the run, and what they look at.
#[derive(Debug, Default)]
pub struct Oracles {
    /// What lies in the raft logs.
    pub raft_logs: raft_logs::RaftLogs,
    /// What was read.
    pub history: history::History,
    /// See the file of that name; so for all that follow.
    pub election_safety: election_safety::ElectionSafety,
    /// A leader's log.
    pub leader_append_only: leader_append_only::LeaderAppendOnly,
    /// Logs against each other.
    pub log_matching: log_matching::LogMatching,
    /// Later leaders.
    pub leader_completeness: leader_completeness::LeaderCompleteness,
    /// What was applied.
    pub state_machine_safety: state_machine_safety::StateMachineSafety,
    /// What was acknowledged.
    pub acknowledged_durability: acknowledged_durability::AcknowledgedDurability,
    /// Chains.
    pub chain_agreement: chain_agreement::ChainAgreement,
    /// Files.
    pub sealed_segments: sealed_segments::SealedSegments,
    /// Lives of names.
    pub generation_isolation: generation_isolation::GenerationIsolation,
    /// Producers.
    pub exactly_once: exactly_once::ExactlyOnce,
    /// Current reads.
    pub high_watermark: high_watermark::HighWatermark,
    /// Reads on one node.
    pub monotonic_reads: monotonic_reads::MonotonicReads,
    /// Who forgot.
    pub amnesia: amnesia::Amnesia,
    /// What was asked to be trimmed.
    pub log_start: log_start::LogStart,
}

impl Oracles {
    /// `batches` of `log` were read on `node`, one after the other, the first of them containing or following
    /// offset `from`. Returns the offset after the last.
    ///
    /// # Errors
    /// They contradict what was read before, or each other.
    pub fn read(
        &mut self,
        node: NodeId,
        log: LogId,
        from: Offset,
        batches: &[Bytes],
    ) -> Result<Offset, Violation> {
        let mut next = None;
        for bytes in batches {
            for read in history::parse(node, log, bytes)? {
                offset_density::follows(node, log, from, next, &read)?;
                self.monotonic_reads.read(node, log, &read, &self.history)?;
                self.exactly_once.stands(log, &read)?;
                self.generation_isolation.read(node, log, &read)?;
                self.acknowledged_durability.read(log, &read)?;
                self.history.note(log, read);
                next = Some(read.last.plus(1));
            }
        }
        Ok(next.unwrap_or(from))
    }
}
