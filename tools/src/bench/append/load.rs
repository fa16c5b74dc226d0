//! The load: as many appends under way as there are slots, each slot with channels and producers of its own.
//!
//! A slot sends the next record when the one before is acknowledged, to its channels in turns. Every channel has at least one
//! slot and every slot at least one channel, so one channel is written by all slots, and many channels are shared out.

use std::time::Duration;

use bytes::Bytes;
use tidelog_client::{Client, NewRecord, Producer, ProducerOptions};
use tidelog_wire::ids::TimestampMs;
use tidelog_wire::records::{BatchBuilder, BuilderLimits};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Append, OPENED_AT_ONCE, value};
use crate::error::CliError;

/// An acknowledged append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) ended: Instant,
    pub(super) took: Duration,
}

/// What the load was.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) samples: Vec<Sample>,
    /// Time in which appends were under way.
    pub(super) busy: Duration,
}

/// All slots.
pub(super) struct Load {
    slots: Vec<Slot>,
    value: Bytes,
    loaded: Loaded,
}

struct Slot {
    producers: Vec<Producer>,
    next: usize,
    value: Bytes,
}

impl Slot {
    async fn append(&mut self) -> Result<Sample, CliError> {
        self.next = (self.next + 1) % self.producers.len().max(1);
        let producer = self.producers.get(self.next).ok_or(CliError::Interrupted)?;
        let begun = Instant::now();
        producer.send(NewRecord::value(self.value.clone())).await?.delivered().await?;
        let ended = Instant::now();
        Ok(Sample { ended, took: ended - begun })
    }
}

/// One append of a load with one slot.
pub(super) struct Once<'a>(&'a mut Load);

impl Once<'_> {
    pub(super) async fn append(self) -> Result<(), CliError> {
        let Load { slots, loaded, .. } = self.0;
        let slot = slots.first_mut().ok_or(CliError::Interrupted)?;
        let sample = slot.append().await?;
        loaded.busy += sample.took;
        loaded.samples.push(sample);
        Ok(())
    }
}

impl Load {
    /// Opens the producers; the clients are shared out to the slots.
    pub(super) async fn open(
        clients: &[Client],
        channels: &[String],
        append: &Append,
    ) -> Result<Self, CliError> {
        let value = value(append.record_bytes);
        let count = usize::try_from(append.slots()).unwrap_or(usize::MAX);
        let mut slots: Vec<Slot> =
            (0..count).map(|_| Slot { producers: Vec::new(), next: 0, value: value.clone() }).collect();
        let mut opening = JoinSet::new();
        for number in 0..count.max(channels.len()) {
            if opening.len() >= OPENED_AT_ONCE {
                keep(&mut slots, opening.join_next().await)?;
            }
            let (Some(client), Some(channel)) =
                (clients.get(number % count % clients.len()), channels.get(number % channels.len()))
            else {
                continue;
            };
            let (client, channel) = (client.clone(), channel.clone());
            let options = ProducerOptions { in_flight: 1, batch_records: 1, ..ProducerOptions::default() };
            opening.spawn(async move { (number % count, client.producer(&channel, options).await) });
        }
        while !opening.is_empty() {
            keep(&mut slots, opening.join_next().await)?;
        }
        Ok(Self { slots, value, loaded: Loaded::default() })
    }

    /// The bytes of a batch as it is sent.
    pub(super) async fn batch(&self) -> Result<Bytes, CliError> {
        let mut builder = BatchBuilder::new(tidelog_client::Codec::None, BuilderLimits::default());
        let _taken = builder
            .push(TimestampMs::ZERO, None, Some(&self.value), &[])
            .map_err(tidelog_client::ClientError::from)?;
        let batch = builder.build(None).map_err(tidelog_client::ClientError::from)?;
        Ok(batch.bytes().clone())
    }

    /// Every producer appends a few times, so that it knows its leader and its id.
    pub(super) async fn warm_up(&mut self) -> Result<(), CliError> {
        let most = self.slots.iter().map(|slot| slot.producers.len()).max().unwrap_or(0);
        let times = if most == 1 { 50 } else { most };
        self.turns(move |done| done < times).await?;
        self.loaded = Loaded::default();
        Ok(())
    }

    /// All slots append for so long; on return nothing is under way.
    pub(super) async fn stretch(&mut self, length: Duration) -> Result<(), CliError> {
        let end = Instant::now() + length;
        self.turns(move |_| Instant::now() < end).await
    }

    /// The next append of the only slot.
    pub(super) fn once(&mut self) -> Once<'_> {
        Once(self)
    }

    async fn turns(&mut self, more: impl Fn(usize) -> bool + Copy + Send + 'static) -> Result<(), CliError> {
        let begun = Instant::now();
        let mut under_way = JoinSet::new();
        for mut slot in self.slots.drain(..) {
            under_way.spawn(async move {
                let mut samples = Vec::new();
                while more(samples.len()) {
                    samples.push(slot.append().await?);
                }
                Ok::<_, CliError>((slot, samples))
            });
        }
        while let Some(ended) = under_way.join_next().await {
            let (slot, samples) = ended.map_err(|_| CliError::Interrupted)??;
            self.slots.push(slot);
            self.loaded.samples.extend(samples);
        }
        self.loaded.busy += begun.elapsed();
        Ok(())
    }

    /// Closes the producers.
    pub(super) async fn finish(self) -> Loaded {
        for slot in self.slots {
            for producer in slot.producers {
                producer.close().await;
            }
        }
        self.loaded
    }
}

type Opened = Result<(usize, Result<Producer, tidelog_client::ClientError>), tokio::task::JoinError>;

fn keep(slots: &mut [Slot], opened: Option<Opened>) -> Result<(), CliError> {
    if let Some(opened) = opened {
        let (slot, producer) = opened.map_err(|_| CliError::Interrupted)?;
        if let Some(slot) = slots.get_mut(slot) {
            slot.producers.push(producer?);
        }
    }
    Ok(())
}
