//! Channels: created, deleted and trimmed; and ids for idempotent producers.
//!
//! A channel is created and deleted in two steps: the meta group agrees, then the groups that carry its logs open or
//! close them. The client is answered after the second, so that what it was told it may use at once.
#![expect(clippy::wildcard_enum_match_arm, reason = "an outcome of another kind of request is one case")]

use std::sync::Arc;

use tidelog_consensus::entry::{Command, MetaCommand, NewChannel};
use tidelog_consensus::outcome::{Outcome, Refusal};
use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, LogId, NodeId, Offset, ProducerId};
use tidelog_wire::protocol::CHANNELS_PER_REQUEST_MAX;
use tokio::time::Instant;

use super::produce::refused;
use super::{Broker, BrokerError, ChannelStage, Consensus, SubmitError};
use crate::random;

/// A channel to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateChannel {
    /// Its name.
    pub name: String,
    /// Number of partitions, from 1.
    pub partitions: u32,
    /// Copies of each log; `None` takes what there is.
    pub replicas: Option<u32>,
    /// Size at which segments are sealed; `None` takes the node's default.
    pub segment_bytes: Option<u64>,
}

/// A channel that was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its generation.
    pub generation: Generation,
    /// The same as a UUID.
    pub uuid: ChannelUuid,
}

/// What an idempotent producer stamps its batches with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLease {
    /// Its id, which nobody had before.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: i16,
}

impl Broker {
    /// Creates a channel and returns once all its logs are open.
    ///
    /// # Errors
    /// [`BrokerError`]. After [`BrokerError::MayHaveCommitted`] the channel may exist: look before repeating.
    pub async fn create_channel(&self, request: CreateChannel) -> Result<Created, BrokerError> {
        let mut created = self.create_channels(vec![request]).await?;
        let nothing = BrokerError::Unexpected { outcome: "no channel".to_owned() };
        created.pop().unwrap_or(Err(nothing))
    }

    /// Creates channels by one entry, and returns once the logs of all are open. Each has an outcome of its own, in order.
    ///
    /// # Errors
    /// [`BrokerError`], about all of them. After [`BrokerError::MayHaveCommitted`] they may exist: look before repeating.
    pub async fn create_channels(
        &self,
        requests: Vec<CreateChannel>,
    ) -> Result<Vec<Result<Created, BrokerError>>, BrokerError> {
        let deadline = Instant::now() + self.limits.request;
        let mut new = Vec::with_capacity(requests.len());
        for CreateChannel { name, partitions, replicas, segment_bytes } in requests {
            // Texts in entries are bounded; what is longer cannot be a name.
            if name.len() > tidelog_consensus::entry::TEXT_BYTES_MAX {
                return Err(BrokerError::InvalidRequest {
                    reason: "channel name: at most 249 characters are allowed".to_owned(),
                });
            }
            let segment_bytes = segment_bytes.unwrap_or(self.limits.segment_bytes);
            new.push(NewChannel { name, uuid: random_uuid()?, partitions, replicas, segment_bytes });
        }
        if new.is_empty() || new.len() > CHANNELS_PER_REQUEST_MAX {
            let reason =
                format!("{} channels; 1 to {CHANNELS_PER_REQUEST_MAX} are taken at a time", new.len());
            return Err(BrokerError::InvalidRequest { reason });
        }
        let named: Vec<_> = new.iter().map(|new| (new.name.clone(), new.uuid)).collect();
        let outcome = self.meta(MetaCommand::CreateChannels(new)).await?;
        let said = unexpected(&outcome);
        let outcomes = created(outcome).filter(|outcomes| outcomes.len() == named.len()).ok_or(said)?;
        let mut results = Vec::with_capacity(outcomes.len());
        for ((name, uuid), outcome) in named.into_iter().zip(outcomes) {
            results.push(match outcome {
                Ok(generation) => match self.until_active(&name, generation, deadline).await {
                    Ok(()) => Ok(Created { generation, uuid }),
                    Err(error) => Err(error),
                },
                Err(refusal) => Err(not_created(name, &refusal)),
            });
        }
        Ok(results)
    }

    /// Waits until a channel that was begun is open.
    async fn until_active(
        &self,
        name: &str,
        generation: Generation,
        deadline: Instant,
    ) -> Result<(), BrokerError> {
        self.until(deadline, |consensus| {
            consensus.channel(name).is_some_and(|channel| {
                channel.generation == generation && channel.stage == ChannelStage::Active
            })
        })
        .await
    }

