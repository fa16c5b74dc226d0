//! The task of one partition: fills batches, keeps some in flight, and repeats what was not answered.
//!
//! - Batches leave in order over one link, the leader's, and answers are looked at in order: the oldest first.
//! - When the oldest fails in a way that may be repeated, *all* that are in flight are sent again, in order, to whoever leads
//!   then. Those that had arrived nevertheless are recognised by producer id and sequence, and answered with the offset
//!   they have. A node remembers five batches, so no more than that are ever in flight.
//! - A node accepts any first sequence from a producer that it does not know. So as long as none of ours was acknowledged
//!   in this log, or not lately, a single batch is in flight: otherwise a second could be taken while the first was not.
//! - When the oldest fails for good, all that is in flight or queued fails with it, since the sequence has a hole. What was
//!   sent without an answer may be in the log; its error says so. Then the partition goes on under a new producer id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidelog_wire::batch::ProducerStamp;
use tidelog_wire::ids::{LogId, ProducerId};
use tidelog_wire::protocol::{Answer, AnswerFrame, ErrorCode, ErrorReply, Request, Retry};
use tidelog_wire::records::{BatchBuilder, BuilderLimits};
use tokio::sync::mpsc;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::Instant;

use super::flight::{Attempt, Flight, Open, finish, refuse};
use super::{Queued, QueuedRecord, Shared};
use crate::client::{HINTS_MAX, MISSING, is_leaderless};
use crate::cluster::CallError;
use crate::error::ClientError;
use crate::link::{Lane, Link, LinkError};

/// How long after an acknowledgement a node is sure to know the producer. Nodes forget idle producers much later.
const KNOWN: Duration = Duration::from_secs(600);

pub(super) struct Task {
    shared: Arc<Shared>,
    index: usize,
    log: LogId,
    queue: mpsc::Receiver<Queued>,
    closed: bool,
    open: Option<Open>,
    /// Did not fit into `open`.
    carried: Option<QueuedRecord>,
    flights: VecDeque<Flight>,
    /// Carries all that is in flight.
    link: Option<Arc<Link>>,
    producer: Option<(ProducerId, i16)>,
    next_sequence: i32,
    acknowledged: Option<Instant>,
    /// Since when the leader says that it knows no such log.
    unknown_since: Option<Instant>,
    /// Leaders named in a row, without one that took a batch.
    hints: u32,
}

enum Event {
    Answer(Result<Result<AnswerFrame, LinkError>, RecvError>),
    Queued(Option<Queued>),
    TimeUp,
}

impl Task {
    pub(super) const fn new(
        shared: Arc<Shared>,
        index: usize,
        log: LogId,
        queue: mpsc::Receiver<Queued>,
    ) -> Self {
        Self {
            shared,
            index,
            log,
            queue,
            closed: false,
            open: None,
            carried: None,
            flights: VecDeque::new(),
            link: None,
            producer: None,
            next_sequence: 0,
            acknowledged: None,
            unknown_since: None,
            hints: 0,
        }
    }

    /// Runs until the producer is closed and everything has come to an end.
    pub(super) async fn run(mut self) {
        loop {
            self.gather();
            if let Err(error) = self.close_batches().await {
                self.fail_all(&error);
                continue;
            }
            if self.flights.is_empty() && self.open.is_none() && self.closed {
                return;
            }
            match self.send_unsent().await {
                Ok(()) => {}
                Err(Setback::Final(error)) => {
                    self.fail_all(&error);
                    continue;
                }
                Err(Setback::Again(pause)) => {
                    self.rewind(pause).await;
                    continue;
                }
            }
            match self.next_event().await {
                Event::Queued(Some(queued)) => self.take(queued),
                Event::Queued(None) => self.closed = true,
                Event::TimeUp => self.time_up().await,
                Event::Answer(answer) => self.answered(answer).await,
            }
        }
    }

