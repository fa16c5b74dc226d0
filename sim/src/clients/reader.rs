//! A reader: follows logs on any node, sometimes demanding what is current. The reads themselves go to the
//! oracles where they are made.

use tidelog_consensus::apply::channel::ChannelState;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset, Partition};

use super::{Context, channel_name};
use crate::chance::Chance;
use crate::oracle::Violation;
use crate::protocol::{Request, Response};
use crate::schedule::Micros;

#[derive(Debug)]
pub(super) struct Reader {
    chance: Chance,
    target: Option<(LogId, GroupId)>,
    cursor: Offset,
    asked: Option<Asked>,
    numbers: u64,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    node: NodeId,
    deadline: Micros,
    /// For a current read: what it must see.
    least: Option<Offset>,
}

impl Reader {
    pub(super) fn new(chance: Chance) -> Self {
        Self { chance, target: None, cursor: Offset(0), asked: None, numbers: 0 }
    }

    pub(super) fn wake(&mut self, context: &mut Context<'_>) -> u64 {
        if self.asked.as_ref().is_some_and(|asked| asked.deadline <= context.now) {
            self.asked = None;
        }
        if self.asked.is_none() {
            if self.chance.one_in(30) {
                self.target = None;
            }
            self.ask(context);
        }
        self.chance.between(2_000, 60_000)
    }

    fn ask(&mut self, context: &mut Context<'_>) {
        let node = self.chance.pick(context.nodes).unwrap_or(NodeId(0));
        self.numbers = self.numbers.saturating_add(1);
        let number = self.numbers;
        let mut least = None;
        let request = match self.target {
            None => Request::Lookup { name: channel_name(self.chance.below(context.settings.channels)) },
            Some((log, group)) if self.chance.one_in(3) => {
                least = Some(context.oracles.high_watermark.asked(log));
                Request::FetchCurrent { log, group, from: self.cursor }
            }
            Some((log, _)) => Request::Fetch { log, from: self.cursor },
        };
        self.asked = Some(Asked { number, node, deadline: context.deadline(), least });
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
            Response::Channel { generation, state: ChannelState::Active, groups } => {
                let place = self.chance.below(u64::try_from(groups.len()).unwrap_or(0));
                let group = usize::try_from(place).ok().and_then(|place| groups.get(place).copied());
                let partition = Partition(u32::try_from(place).unwrap_or(0));
                self.target = group.map(|group| (LogId { generation, partition }, group));
                self.cursor = Offset(0);
                Ok(())
            }
            Response::Read { start, end, from, batches } => {
                let Some((log, _)) = self.target else { return Ok(()) };
                if let Some(least) = asked.least {
                    context.oracles.high_watermark.answered(asked.node, log, least, end)?;
                }
                self.cursor = context.oracles.read(asked.node, log, from, &batches)?.max(start);
                Ok(())
            }
            Response::NoLog | Response::Channel { .. } | Response::NoChannel => {
                self.target = None;
                Ok(())
            }
            Response::Failed(_) | Response::Done(_) => Ok(()),
        }
    }
}
