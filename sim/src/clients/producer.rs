//! An idempotent producer: keeps several batches on their way to one log, retries each until it knows
//! its fate, and never gives up on one while its log exists.

use std::collections::VecDeque;

use tidelog_consensus::apply::channel::ChannelState;
use tidelog_consensus::entry::MetaCommand;
use tidelog_consensus::outcome::{Outcome, Refusal};
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{Chain, GroupId, LogId, NodeId, Partition, ProducerId};
use xxhash_rust::xxh3::xxh3_64;

use super::{Context, channel_name};
use crate::batches::batch;
use crate::chance::Chance;
use crate::coverage::Seen;
use crate::oracle::acknowledged_durability::Stands;
use crate::oracle::history::{BatchName, Read};
use crate::oracle::{Oracles, Violation};
use crate::protocol::{Request, Response};
use crate::schedule::Micros;
use crate::serve::leader_hint;
use crate::settings::Settings;

/// Batches that a healed cluster must acknowledge to each producer.
const PROGRESS: u64 = 5;

#[derive(Debug)]
pub(super) struct Producer {
    chance: Chance,
    channel: String,
    producer: Option<ProducerId>,
    target: Option<(LogId, GroupId)>,
    next_sequence: i32,
    window: VecDeque<Pending>,
    /// Its target knows it. A log takes any sequence from a producer that it does not know, so until then the
    /// first batch goes alone: overtaken by the second, it could never follow.
    known: bool,
    /// A request that is not about a batch.
    asked: Option<(u64, Micros)>,
    /// Whom it believes to lead.
    leader: Option<NodeId>,
    numbers: u64,
    acknowledged_in_calm: u64,
}

#[derive(Debug)]
struct Pending {
    batch: Batch,
    name: BatchName,
    /// Numbers of all its tries.
    tries: Vec<u64>,
    /// When to try again.
    again: Micros,
    /// It is acknowledged. It keeps its place until all before it are too: a log knows a producer's last
    /// five batches only, and a retry of an older one could not be told from a gap.
    done: bool,
}

impl Producer {
    pub(super) fn new(number: u64, settings: &Settings, chance: Chance) -> Self {
        Self {
            chance,
            channel: channel_name(number.checked_rem(settings.channels).unwrap_or(0)),
            producer: None,
            target: None,
            next_sequence: 0,
            window: VecDeque::new(),
            known: false,
            asked: None,
            leader: None,
            numbers: 0,
            acknowledged_in_calm: 0,
        }
    }

    /// What it still waits for at the end of a run.
    pub(super) fn waiting(&self) -> Option<String> {
        if self.acknowledged_in_calm < PROGRESS {
            return Some(format!(
                "a producer of {} got {} acknowledgements",
                self.channel, self.acknowledged_in_calm
            ));
        }
        let first = self.window.front()?;
        Some(format!("a producer waits for {:?} in {:?}", first.name, self.target))
    }

    fn number(&mut self) -> u64 {
        self.numbers = self.numbers.saturating_add(1);
        self.numbers
    }

    fn somebody(&mut self, context: &Context<'_>) -> NodeId {
        let anybody = self.chance.pick(context.nodes).unwrap_or(NodeId(0));
        self.leader.unwrap_or(anybody)
    }

    pub(super) fn wake(&mut self, context: &mut Context<'_>) -> u64 {
        if self.asked.is_some_and(|(_, deadline)| deadline <= context.now) {
            self.asked = None;
            self.leader = None;
        }
        match (self.producer, self.target) {
            (None, _) => self.ask(Request::Change(MetaCommand::MintProducer), context),
            (Some(_), None) => self.ask(Request::Lookup { name: self.channel.clone() }, context),
            (Some(producer), Some((log, group))) => {
                let most = if self.known { context.settings.in_flight } else { 1 };
                let room = u64::try_from(self.window.len()).is_ok_and(|len| len < most);
                let done = context.calm && self.acknowledged_in_calm >= PROGRESS;
                if room && !done {
                    self.make(producer, context.now);
                }
                self.send_due(log, group, context);
            }
        }
        self.chance.duration(context.settings.pause_micros)
    }

    fn ask(&mut self, request: Request, context: &mut Context<'_>) {
        if self.asked.is_none() {
            let number = self.number();
            self.asked = Some((number, context.deadline()));
            let node = self.somebody(context);
            context.send(node, number, request);
        }
    }

    fn make(&mut self, producer: ProducerId, now: Micros) {
        let sequence = self.next_sequence;
        let Some(batch) = batch(producer, sequence, &mut self.chance) else { return };
        self.next_sequence = sequence.saturating_add(i32::try_from(batch.count()).unwrap_or(1));
        let name = BatchName { producer, sequence };
        self.window.push_back(Pending { batch, name, tries: Vec::new(), again: now, done: false });
    }