    /// Takes what is queued into the open batch, without waiting.
    fn gather(&mut self) {
        while self.carried.is_none() {
            match self.queue.try_recv() {
                Ok(queued) => self.take(queued),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, queued: Queued) {
        match queued {
            Queued::Record(record) => self.carried = self.opened().take(record),
            Queued::Flush(done) => match (&mut self.open, self.flights.back_mut()) {
                (Some(open), _) => {
                    open.hurried = true;
                    open.waiters.flush(done);
                }
                (None, Some(flight)) => flight.waiters.flush(done),
                // Nothing is under way; whoever gave up waiting need not know.
                (None, None) => finish(vec![done]),
            },
        }
    }

    fn opened(&mut self) -> &mut Open {
        let options = &self.shared.options;
        self.open.get_or_insert_with(|| {
            let limits =
                BuilderLimits { batch_bytes_max: options.batch_bytes, records_max: options.batch_records };
            Open::new(BatchBuilder::new(options.codec, limits))
        })
    }

    /// Closes the open batch if it is ready and may be in flight, and goes on with the next.
    async fn close_batches(&mut self) -> Result<(), ClientError> {
        while self.flights.len() < self.in_flight_max() && self.is_ready() {
            let deadline = Instant::now() + self.shared.options.delivery_timeout;
            let (id, epoch) = match self.producer {
                Some(known) => known,
                None => {
                    let minted = self.shared.client.init_producer(deadline).await?;
                    *self.producer.insert(minted)
                }
            };
            let Some(open) = self.open.take() else { return Ok(()) };
            if open.builder.is_empty() {
                // Every record was refused by itself; who waits for the batch waits for those before it.
                match self.flights.back_mut() {
                    Some(last) => last.waiters.take_over(open.waiters),
                    None => open.waiters.fail(&ClientError::Closed),
                }
                continue;
            }
            let stamp = ProducerStamp { id, epoch, first_sequence: self.next_sequence };
            let count = open.builder.count();
            match open.builder.build(Some(stamp)) {
                Ok(batch) => {
                    self.next_sequence = sequence_after(self.next_sequence, count);
                    let waiters = open.waiters;
                    self.flights.push_back(Flight {
                        batch,
                        waiters,
                        deadline,
                        attempt: None,
                        sent: false,
                        uncertain: false,
                    });
                    self.shared.move_on(self.index);
                }
                Err(error) => open.waiters.fail(&error.into()),
            }
            if let Some(record) = self.carried.take() {
                self.carried = self.opened().take(record);
            }
            self.gather();
        }
        Ok(())
    }

    fn in_flight_max(&self) -> usize {
        let known = self.acknowledged.is_some_and(|at| at.elapsed() < KNOWN);
        if known { self.shared.options.in_flight } else { 1 }
    }

    fn is_ready(&self) -> bool {
        let linger = self.shared.options.linger;
        self.open.as_ref().is_some_and(|open| {
            self.carried.is_some()
                || open.builder.is_full()
                || self.closed
                || open.hurried
                || open.since.elapsed() >= linger
        })
    }

    /// Sends what is in flight and was not sent in this round.
    async fn send_unsent(&mut self) -> Result<(), Setback> {
        if self.flights.iter().all(|flight| flight.attempt.is_some()) {
            return Ok(());
        }
        let until = Instant::now() + self.shared.options.attempt_timeout;
        let deadline = self.flights.front().map_or(until, |oldest| oldest.deadline.min(until));
        let link = match &self.link {
            Some(link) => link.clone(),
            None => self.find_leader(deadline).await?,
        };
        self.link = Some(link.clone());
        let request = Request::Produce { log: self.log };
        for flight in self.flights.iter_mut().filter(|flight| flight.attempt.is_none()) {
            if flight.sent {
                self.shared.summary(self.index, |summary| summary.retries += 1);
            }
            let sending = link.send(Lane::Produce, &request, flight.batch.bytes().clone());
            flight.sent = true;
            match tokio::time::timeout_at(deadline, sending).await {
                Ok(Ok(awaited)) => flight.attempt = Some(Attempt { link: link.clone(), awaited, until }),
                Ok(Err(error)) => {
                    flight.uncertain |= !matches!(error, LinkError::Full { .. });
                    return Err(self.setback_of(self.shared.client.cluster.link_failed(&link, error)));
                }
                Err(_) => {
                    flight.uncertain = true;
                    return Err(Setback::Again(self.pause()));
                }
            }
        }
        Ok(())
    }

    async fn find_leader(&self, deadline: Instant) -> Result<Arc<Link>, Setback> {
        let client = &self.shared.client;
        let leader = client.leader(&self.shared.channel, self.log, deadline).await.map_err(Setback::Final)?;
        let Some(leader) = leader else { return Err(Setback::Again(self.pause())) };
        client.cluster.link(leader, deadline).await.map_err(|error| self.setback_of(error))
    }

    fn setback_of(&self, error: CallError) -> Setback {
        match error {
            CallError::NotSent { .. } | CallError::Sent { .. } => {
                self.shared.client.cluster.heard_leader(&self.shared.channel, self.log, None);
                Setback::Again(self.pause())
            }
            CallError::Fatal(error) => Setback::Final(*error),
        }
    }

    fn pause(&self) -> Duration {
        self.shared.client.cluster.options.retry_pause
    }

    /// Waits for the oldest batch's answer, for a record, or for the next moment at which something is due.
    async fn next_event(&mut self) -> Event {
        let linger_until = self.open.as_ref().map(|open| open.since + self.shared.options.linger);
        let may_close = self.flights.len() < self.in_flight_max();
        let oldest = self.flights.front_mut();
        let oldest_until =
            oldest.as_ref().and_then(|oldest| Some(oldest.deadline.min(oldest.attempt.as_ref()?.until)));
        let due = oldest_until.into_iter().chain(linger_until.filter(|_| may_close)).min();
        let answer = async {
            match oldest.and_then(|oldest| oldest.attempt.as_mut()) {
                Some(attempt) => (&mut attempt.awaited).await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => Event::Answer(answer),
            queued = self.queue.recv(), if self.carried.is_none() && !self.closed => Event::Queued(queued),
            () = time => Event::TimeUp,
        }
    }

    async fn time_up(&mut self) {
        let now = Instant::now();
        if self.give_up_late(now) {
            return;
        }
        let attempt = self.flights.front().and_then(|oldest| oldest.attempt.as_ref());
        if let Some(attempt) = attempt.filter(|attempt| attempt.until <= now) {
            // It may believe to lead and not be able to: others are asked.
            self.shared.client.cluster.suspect(attempt.link.node);
            self.shared.client.cluster.heard_leader(&self.shared.channel, self.log, None);
            self.rewind(Duration::ZERO).await;
        }
    }

    /// Fails everything if the oldest batch's time is over.
    fn give_up_late(&mut self, now: Instant) -> bool {
        let Some(oldest) = self.flights.front_mut().filter(|oldest| oldest.deadline <= now) else {
            return false;
        };
        oldest.uncertain |= oldest.attempt.is_some();
        let waited = self.shared.options.delivery_timeout.as_millis();
        let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
        let (what, last) = ("Produce".to_owned(), "no acknowledgement".to_owned());
        self.fail_all(&ClientError::Timeout { what, waited_ms, last });
        true
    }

    async fn answered(&mut self, answer: Result<Result<AnswerFrame, LinkError>, RecvError>) {
        let Some(oldest) = self.flights.front_mut() else { return };
        let Some(Attempt { link, .. }) = oldest.attempt.take() else { return };
        let cluster = &self.shared.client.cluster;
        let setback = match answer {
            Ok(Ok(AnswerFrame { answer: Ok(answer), .. })) => match self.acknowledge(&answer) {
                true => return,
                false => {
                    oldest_uncertain(&mut self.flights);
                    let what = "Produce".to_owned();
                    Setback::Final(ClientError::UnexpectedAnswer { node: link.node, what })
                }
            },
            Ok(Ok(AnswerFrame { answer: Err(reply), .. })) => {
                oldest.uncertain |= matches!(reply.retry, Retry::MayHaveCommitted);
                self.refused(&link, reply)
            }
            Ok(Err(error)) => {
                oldest.uncertain = true;
                self.setback_of(cluster.link_failed(&link, error))
            }
            Err(_) => {
                oldest.uncertain = true;
                Setback::Again(self.pause())
            }
        };
        match setback {
            Setback::Again(pause) => self.rewind(pause).await,
            Setback::Final(error) => self.fail_all(&error),
        }
    }

    /// The oldest batch is durable. False if that is not what the answer says.
    fn acknowledge(&mut self, answer: &Answer) -> bool {
        let Answer::Produced { base_offset, last_offset, append_time, duplicate, .. } = *answer else {
            return false;
        };
        let Some(flight) = self.flights.pop_front() else { return false };
        let count = u64::from(flight.batch.count());
        (self.acknowledged, self.unknown_since, self.hints) = (Some(Instant::now()), None, 0);
        self.shared.summary(self.index, |summary| {
            summary.records += count;
            summary.bytes += flight.waiters.bytes;
            summary.batches += 1;
            summary.first_offset = summary.first_offset.or(Some(base_offset));
            summary.last_offset = Some(last_offset);
            summary.duplicates += u64::from(duplicate);
        });
        flight.waiters.deliver(self.log.partition.get(), base_offset, append_time);
        true
    }

    fn refused(&mut self, link: &Link, reply: ErrorReply) -> Setback {
        if matches!(reply.code, ErrorCode::UnknownChannel) {
            let since = *self.unknown_since.get_or_insert_with(Instant::now);
            // The leader may not have heard of a new channel yet.
            if since.elapsed() < MISSING {
                return Setback::Again(self.pause());
            }
        }
        let (cluster, channel) = (&self.shared.client.cluster, &self.shared.channel);
        if matches!(reply.code, ErrorCode::GenerationMismatch { .. }) {
            return Setback::Final(ClientError::ChannelChanged { channel: channel.clone() });
        }
        match reply.retry {
            Retry::Never => {
                Setback::Final(ClientError::Refused { node: link.node, what: "Produce".to_owned(), reply })
            }
            Retry::Here { after_ms } => {
                if is_leaderless(&reply.code) {
                    cluster.heard_leader(channel, self.log, None);
                }
                Setback::Again(self.pause().max(Duration::from_millis(after_ms.into())))
            }
            Retry::MayHaveCommitted => Setback::Again(self.pause()),
            Retry::Leader => {
                let leader = reply.leader().filter(|leader| *leader != link.node);
                cluster.heard_leader(channel, self.log, leader);
                self.hints += 1;
                let at_once = leader.is_some() && self.hints <= HINTS_MAX;
                Setback::Again(if at_once { Duration::ZERO } else { self.pause() })
            }
        }
    }

    /// Everything in flight is to be sent again, in order, after a pause.
    async fn rewind(&mut self, pause: Duration) {
        self.link = None;
        for flight in &mut self.flights {
            // Its answer, if it comes, is not looked at any more.
            flight.uncertain |= flight.attempt.take().is_some();
        }
        let now = Instant::now();
        let deadline = self.flights.front().map_or(now, |oldest| oldest.deadline);
        tokio::time::sleep_until((now + pause).min(deadline)).await;
        self.give_up_late(Instant::now());
    }

    /// The oldest batch failed for good: so does all that is behind it.
    fn fail_all(&mut self, cause: &ClientError) {
        tracing::warn!(channel = self.shared.channel, log = %self.log, %cause, "records failed");
        let mut flights = std::mem::take(&mut self.flights).into_iter();
        if let Some(oldest) = flights.next() {
            oldest.fail(cause);
        }
        flights.for_each(|flight| flight.fail_behind(cause));
        if let Some(open) = self.open.take() {
            open.waiters.fail(&super::flight::behind(cause));
        }
        if let Some(carried) = self.carried.take() {
            refuse(Queued::Record(carried), cause);
        }
        // As many as may be queued, so that this ends even if somebody keeps on sending.
        for _ in 0..self.shared.options.queue_records {
            match self.queue.try_recv() {
                Ok(queued) => refuse(queued, cause),
                Err(_) => break,
            }
        }
        (self.producer, self.next_sequence, self.acknowledged, self.link) = (None, 0, None, None);
    }
}

/// Why a batch was not acknowledged.
enum Setback {
    /// Worth trying again, after a pause.
    Again(Duration),
    /// Not worth it.
    Final(ClientError),
}

fn oldest_uncertain(flights: &mut VecDeque<Flight>) {
    if let Some(oldest) = flights.front_mut() {
        oldest.uncertain = true;
    }
}

/// The sequence number behind a batch: after `i32::MAX` comes 0.
fn sequence_after(first: i32, count: u32) -> i32 {
    let next = (i64::from(first) + i64::from(count)) & i64::from(i32::MAX);
    i32::try_from(next).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        assert_eq!(sequence_after(0, 10), 10);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }
}
