//! Clients: they ask over links that lose and delay, wait with deadlines, retry, and tell the oracles
//! what they were told.

mod admin;
mod producer;
mod reader;

use tidelog_wire::ids::NodeId;

use crate::chance::Chance;
use crate::coverage::Coverage;
use crate::oracle::{Oracles, Violation};
use crate::protocol::{ClientId, Request, Response};
use crate::schedule::Micros;
use crate::settings::Settings;
use crate::world::{Event, World};
use admin::Admin;
use producer::Producer;
use reader::Reader;

/// How long a client waits for an answer.
const PATIENCE_MICROS: u64 = 400_000;
/// Readers of a run.
const READERS: usize = 2;

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    all: Vec<Client>,
    blame: Option<Violation>,
}

#[derive(Debug)]
enum Client {
    Producer(Producer),
    Reader(Reader),
    Admin(Admin),
}

/// What a client can see and do.
pub(crate) struct Context<'a> {
    pub(crate) now: Micros,
    pub(crate) nodes: &'a [NodeId],
    pub(crate) settings: &'a Settings,
    pub(crate) oracles: &'a mut Oracles,
    pub(crate) coverage: &'a mut Coverage,
    /// Faults are over.
    pub(crate) calm: bool,
    out: Vec<(NodeId, u64, Request)>,
}

impl Context<'_> {
    /// Sends a request.
    pub(crate) fn send(&mut self, node: NodeId, number: u64, request: Request) {
        self.out.push((node, number, request));
    }

    /// When patience with a request sent now ends.
    pub(crate) fn deadline(&self) -> Micros {
        self.now.after(PATIENCE_MICROS)
    }
}

impl Clients {
    pub(crate) fn new(settings: &Settings, chance: &mut Chance) -> Self {
        let mut all = vec![Client::Admin(Admin::new(settings, chance.fork(10)))];
        for number in 0..settings.producers {
            all.push(Client::Producer(Producer::new(number, settings, chance.fork(100 + number))));
        }
        for _ in 0..READERS {
            all.push(Client::Reader(Reader::new(chance.fork(200))));
        }
        Self { all, blame: None }
    }

    pub(crate) fn ids(&self) -> Vec<ClientId> {
        (0..self.all.len()).map(ClientId).collect()
    }

    /// Remembers a broken promise that was seen where it could not be returned.
    pub(crate) fn blame(&mut self, violation: Violation) {
        self.blame.get_or_insert(violation);
    }

    fn blamed(&mut self) -> Result<(), Violation> {
        self.blame.take().map_or(Ok(()), Err)
    }

    /// What still waits, for the end of a run: `None` if all clients are content.
    pub(crate) fn waiting(&self) -> Option<String> {
        self.all.iter().find_map(|client| match client {
            Client::Producer(producer) => producer.waiting(),
            Client::Admin(admin) => admin.waiting(),
            Client::Reader(_) => None,
        })
    }
}

/// The name of a channel.
pub(crate) fn channel_name(number: u64) -> String {
    format!("channel-{number}")
}

impl World {
    /// A client's clock strikes.
    pub(crate) fn client_wakes(&mut self, id: ClientId) -> Result<(), Violation> {
        self.clients.blamed()?;
        let again = self.with_client(id, |client, context| {
            Ok(match client {
                Client::Producer(producer) => producer.wake(context),
                Client::Reader(reader) => reader.wake(context),
                Client::Admin(admin) => admin.wake(context),
            })
        })?;
        if let Some(delay) = again {
            self.schedule.after(delay, Event::Wake { client: id });
        }
        Ok(())
    }

    /// A client gets an answer.
    pub(crate) fn client_hears(
        &mut self,
        id: ClientId,
        number: u64,
        response: Response,
    ) -> Result<(), Violation> {
        self.clients.blamed()?;
        self.with_client(id, |client, context| match client {
            Client::Producer(producer) => producer.hears(number, response, context),
            Client::Reader(reader) => reader.hears(number, response, context),
            Client::Admin(admin) => admin.hears(number, response, context),
        })?;
        Ok(())
    }

    fn with_client<T>(
        &mut self,
        id: ClientId,
        act: impl FnOnce(&mut Client, &mut Context<'_>) -> Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        let nodes = self.node_ids();
        let Some(client) = self.clients.all.get_mut(id.0) else { return Ok(None) };
        let mut context = Context {
            now: self.schedule.now(),
            nodes: &nodes,
            settings: &self.settings,
            oracles: &mut self.oracles,
            coverage: &mut self.coverage,
            calm: self.calm,
            out: Vec::new(),
        };
        let done = act(client, &mut context)?;
        for (node, number, request) in context.out {
            self.request(id, node, number, request);
        }
        Ok(Some(done))
    }
}
