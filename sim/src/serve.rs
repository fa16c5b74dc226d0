//! A node's side of the clients' protocol, and the road between the two.

use tidelog_consensus::core::{Input, ProposeFailure};
use tidelog_consensus::entry::Command;
use tidelog_engine::log::ReadError;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset};

use crate::oracle::Violation;
use crate::protocol::{ClientId, Request, Response, Waiter};
use crate::world::{Event, World};

/// Bytes that one read asks for: small, so that a log takes several.
const READ_BYTES: usize = 4 << 10;

impl World {
    /// A request arrives at a node.
    pub(crate) fn serve(
        &mut self,
        node: NodeId,
        client: ClientId,
        number: u64,
        request: Request,
    ) -> Result<(), Violation> {
        let now = self.schedule.now();
        let Some(clock) = self.nodes.get(&node).map(|state| state.clock(now)) else { return Ok(()) };
        let Some(life) = self.life(node) else { return Ok(()) };
        let waiter = |group, read| Some(Waiter { client, number, group, read });
        match request {
            Request::Lookup { name } => {
                let catalogue = life.machines.catalogue();
                let response =
                    catalogue.channel(&name).map_or(Response::NoChannel, |channel| Response::Channel {
                        generation: channel.generation,
                        state: channel.state,
                        groups: channel.groups.clone(),
                    });
                self.respond(node, client, number, response);
                Ok(())
            }
            Request::Produce { log, group, batch } => {
                let command = Command::Append { log, append_time: clock, batch };
                self.propose(node, group, command, waiter(group, None))
            }
            Request::Change(command) => {
                self.propose(node, GroupId::META, Command::Meta(command), waiter(GroupId::META, None))
            }
            Request::Trim { log, group, start } => {
                self.propose(node, group, Command::SetLogStart { log, start }, waiter(group, None))
            }
            Request::Fetch { log, from } => self.read_for(node, client, number, log, from),
            Request::FetchCurrent { log, group, from } => {
                let token = life.token();
                life.waiters.insert(token, Waiter { client, number, group, read: Some((log, from)) });
                self.step(node, Input::ReadIndex { group, token })
            }
        }
    }

    /// Reads a log on a node and sends what was read.
    pub(crate) fn read_for(
        &mut self,
        node: NodeId,
        client: ClientId,
        number: u64,
        log: LogId,
        from: Offset,
    ) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let number_of_life = life.number;
        let Some(reader) = life.machines.reader(log) else {
            self.respond(node, client, number, Response::NoLog);
            return Ok(());
        };
        let start = reader.start();
        let (end, chain) = reader.end_and_chain();
        let from = from.max(start).min(end);
        let batches = match reader.read(from, READ_BYTES) {
            Ok(read) => read.batches,
            Err(ReadError::Io { .. }) if self.doomed.contains_key(&node) => return Ok(()),
            Err(error) => {
                return Err(Violation::of("what is committed can be read", format!("node {node}: {error}")));
            }
        };
        self.oracles.monotonic_reads.readable(node, number_of_life, log, end)?;
        self.oracles.log_start.is(node, log, start)?;
        self.oracles.chain_agreement.is(log, end, chain, || format!("a reader on node {node}"))?;
        self.oracles.read(node, log, from, &batches)?;
        self.respond(node, client, number, Response::Read { start, end, from, batches });
        Ok(())
    }

    /// Sends a response on its way. It may get lost.
    pub(crate) fn respond(&mut self, node: NodeId, client: ClientId, number: u64, response: Response) {
        if self.client_link_fails() {
            return;
        }
        let fields =
            [("node", node.get()), ("client", u64::try_from(client.0).unwrap_or(0)), ("number", number)];
        self.trace.note(self.schedule.now(), "respond", &fields);
        let delay = self.client_delay();
        self.schedule.after(delay, Event::Response { client, number, response });
    }

    /// Sends a request on its way. It may get lost.
    pub(crate) fn request(&mut self, client: ClientId, node: NodeId, number: u64, request: Request) {
        if self.client_link_fails() {
            return;
        }
        let delay = self.client_delay();
        self.schedule.after(delay, Event::Request { node, client, number, request });
    }

    fn client_link_fails(&mut self) -> bool {
        !self.calm && self.chance.permille(self.settings.network.loss_permille)
    }

    fn client_delay(&mut self) -> u64 {
        if self.calm { self.chance.between(50, 500) } else { self.chance.duration(300) }
    }
}

/// What a failure says about where to try next.
pub(crate) fn leader_hint(failure: ProposeFailure) -> Option<NodeId> {
    match failure {
        ProposeFailure::NotLeader { leader } => leader,
        ProposeFailure::Superseded
        | ProposeFailure::Busy
        | ProposeFailure::NotReady
        | ProposeFailure::TooLarge
        | ProposeFailure::Members(_)
        | ProposeFailure::MayHaveCommitted => None,
    }
}
