//! Finding offsets by time: the times that producers gave to their records.
//!
//! They may run back and forth within a log and within a batch. What is asked for is therefore the place
//! where a time is **first** reached, which is Kafka's rule, and what lies before it:
//!
//! ```text
//! offset      0    1    2    3    4
//! time       10   40   20   30   50
//! at 25           ^ first at or after it (1); so 0 is the last before which nothing is later
//! ```
//! Both are places of one rising line, the largest time so far, and that is what the sparse index keeps. The
//! very last record that is not later than a time could be found in no index: a straggler may come at any
//! distance, so whoever wants it has to read to the end.
//!
//! 1. Segments whose newest record is older are skipped without being opened.
//! 2. The index of the next one leads to a frame before which everything is older.
//! 3. From there frame headers are walked, which name the newest record of each batch. A batch that may hold
//!    the record is read, verified and decoded: the answer is a record, as Kafka's is, not its batch.
//!
//! A batch that is damaged is passed over: reading it says so. One that verifies and cannot be decoded is
//! answered as a whole by its first offset, so that nobody who reads on from there misses a record.

use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{Offset, TimestampMs};
use tidelog_wire::records::Records;

use super::error::ReadError;
use super::reader::LogReader;
use super::shared::Segment;
use crate::segment::stored::StoredBatch;

impl LogReader {
    /// The first record at or after `time`: its offset and its own time. `None` if every visible record is
    /// older. Out of order, records that follow may be older again.
    ///
    /// # Errors
    /// [`ReadError::Io`]; [`ReadError::Removed`] and [`ReadError::Reopened`] as for a read.
    pub fn offset_at_time(&self, time: TimestampMs) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let (mut at, end) = (self.start(), self.end());
        // One segment at a time: a log may have very many, and its writer waits for each look.
        while at < end {
            let segment = {
                let mut view = self.shared.view();
                self.shared.not_ended(&view)?;
                let segment = view.segment_for(at);
                at = view.next_base(at);
                segment
            };
            let Some(segment) = segment else { continue };
            match self.first_in(&segment, time) {
                Ok(None) | Err(ReadError::OutOfRange { .. }) => {} // Trimmed since the look.
                found => return found,
            }
        }
        Ok(None)
    }

    /// The last record before which, itself included, none is later than `time`: where a reader stops who
    /// wants what came until then. In a log whose times never fall, the largest offset whose time is at or
    /// before. `None` if the oldest visible record is later, or there is none.
    ///
    /// # Errors
    /// As [`LogReader::offset_at_time`].
    pub fn offset_until_time(&self, time: TimestampMs) -> Result<Option<Offset>, ReadError> {
        let end = self.end();
        let later = match time.get().checked_add(1) {
            Some(later) => self.offset_at_time(TimestampMs(later))?,
            None => None,
        };
        let behind = later.map_or(end, |(offset, _)| offset);
        Ok(behind.get().checked_sub(1).map(Offset).filter(|last| *last >= self.start()))
    }

    fn first_in(
        &self,
        segment: &Segment,
        time: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        self.shared.look_at(segment)?;
        let newest = {
            let facts = segment.facts();
            facts.summary.as_ref().map(|summary| summary.max_timestamp).or(facts.max_timestamp)
        };
        if newest.is_some_and(|newest| newest < time) {
            return Ok(None);
        }
        let (start, end) = (self.start(), self.end());
        let open = self.shared.open_segment(segment)?;
        let mut newer = self.shared.batches_at_time(segment, &open, time)?;
        while let Some(batch) = newer.next()? {
            if batch.base_offset >= end {
                break;
            }
            if batch.end() <= start {
                continue;
            }
            let found = self.first_record(&batch, batch.base_offset.max(start), time)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first record of a batch from `from` on that is not older than `time`.
    fn first_record(
        &self,
        stored: &StoredBatch,
        from: Offset,
        time: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let read = match self.read(from, 1) {
            Err(ReadError::Damaged { .. } | ReadError::OutOfRange { .. }) => return Ok(None),
            read => read?,
        };
        let Some(bytes) = read.batches.into_iter().next() else { return Ok(None) };
        let as_a_whole = Ok(Some((from, stored.max_timestamp)));
        let Ok(batch) = Batch::parse(bytes, BatchLimits::CAP) else { return as_a_whole };
        let Ok(records) = Records::of(&batch) else { return as_a_whole };
        for record in records {
            match record {
                Ok(record) if record.timestamp >= time && record.offset >= from => {
                    return Ok(Some((record.offset, record.timestamp)));
                }
                Ok(_) => {}
                Err(_) => return as_a_whole,
            }
        }
        Ok(None)
    }
}
