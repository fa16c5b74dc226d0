//! The admin: sees to it that all channels exist, and now and then deletes one (so that it is created
//! anew), trims a log, or says that a node was started.

use std::collections::BTreeSet;

use tidelog_consensus::apply::channel::ChannelState;
use tidelog_consensus::entry::{MetaCommand, NewChannel};
use tidelog_consensus::outcome::{Outcome, Refusal};
use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, LogId, NodeId, Offset, Partition};

use super::{Context, channel_name};
use crate::chance::Chance;
use crate::coverage::Seen;
use crate::oracle::Violation;
use crate::protocol::{Request, Response};
use crate::schedule::Micros;
use crate::serve::leader_hint;
use crate::settings::Settings;

/// However rarely it changes something, it looks this often.
const MOST_PAUSE_MICROS: u64 = 3_000_000;

#[derive(Debug)]
pub(super) struct Admin {
    chance: Chance,
    channels: u64,
    /// Which channel it looks at.
    at: u64,
    /// Channels known to be active since it last changed something.
    active: u64,
    /// Names that were given before.
    created: BTreeSet<u64>,
    asked: Option<Asked>,
    leader: Option<NodeId>,
    numbers: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    deadline: Micros,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Look,
    Change,
    Trim,
}

impl Admin {
    pub(super) fn new(settings: &Settings, chance: Chance) -> Self {
        Self {
            chance,
            channels: settings.channels,
            at: 0,
            active: 0,
            created: BTreeSet::new(),
            asked: None,
            leader: None,
            numbers: 0,
        }
    }

    /// What it still waits for at the end of a run.
    pub(super) fn waiting(&self) -> Option<String> {
        let missing = self.active < self.channels;
        missing.then(|| format!("{} of {} channels are active", self.active, self.channels))
    }

    pub(super) fn wake(&mut self, context: &mut Context<'_>) -> u64 {
        if self.asked.is_some_and(|asked| asked.deadline <= context.now) {
            self.asked = None;
            self.leader = None;
        }
        if self.asked.is_none() {
            let name = channel_name(self.at);
            self.ask(What::Look, Request::Lookup { name }, context);
        }
        if self.active >= self.channels && !context.calm && context.settings.admin_micros > 0 {
            return self.chance.duration(context.settings.admin_micros).min(MOST_PAUSE_MICROS);
        }
        self.chance.between(10_000, 60_000)
    }

    fn ask(&mut self, what: What, request: Request, context: &mut Context<'_>) {
        self.numbers = self.numbers.saturating_add(1);
        let number = self.numbers;
        self.asked = Some(Asked { number, deadline: context.deadline(), what });
        let anybody = self.chance.pick(context.nodes).unwrap_or(NodeId(0));
        let node = match what {
            What::Look => anybody,
            What::Change | What::Trim => self.leader.unwrap_or(anybody),
        };
        context.send(node, number, request);
    }

    pub(super) fn hears(
        &mut self,
        number: u64,
        response: Response,
        context: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let Some(asked) = self.asked.take_if(|asked| asked.number == number) else { return Ok(()) };
        match response {
            Response::NoChannel => {
                self.active = 0;
                let command = self.creation(context.settings);
                self.ask(What::Change, Request::Change(command), context);
            }
            Response::Channel { generation, state, groups } => {
                if state == ChannelState::Active {
                    self.active = self.active.saturating_add(1).min(self.channels);
                    self.go_on(generation, &groups, context);
                } else {
                    self.active = 0;
                }
                self.at = self.at.saturating_add(1).checked_rem(self.channels).unwrap_or(0);
            }
            Response::Failed(failure) => self.leader = leader_hint(failure),
            Response::Done(Outcome::Refused(Refusal::OffsetOutOfRange { log, asked, start, end })) => {
                return Err(Violation::of(
                    "a log holds all that was acknowledged",
                    format!("log {log}: trimming to {asked} refused: {start}..{end}"),
                ));
            }
            Response::Done(outcome) => {
                self.cover(&outcome, context);
                if asked.what == What::Change {
                    self.active = 0;
                }
            }
            Response::Read { .. } | Response::NoLog => {
                if asked.what == What::Change {
                    self.active = 0;
                }
            }
        }
        Ok(())
    }

    fn cover(&mut self, outcome: &Outcome, context: &mut Context<'_>) {
        if matches!(outcome, Outcome::ChannelsCreated(each) if each.iter().all(Result::is_ok)) {
            context.coverage.note(Seen::Created);
            if !self.created.insert(self.at) {
                context.coverage.note(Seen::Recreated);
            }
        } else if matches!(outcome, Outcome::ChannelsDeleted(each) if each.iter().all(Result::is_ok)) {
            context.coverage.note(Seen::Deleted);
        } else if matches!(outcome, Outcome::LogStartSet { .. }) {
            context.coverage.note(Seen::Trimmed);
        }
    }

    fn creation(&mut self, settings: &Settings) -> MetaCommand {
        let uuid = u128::from(self.chance.draw()) << 64 | u128::from(self.chance.draw());
        MetaCommand::CreateChannels(vec![NewChannel {
            name: channel_name(self.at),
            uuid: ChannelUuid(uuid),
            partitions: u32::try_from(settings.partitions).unwrap_or(1),
            replicas: None,
            segment_bytes: settings.segment_bytes,
        }])
    }

    /// Something to do about an active channel.
    fn go_on(&mut self, generation: Generation, groups: &[GroupId], context: &mut Context<'_>) {
        if context.calm || context.settings.admin_micros == 0 {
            return;
        }
        match self.chance.below(8) {
            0 | 1 => {
                let command = MetaCommand::DeleteChannels(vec![generation]);
                self.ask(What::Change, Request::Change(command), context);
            }
            2..=4 => {
                let place = self.chance.below(u64::try_from(groups.len()).unwrap_or(0));
                let Some(group) = usize::try_from(place).ok().and_then(|place| groups.get(place).copied())
                else {
                    return;
                };
                let log = LogId { generation, partition: Partition(u32::try_from(place).unwrap_or(0)) };
                let end = context.oracles.acknowledged_durability.end(log).get();
                let purge = self.chance.one_in(3);
                let start = Offset(if purge { end } else { self.chance.between(0, end) });
                context.coverage.add(Seen::Purged, u64::from(purge && end > 0));
                context.oracles.log_start.asked(log, start);
                self.ask(What::Trim, Request::Trim { log, group, start }, context);
            }
            _ => {}
        }
    }
}