    fn send_due(&mut self, log: LogId, group: GroupId, context: &mut Context<'_>) {
        let due: Vec<usize> = self
            .window
            .iter()
            .enumerate()
            .filter(|(_, pending)| !pending.done && pending.again <= context.now)
            .map(|(place, _)| place)
            .collect();
        for place in due {
            // What was tried and not answered may have met a node that is gone.
            if self.window.get(place).is_some_and(|pending| !pending.tries.is_empty())
                && self.chance.one_in(2)
            {
                self.leader = None;
            }
            let (number, node, deadline) = (self.number(), self.somebody(context), context.deadline());
            if let Some(pending) = self.window.get_mut(place) {
                pending.tries.push(number);
                pending.again = deadline;
                context.oracles.generation_isolation.sent(log, xxh3_64(pending.batch.chain_input()));
                let batch = pending.batch.bytes().clone();
                context.send(node, number, Request::Produce { log, group, batch });
                self.leader = Some(node);
            }
        }
    }

    pub(super) fn hears(
        &mut self,
        number: u64,
        response: Response,
        context: &mut Context<'_>,
    ) -> Result<(), Violation> {
        if self.asked.is_some_and(|(asked, _)| asked == number) {
            self.asked = None;
            self.hears_answer(response);
            return Ok(());
        }
        let open = |pending: &Pending| !pending.done && pending.tries.contains(&number);
        let Some(place) = self.window.iter().position(open) else {
            return Ok(());
        };
        match response {
            Response::Done(outcome) => self.hears_outcome(place, &outcome, context),
            Response::Failed(failure) => {
                self.leader = leader_hint(failure);
                let pause = self.chance.between(1_000, 30_000);
                if let Some(pending) = self.window.get_mut(place) {
                    pending.again = context.now.after(pause);
                }
                Ok(())
            }
            Response::Channel { .. } | Response::NoChannel | Response::Read { .. } | Response::NoLog => {
                Ok(())
            }
        }
    }

    fn hears_answer(&mut self, response: Response) {
        match response {
            Response::Done(Outcome::ProducerMinted(producer)) => self.producer = Some(producer),
            Response::Channel { generation, state: ChannelState::Active, groups } => {
                let count = u64::try_from(groups.len()).unwrap_or(0);
                let partition = Partition(u32::try_from(self.chance.below(count)).unwrap_or(0));
                let place = usize::try_from(partition.get()).unwrap_or(0);
                self.target = groups.get(place).map(|group| (LogId { generation, partition }, *group));
                self.next_sequence = 0;
                self.known = false;
            }
            Response::Failed(failure) => self.leader = leader_hint(failure),
            Response::Channel { .. }
            | Response::Done(_)
            | Response::NoChannel
            | Response::Read { .. }
            | Response::NoLog => self.leader = None,
        }
    }

    fn hears_outcome(
        &mut self,
        place: usize,
        outcome: &Outcome,
        context: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let Some((log, _)) = self.target else { return Ok(()) };
        if let Outcome::Appended { base_offset, last_offset, chain, duplicate, .. } = outcome {
            let Some(pending) = self.window.get_mut(place) else { return Ok(()) };
            pending.done = true;
            let (name, content) = (pending.name, xxh3_64(pending.batch.chain_input()));
            self.known = true;
            while self.window.front().is_some_and(|pending| pending.done) {
                self.window.pop_front();
            }
            if context.calm {
                self.acknowledged_in_calm = self.acknowledged_in_calm.saturating_add(1);
            }
            context.coverage.add(Seen::Duplicate, u64::from(*duplicate));
            let (first, last) = (*base_offset, *last_offset);
            let read = Read { first, last, name: Some(name), content, hash: content };
            return acknowledged(log, name, &read, *chain, context.oracles);
        }
        if matches!(outcome, Outcome::Refused(Refusal::OutOfOrderSequence { .. })) {
            // One before it has not arrived yet.
            context.coverage.note(Seen::OutOfOrder);
            let pause = self.chance.between(1_000, 20_000);
            if let Some(pending) = self.window.get_mut(place) {
                pending.again = context.now.after(pause);
            }
            return Ok(());
        }
        if matches!(outcome, Outcome::Refused(Refusal::LogClosed { .. })) {
            context.coverage.note(Seen::ClosedRefused);
            self.target = None;
            self.window.clear();
            return Ok(());
        }
        Err(Violation::of(
            "a valid batch for a channel in use is appended",
            format!("log {log}: {outcome:?}"),
        ))
    }
}

/// A batch was acknowledged: all checkers that look at acknowledgements.
fn acknowledged(
    log: LogId,
    name: BatchName,
    read: &Read,
    chain: Chain,
    oracles: &mut Oracles,
) -> Result<(), Violation> {
    let end = read.last.plus(1);
    let stands = Stands { first: read.first, last: read.last, content: read.content };
    oracles.exactly_once.stands(log, read)?;
    oracles.chain_agreement.is(log, end, chain, || "an acknowledgement".to_owned())?;
    oracles.high_watermark.told(log, end);
    oracles.acknowledged_durability.acknowledged(log, name, stands, &oracles.history)
}
