//! One log in a promise: what was sent to it, and how much of that must be there.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::log::{LogReader, Visible};
use tidelog_engine::segment::frame::chain_after;
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{Chain, LeaderEpoch, Offset, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use crate::scenario::{Broken, holds};

/// A batch that no other is like: its number shows in every record, and no two sectors of it are equal.
///
/// # Errors
/// [`Broken`] if the builder refuses, which its limits rule out.
pub(super) fn batch(number: u64, records: u32, value_bytes: usize) -> Result<Batch, Broken> {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for record in 0..records {
        let mut value = format!("{number}.{record}.").into_bytes();
        let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while value.len() < value_bytes {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            value.extend_from_slice(&noise.to_le_bytes());
        }
        let time = TimestampMs(i64::try_from(number).unwrap_or(i64::MAX));
        match builder.push(time, None, Some(&value), &[]) {
            Ok(Pushed::Taken) => {}
            other => return Err(Broken(format!("batch {number} cannot be built: {other:?}"))),
        }
    }
    builder.build(None).map_err(Broken::by("build a batch"))
}

/// A batch that was sent, and what it is where it lies.
#[derive(Clone, Debug)]
struct Sent {
    base: Offset,
    end: Offset,
    bytes: Bytes,
    chain: Chain,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct LogPromise {
    sent: Arc<Vec<Sent>>,
    /// Everything below was acknowledged.
    durable: Offset,
    /// The log start was acknowledged here; it may have come to `start_asked`.
    start: Offset,
    start_asked: Offset,
}

impl LogPromise {
    /// `batch` is about to be appended with `epoch`: it may be there from now on. Returns its base offset.
    pub(super) fn send(&mut self, batch: &Batch, epoch: LeaderEpoch) -> Offset {
        let (base, chain) =
            self.sent.last().map_or((Offset::ZERO, Chain::ZERO), |last| (last.end, last.chain));
        let sent = Sent {
            base,
            end: base.plus(u64::from(batch.count())),
            bytes: batch.stamped_bytes(base, epoch),
            chain: chain_after(chain, base, &[batch.chain_input()]),
        };
        Arc::make_mut(&mut self.sent).push(sent);
        base
    }

    /// Everything sent is acknowledged as durable.
    pub(super) fn all_durable(&mut self) {
        self.durable = self.end();
    }

    /// Behind the last batch sent.
    #[must_use]
    pub(super) fn end(&self) -> Offset {
        self.sent.last().map_or(Offset::ZERO, |last| last.end)
    }

    /// The log start is about to be raised: it may be there from now on.
    pub(super) fn ask_start(&mut self, to: Offset) {
        self.start_asked = self.start_asked.max(to);
    }

    /// The raised log start was acknowledged.
    pub(super) fn start_raised(&mut self) {
        self.start = self.start_asked;
    }

    /// The acknowledged log start.
    #[must_use]
    pub(super) fn start(&self) -> Offset {
        self.start
    }

    /// The base offset of the batch in the middle of what is left: to trim to.
    #[must_use]
    pub(super) fn middle(&self) -> Offset {
        let left: Vec<_> = self.sent.iter().filter(|sent| sent.base >= self.start).collect();
        left.get(left.len() / 2).map_or_else(|| self.end(), |sent| sent.base)
    }

    /// Holds what a reader of the recovered log sees to the promise; returns what holds from now on.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn check(&self, reader: &LogReader) -> Result<Self, Broken> {
        let log = reader.log();
        let reader = reader.seeing(Visible::Appended);
        let (start, (end, chain)) = (reader.start(), reader.end_and_chain());
        let damage = reader.damage();
        holds(damage.is_empty(), || format!("log {log}: {damage:?} are called damaged"))?;
        holds(start >= self.start && start <= self.start_asked, || {
            format!(
                "log {log} starts at {start}; {} was acknowledged, {} asked",
                self.start, self.start_asked
            )
        })?;
        holds(end >= self.durable, || {
            format!("log {log} ends at {end}, but everything below {} was acknowledged", self.durable)
        })?;
        let mut at = start;
        while at < end {
            let read = reader.read(at, 256 << 10).map_err(Broken::by(&format!("log {log}: read {at}")))?;
            let next = self.follow(start, at, &read.batches);
            let next = next.map_err(|Broken(what)| Broken(format!("log {log}: {what}")))?;
            holds(next > at && read.next == next, || {
                format!("log {log}: reading at {at} gave batches up to {next}, and goes on at {}", read.next)
            })?;
            at = next;
        }
        let kept = self.sent.partition_point(|sent| sent.end <= end);
        let last = kept.checked_sub(1).and_then(|last| self.sent.get(last));
        holds(last.map_or(end == Offset::ZERO, |last| last.end == end && last.chain == chain), || {
            format!("log {log} ends at {end} with chain {chain}; the batches sent have {last:?} there")
        })?;
        let mut sent = Arc::clone(&self.sent);
        if kept < sent.len() {
            Arc::make_mut(&mut sent).truncate(kept);
        }
        Ok(Self { sent, durable: end, start, start_asked: start })
    }

    /// Holds batches read at `at` to what was sent, one behind the other without a gap; returns where the next begins. Only
    /// the first batch of the log may begin below what was asked: the log may start inside it.
    fn follow(&self, start: Offset, at: Offset, batches: &[Bytes]) -> Result<Offset, Broken> {
        let mut at = at;
        for bytes in batches {
            let batch = Batch::parse(bytes.clone(), BatchLimits::CAP).map_err(Broken::by("parse a batch"))?;
            let base = batch.base_offset().unwrap_or_default();
            let sent = self.sent.iter().find(|sent| sent.base == base);
            let sent = sent.ok_or_else(|| Broken(format!("nothing was ever appended at {base}")))?;
            holds(base == at || (at == start && base < at && at < sent.end), || {
                format!("the batch at {base} was read where that at {at} is due")
            })?;
            holds(sent.bytes == bytes, || format!("the batch at {base} is not the one that was appended"))?;
            at = sent.end;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch was looked up by its own base offset and never held to the place at which it was read, so a reader that left
    /// one out, or handed one out twice, kept every promise.
    #[test]
    fn a_batch_that_is_left_out_or_comes_twice_is_a_broken_promise() {
        let mut promise = LogPromise::default();
        let sent: Vec<Bytes> = (0..3)
            .map(|number| {
                let batch = batch(number, 2, 30).unwrap();
                let base = promise.send(&batch, LeaderEpoch::ZERO);
                batch.stamped_bytes(base, LeaderEpoch::ZERO)
            })
            .collect();
        let follow = |start, at, batches: &[&Bytes]| {
            let batches: Vec<Bytes> = batches.iter().copied().cloned().collect();
            promise.follow(Offset(start), Offset(at), &batches).ok()
        };
        assert_eq!(follow(0, 0, &[&sent[0], &sent[1], &sent[2]]), Some(Offset(6)));
        assert_eq!(follow(3, 3, &[&sent[1], &sent[2]]), Some(Offset(6)), "the log starts inside of it");
        assert_eq!(follow(0, 0, &[&sent[0], &sent[2]]), None, "one is left out");
        assert_eq!(follow(0, 2, &[&sent[0]]), None, "one comes again");
        assert_eq!(
            follow(0, 3, &[&sent[1]]),
            None,
            "no batch begins there, and the log does not start there"
        );
        assert_eq!(follow(0, 2, &[]), Some(Offset(2)), "no progress, which the caller refuses");
    }
}
