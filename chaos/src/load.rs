//! The load: idempotent producers over several channels and partitions, and a channel that comes and goes.
//!
//! 1. Each *steady* channel has two writers; one lets keys choose the partition, the other names it.
//! 2. One channel is *recreated* over and over: created, written to, deleted while it is written to, and created under the
//!    same name.
//! 3. A writer whose producer fails (after an outage, or because the channel is gone) goes on with a new one, as a new
//!    writer: records of one writer are never sent by two producers.
//! 4. What came of each record goes into the [`Ledger`], in the order in which its writer sent them.
//!
//! Not here: whether that is true (`crate::check`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_client::{Client, ClientError, Delivery, NewChannel, NewRecord, Producer, ProducerOptions};
use tidelog_wire::ids::{Generation, LogId, Partition};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::ledger::{Ledger, Written};

/// Channels that live as long as the run, and their partitions.
pub const STEADY: [(&str, u32); 2] = [("steady-a", 3), ("steady-b", 2)];
/// The channel that comes and goes.
pub const RECREATED: &str = "recreated";
const RECREATED_PARTITIONS: u32 = 2;
/// Between two bursts of a writer.
const BURST_EVERY: Duration = Duration::from_millis(20);
/// Records of a writer whose outcome is not known yet; then it waits.
const UNDER_WAY_MAX: usize = 4096;
/// Shortest and longest life of the channel that comes and goes, in milliseconds.
const LIFE_MS: (u64, u64) = (1500, 5000);
/// How long a record is tried: longer than any outage that a fault makes.
const DELIVERY: Duration = Duration::from_secs(40);
/// After something failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    ledger: Mutex<Ledger>,
    recreated: Mutex<u64>,
    pauses: Mutex<Pauses>,
    /// Records in each burst.
    burst: u64,
    stopping: watch::Receiver<bool>,
}

/// The longest time that a log was without an acknowledgement.
#[derive(Debug, Default)]
struct Pauses {
    last: BTreeMap<LogId, Instant>,
    longest: Duration,
}

impl Pauses {
    fn acknowledged(&mut self, log: LogId, now: Instant) {
        if let Some(last) = self.last.insert(log, now) {
            self.longest = self.longest.max(now.duration_since(last));
        }
    }
}

/// How a writer chooses partitions.
#[derive(Clone, Copy, Debug)]
enum Route {
    ByKey,
    Named { partitions: u64 },
}

impl Load {
    /// Makes the steady channels, and begins.
    ///
    /// # Errors
    /// Those of creating a channel.
    pub async fn start(client: Client, burst: u64, mut dice: Dice) -> Result<Self, ClientError> {
        for (name, partitions) in STEADY {
            create(&client, name, partitions).await?;
        }
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared {
            client,
            ledger: Mutex::default(),
            recreated: Mutex::new(0),
            pauses: Mutex::default(),
            burst,
            stopping,
        });
        let mut tasks = JoinSet::new();
        for (name, partitions) in STEADY {
            for route in [Route::ByKey, Route::Named { partitions: partitions.into() }] {
                let (shared, dice) = (Arc::clone(&shared), dice.split());
                tasks.spawn(async move { shared.write_on(name, route, dice).await });
            }
        }
        let (recreating, dice) = (Arc::clone(&shared), dice.split());
        tasks.spawn(async move { recreating.recreate(dice).await });
        Ok(Self { shared, stop, tasks })
    }

    /// What was sent so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger()
    }

    /// How often the channel that comes and goes was created.
    #[must_use]
    pub fn recreated(&self) -> u64 {
        *self.shared.recreated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest time that any log was without an acknowledgement, since pauses were forgotten last.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        self.shared.pauses().longest
    }

    /// What was before does not count any more.
    pub fn forget_pauses(&self) {
        self.shared.pauses().longest = Duration::ZERO;
    }

    /// Stops sending, and waits until something is known about every record that was sent.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Creates a channel, or finds that it is there: an answer may have been lost.