    /// Deletes the channel `name`, only if it is of `generation` where one is given. Returns the
    /// generation that ended, once its logs are closed.
    ///
    /// # Errors
    /// [`BrokerError`]. After [`BrokerError::MayHaveCommitted`] it may be gone or going: look before repeating.
    pub async fn delete_channel(
        &self,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Generation, BrokerError> {
        let deadline = Instant::now() + self.limits.request;
        let consensus = Arc::clone(self.open()?);
        self.lead(consensus.as_ref(), GroupId::META)?;
        let channel =
            consensus.channel(name).ok_or_else(|| BrokerError::UnknownChannel { name: name.to_owned() })?;
        let current = channel.generation;
        if let Some(asked) = generation.filter(|asked| *asked != current) {
            return Err(BrokerError::GenerationMismatch { asked, current });
        }
        match only(self.meta(MetaCommand::DeleteChannels(vec![current])).await?, deleted)? {
            Ok(()) => {
                self.until(deadline, |consensus| {
                    consensus.channel(name).is_none_or(|channel| channel.generation != current)
                })
                .await?;
                Ok(current)
            }
            Err(Refusal::UnknownGeneration { .. }) => {
                Err(BrokerError::UnknownChannel { name: name.to_owned() })
            }
            Err(refusal) => Err(BrokerError::InvalidRequest { reason: refusal.to_string() }),
        }
    }

    /// Forgets the records of `log` before `to` and returns the new start, which is never lower than the old.
    ///
    /// # Errors
    /// [`BrokerError`]; all but [`BrokerError::MayHaveCommitted`] say that nothing was forgotten.
    pub async fn trim(&self, log: LogId, to: Offset) -> Result<Offset, BrokerError> {
        let consensus = self.open()?;
        let group = self.group_of(consensus.as_ref(), log)?;
        self.lead(consensus.as_ref(), group)?;
        let submitted = consensus.submit(group, Command::SetLogStart { log, start: to }, self.limits.request);
        match submitted.await.map_err(|error| BrokerError::of_submit(group, error))? {
            Outcome::LogStartSet { start } => Ok(start),
            Outcome::Refused(refusal) => Err(refused(log, &refusal)),
            other => Err(unexpected(&other)),
        }
    }

    /// An id for a new idempotent producer.
    ///
    /// # Errors
    /// [`BrokerError`]; an id that was minted and not answered is never given to anyone else.
    pub async fn init_producer(&self) -> Result<ProducerLease, BrokerError> {
        match self.meta(MetaCommand::MintProducer).await? {
            Outcome::ProducerMinted(producer) => Ok(ProducerLease { producer, epoch: 0 }),
            Outcome::Refused(refusal) => Err(BrokerError::InvalidRequest { reason: refusal.to_string() }),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks this node, which must lead `group`, to hand over to `to`; on return another node leads.
    ///
    /// # Errors
    /// [`BrokerError`]; the leader may have changed all the same.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), BrokerError> {
        let consensus = self.open()?;
        // A node without a replica knows no leader of the group, and says so: others are asked.
        if consensus.catalogue().group(group).is_none() {
            return Err(BrokerError::InvalidRequest { reason: format!("there is no group {group}") });
        }
        self.lead(consensus.as_ref(), group)?;
        let transferred = consensus.transfer(group, to, self.limits.request);
        transferred.await.map_err(|error| BrokerError::of_submit(group, error))
    }

    /// Proposes to the meta group, which this node must lead.
    pub(super) async fn meta(&self, command: MetaCommand) -> Result<Outcome, BrokerError> {
        let consensus = self.open()?;
        self.lead(consensus.as_ref(), GroupId::META)?;
        let submitted = consensus.submit(GroupId::META, Command::Meta(command), self.limits.request);
        submitted.await.map_err(|error| BrokerError::of_submit(GroupId::META, error))
    }

    /// Waits for changes of the catalogue until `done` holds.
    async fn until(
        &self,
        deadline: Instant,
        done: impl Fn(&dyn Consensus) -> bool,
    ) -> Result<(), BrokerError> {
        let consensus = Arc::clone(self.open()?);
        loop {
            let changed = consensus.catalogue_change();
            if done(consensus.as_ref()) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(BrokerError::of_submit(GroupId::META, SubmitError::MayHaveCommitted));
            }
        }
    }
}

fn not_created(name: String, refusal: &Refusal) -> BrokerError {
    match refusal {
        Refusal::ChannelExists { .. } => BrokerError::ChannelExists { name },
        Refusal::ChannelBeingDeleted { .. } => {
            BrokerError::NotReady { what: format!("the name `{name}`, whose channel is being deleted,") }
        }
        refusal => BrokerError::InvalidRequest { reason: refusal.to_string() },
    }
}

fn created(outcome: Outcome) -> Option<Vec<Result<Generation, Refusal>>> {
    if let Outcome::ChannelsCreated(created) = outcome { Some(created) } else { None }
}

fn deleted(outcome: Outcome) -> Option<Vec<Result<(), Refusal>>> {
    if let Outcome::ChannelsDeleted(deleted) = outcome { Some(deleted) } else { None }
}

/// What became of the one channel that was asked about.
fn only<T>(
    outcome: Outcome,
    of: impl Fn(Outcome) -> Option<Vec<Result<T, Refusal>>>,
) -> Result<Result<T, Refusal>, BrokerError> {
    let said = unexpected(&outcome);
    of(outcome).and_then(|mut all| all.pop()).ok_or(said)
}

pub(super) fn unexpected(outcome: &Outcome) -> BrokerError {
    BrokerError::Unexpected { outcome: format!("{outcome:?}") }
}

/// A random UUID (version 4).
fn random_uuid() -> Result<ChannelUuid, BrokerError> {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let number = random::number().map_err(|error| BrokerError::NotReady {
        what: format!("the system's source of random numbers ({error})"),
    })?;
    Ok(ChannelUuid((number & !VERSION & !VARIANT) | (4 << 76) | (0b10 << 62)))
}