async fn create(client: &Client, name: &str, partitions: u32) -> Result<(), ClientError> {
    let new = NewChannel { name: name.to_owned(), partitions, replicas: None, segment_bytes: None };
    let Err(error) = client.create_channel(new).await else { return Ok(()) };
    if client.channel(name).await.is_ok() { Ok(()) } else { Err(error) }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits, but not beyond the end of the load.
    async fn pause(&self, pause: Duration) {
        let mut stopping = self.stopping.clone();
        drop(tokio::time::timeout(pause, stopping.wait_for(|stopping| *stopping)).await);
    }

    /// Writes to a channel that stays, with one producer after the other.
    async fn write_on(self: Arc<Self>, channel: &'static str, route: Route, mut dice: Dice) {
        while !self.is_stopping() {
            match self.client.producer(channel, options()).await {
                Ok(producer) => self.write(producer, route, dice.split(), &AtomicBool::new(false)).await,
                Err(_) => self.pause(PAUSE).await,
            }
        }
    }

    /// Lets a channel come and go.
    async fn recreate(self: Arc<Self>, mut dice: Dice) {
        while !self.is_stopping() {
            if create(&self.client, RECREATED, RECREATED_PARTITIONS).await.is_err() {
                self.pause(PAUSE).await;
                continue;
            }
            let Ok(producer) = self.client.producer(RECREATED, options()).await else { continue };
            *self.recreated.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let generation = producer.generation();
            let over = AtomicBool::new(false);
            let partitions = RECREATED_PARTITIONS.into();
            let writing = self.write(producer, Route::Named { partitions }, dice.split(), &over);
            let life = dice.between_ms(LIFE_MS.0, LIFE_MS.1);
            let living = async {
                self.pause(life).await;
                if !self.is_stopping() {
                    self.delete(generation).await;
                }
                over.store(true, Ordering::Relaxed);
            };
            tokio::join!(writing, living);
        }
    }

    /// Ends a channel's life: tries until that life is known to be over.
    async fn delete(&self, generation: Generation) {
        self.ledger().deleted(generation);
        while !self.is_stopping() {
            let deleted = self.client.delete_channel(RECREATED, Some(generation)).await;
            let over = match deleted {
                Ok(_) => true,
                Err(_) => match self.client.channel(RECREATED).await {
                    Ok(info) => info.generation > generation,
                    Err(error) => matches!(error, ClientError::UnknownChannel { .. }),
                },
            };
            if over {
                return;
            }
            self.pause(PAUSE).await;
        }
    }

    /// Writes bursts until the load ends, `over` says so, or a record fails.
    async fn write(&self, producer: Producer, route: Route, mut dice: Dice, over: &AtomicBool) {
        let generation = producer.generation();
        let writer = self.ledger().add_writer(generation);
        let (under_way, outcomes) = mpsc::channel(UNDER_WAY_MAX);
        let failed = AtomicBool::new(false);
        let ended = || self.is_stopping() || over.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
        let sending = async {
            let mut pace = tokio::time::interval(BURST_EVERY);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            'bursts: while !ended() {
                pace.tick().await;
                for _ in 0..self.burst {
                    let written = self.ledger().send(writer);
                    let record = record(written, generation, route, &mut dice);
                    let Ok(delivery) = producer.send(record).await else {
                        self.ledger().refused(written);
                        break 'bursts;
                    };
                    if under_way.send((written, delivery)).await.is_err() {
                        break 'bursts;
                    }
                }
            }
            drop(under_way);
            producer.close().await;
        };
        tokio::join!(sending, self.take_outcomes(generation, outcomes, &failed));
    }

    async fn take_outcomes(
        &self,
        generation: Generation,
        mut outcomes: mpsc::Receiver<(Written, Delivery)>,
        failed: &AtomicBool,
    ) {
        while let Some((written, delivery)) = outcomes.recv().await {
            let outcome = delivery.delivered().await;
            let mut ledger = self.ledger();
            match outcome {
                Ok(delivered) => {
                    let log = LogId { generation, partition: Partition(delivered.partition) };
                    self.pauses().acknowledged(log, Instant::now());
                    ledger.acknowledged(written, log, delivered.offset);
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    if error.may_have_committed() { ledger.unknown() } else { ledger.refused(written) }
                }
            }
        }
    }
}

fn options() -> ProducerOptions {
    ProducerOptions { queue_records: 1024, delivery_timeout: DELIVERY, ..ProducerOptions::default() }
}

/// A record of some length, most of them short.
fn record(written: Written, generation: Generation, route: Route, dice: &mut Dice) -> NewRecord {
    let longest = if dice.percent(5) { 8 << 10 } else { 400 };
    let bytes = usize::try_from(dice.below(longest)).unwrap_or(0);
    let record = NewRecord::value(written.value(generation, bytes));
    match route {
        Route::ByKey => NewRecord { key: Some(format!("key-{}", dice.below(1000)).into()), ..record },
        Route::Named { partitions } => {
            NewRecord { partition: u32::try_from(dice.below(partitions)).ok(), ..record }
        }
    }
}
