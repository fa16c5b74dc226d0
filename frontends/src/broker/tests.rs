use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::entry::Command;
use tidelog_wire::ids::{Generation, GroupId, LogId, NodeId, Offset, Partition, TimestampMs};

use super::batches::batch_of;
use super::fake::GROUP;
use super::*;
use crate::broker::fake::FakeConsensus;

const LIMITS: Limits = Limits {
    batch_bytes: 1 << 20,
    fetch_bytes: 1 << 20,
    fetch_wait: Duration::from_secs(30),
    request: Duration::from_secs(10),
    segment_bytes: 1 << 20,
};

struct World {
    broker: Arc<Broker>,
    consensus: Arc<FakeConsensus>,
}

fn world() -> World {
    world_with(LIMITS)
}

fn world_with(limits: Limits) -> World {
    let broker = Arc::new(Broker::new(NodeId(0), limits, Arc::default()));
    let consensus = FakeConsensus::new(NodeId(0));
    let attached: Arc<FakeConsensus> = Arc::clone(&consensus);
    broker.attach(attached);
    World { broker, consensus }
}

async fn channel(world: &World, name: &str) -> LogId {
    let request = CreateChannel { name: name.to_owned(), partitions: 2, replicas: None, segment_bytes: None };
    let generation = world.broker.create_channel(request).await.unwrap().generation;
    LogId { generation, partition: Partition(0) }
}

fn fetch(log: LogId, offset: u64) -> FetchRequest {
    FetchRequest {
        log,
        offset: Offset(offset),
        bytes_max: 1 << 20,
        bytes_min: 1,
        wait: Duration::ZERO,
        any_replica: false,
    }
}

async fn fetched(broker: &Broker, request: FetchRequest) -> Result<Fetched, BrokerError> {
    broker.fetch(request, |_| async {}).await.map(|(fetched, _)| fetched)
}

#[tokio::test]
async fn an_acknowledged_batch_is_fetched_as_it_was_sent() {
    let world = world();
    let log = channel(&world, "orders").await;
    let batch = batch_of(&["paid", "shipped"]);
    let acknowledged = world.broker.produce(log, batch.clone()).await.unwrap();
    assert_eq!((acknowledged.base_offset, acknowledged.last_offset), (Offset(0), Offset(1)));
    let found = fetched(&world.broker, fetch(log, 0)).await.unwrap();
    assert_eq!(found.batches, [batch]);
    assert_eq!((found.next_offset, found.high_watermark), (Offset(2), Offset(2)));
    assert_eq!(world.broker.counts().append_records.value(), 2);
}

/// A producer with several batches in flight must not see them swapped, even if it awaits the answers backwards.
#[tokio::test]
async fn batches_are_proposed_in_the_order_of_calls_however_late_they_are_awaited() {
    let world = world();
    let log = channel(&world, "orders").await;
    let batches: Vec<_> = ["a", "b", "c", "d", "e"].map(|value| batch_of(&[value])).into();
    let mut answers: Vec<_> = batches.iter().map(|batch| world.broker.produce(log, batch.clone())).collect();
    while let Some(answer) = answers.pop() {
        answer.await.unwrap();
    }
    let proposed =
        world.consensus.submitted().into_iter().filter_map(|command| {
            if let Command::Append { batch, .. } = command { Some(batch) } else { None }
        });
    assert_eq!(proposed.collect::<Vec<_>>(), batches);
}

#[tokio::test]
async fn a_request_to_a_node_that_does_not_lead_names_the_leader() {
    let world = world();
    let log = channel(&world, "orders").await;
    world.consensus.set_leader(GROUP, Some(NodeId(2)));
    let expected = BrokerError::NotLeader { group: GROUP, leader: NodeId(2) };
    assert_eq!(world.broker.produce(log, batch_of(&["x"])).await, Err(expected.clone()));
    assert_eq!(fetched(&world.broker, fetch(log, 0)).await, Err(expected.clone()));
    assert_eq!(world.broker.offset_at(log, When::Latest).await, Err(expected));
    let from_any = FetchRequest { any_replica: true, ..fetch(log, 0) };
    assert!(fetched(&world.broker, from_any).await.is_ok());

    world.consensus.set_leader(GROUP, None);
    let error = world.broker.produce(log, batch_of(&["x"])).await.unwrap_err();
    assert_eq!(error, BrokerError::NoQuorum { group: GROUP });
}

#[tokio::test]
async fn what_consensus_says_of_a_proposal_reaches_the_client_without_a_guess() {
    let world = world();
    let log = channel(&world, "orders").await;
    let cases = [
        (SubmitError::Busy { retry_after_ms: 70 }, BrokerError::Busy { group: GROUP, retry_after_ms: 70 }),
        (SubmitError::MayHaveCommitted, BrokerError::MayHaveCommitted { group: GROUP }),
        (SubmitError::DiskFull, BrokerError::DiskFull { group: GROUP }),
        (SubmitError::Superseded, BrokerError::NoQuorum { group: GROUP }),
        (
            SubmitError::NotLeader { leader: Some(NodeId(1)) },
            BrokerError::NotLeader { group: GROUP, leader: NodeId(1) },
        ),
    ];
    for (from, expected) in cases {
        world.consensus.fail_next(from);
        assert_eq!(world.broker.produce(log, batch_of(&["x"])).await, Err(expected));
    }
}

#[tokio::test]
async fn a_stale_generation_is_told_which_one_is_current() {
    let world = world();
    let old = channel(&world, "orders").await;
    world.broker.delete_channel("orders", None).await.unwrap();
    let error = world.broker.produce(old, batch_of(&["x"])).await.unwrap_err();
    assert!(matches!(error, BrokerError::UnknownLog { .. }), "{error}");
    let new = channel(&world, "orders").await;
    let error = world.broker.produce(old, batch_of(&["x"])).await.unwrap_err();
    assert_eq!(error, BrokerError::GenerationMismatch { asked: old.generation, current: new.generation });
    let error = world.broker.delete_channel("orders", Some(old.generation)).await.unwrap_err();
    assert_eq!(error, BrokerError::GenerationMismatch { asked: old.generation, current: new.generation });
}

#[tokio::test]
async fn what_does_not_exist_is_an_error_that_says_what_there_is() {
    let world = world();
    let log = channel(&world, "orders").await;
    let beyond = LogId { partition: Partition(2), ..log };
    let text = world.broker.produce(beyond, batch_of(&["x"])).await.unwrap_err().to_string();
    assert!(text.contains("the channel has 2 partitions"), "{text}");
    let unknown = LogId { generation: Generation(99), ..log };
    assert!(fetched(&world.broker, fetch(unknown, 0)).await.unwrap_err().to_string().starts_with("E2104"));
    let error = world.broker.delete_channel("nothing", None).await.unwrap_err();
    assert_eq!(error, BrokerError::UnknownChannel { name: "nothing".to_owned() });
    let request =
        CreateChannel { name: "orders".to_owned(), partitions: 1, replicas: None, segment_bytes: None };
    let error = world.broker.create_channel(request).await.unwrap_err();
    assert_eq!(error, BrokerError::ChannelExists { name: "orders".to_owned() });
}

#[tokio::test]
async fn offsets_outside_of_the_log_are_refused_with_its_bounds() {
    let world = world();
    let log = channel(&world, "orders").await;
    for value in ["a", "b", "c"] {
        world.broker.produce(log, batch_of(&[value])).await.unwrap();
    }
    assert_eq!(world.broker.trim(log, Offset(1)).await, Ok(Offset(1)));
    let out = |asked| BrokerError::OffsetOutOfRange { log, asked, start: Offset(1), end: Offset(3) };
    assert_eq!(fetched(&world.broker, fetch(log, 0)).await, Err(out(Offset(0))));
    assert_eq!(fetched(&world.broker, fetch(log, 4)).await, Err(out(Offset(4))));
    assert_eq!(world.broker.trim(log, Offset(4)).await, Err(out(Offset(4))));
    assert_eq!(world.broker.offset_at(log, When::Earliest).await, Ok(Offset(1)));
    assert_eq!(world.broker.offset_at(log, When::Latest).await, Ok(Offset(3)));
    assert_eq!(world.broker.offset_at(log, When::Time(TimestampMs(0))).await, Ok(Offset(0)));
}

#[tokio::test]
async fn a_batch_above_the_limit_and_bytes_that_are_no_batch_never_reach_consensus() {
    let world = world_with(Limits { batch_bytes: 200, ..LIMITS });
    let log = channel(&world, "orders").await;
    let before = world.consensus.submitted().len();
    let large = batch_of(&["x".repeat(300).as_str()]);
    let error = world.broker.produce(log, large.clone()).await.unwrap_err();
    let bytes = u64::try_from(large.len()).unwrap();
    assert_eq!(error, BrokerError::BatchTooLarge { bytes, max: 200 });
    let error = world.broker.produce(log, Bytes::from_static(b"no batch")).await.unwrap_err();
    assert!(matches!(error, BrokerError::InvalidBatch { .. }), "{error}");
    let mut damaged = batch_of(&["x"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let error = world.broker.produce(log, Bytes::from(damaged)).await.unwrap_err();
    assert!(matches!(error, BrokerError::CorruptBatch { .. }), "{error}");
    assert_eq!(world.consensus.submitted().len(), before);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_is_woken_by_the_batch_it_waits_for() {
    let world = world();
    let log = channel(&world, "orders").await;
    let waiting = FetchRequest { wait: Duration::from_secs(20), ..fetch(log, 0) };
    let fetching = tokio::spawn({
        let broker = Arc::clone(&world.broker);
        async move { fetched(&broker, waiting).await }
    });
    tokio::task::yield_now().await;
    world.broker.produce(log, batch_of(&["late"])).await.unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(fetching.await.unwrap().unwrap().batches.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(20), "it did not wait for its time to pass");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waited_in_vain_is_answered_empty_after_its_time() {
    let world = world();
    let log = channel(&world, "orders").await;
    let started = tokio::time::Instant::now();
    let waiting = FetchRequest { wait: Duration::from_secs(3), ..fetch(log, 0) };
    let found = fetched(&world.broker, waiting).await.unwrap();
    assert_eq!((found.batches.len(), found.next_offset), (0, Offset(0)));
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_answers_waiting_fetches_and_takes_nothing_new() {
    let world = world();
    let log = channel(&world, "orders").await;
    let waiting = FetchRequest { wait: Duration::from_secs(20), ..fetch(log, 0) };
    let fetching = tokio::spawn({
        let broker = Arc::clone(&world.broker);
        async move { fetched(&broker, waiting).await }
    });
    tokio::task::yield_now().await;
    let started = tokio::time::Instant::now();
    world.broker.begin_stop();
    assert!(fetching.await.unwrap().unwrap().batches.is_empty());
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(world.broker.produce(log, batch_of(&["x"])).await, Err(BrokerError::Stopping));
    assert_eq!(world.broker.readiness().stage, Stage::Stopping);
}

#[tokio::test]
async fn a_fetch_keeps_to_its_bytes_but_always_gives_one_batch() {
    let world = world();
    let log = channel(&world, "orders").await;
    for value in ["a", "b", "c"] {
        world.broker.produce(log, batch_of(&[value])).await.unwrap();
    }
    let one = batch_of(&["a"]).len();
    let tiny = FetchRequest { bytes_max: 1, ..fetch(log, 0) };
    assert_eq!(fetched(&world.broker, tiny).await.unwrap().batches.len(), 1);
    let two = FetchRequest { bytes_max: 2 * one, ..fetch(log, 0) };
    let found = fetched(&world.broker, two).await.unwrap();
    assert_eq!((found.batches.len(), found.next_offset), (2, Offset(2)));
}

#[tokio::test]
async fn a_damaged_range_costs_its_offsets_and_no_others() {
    let world = world();
    let log = channel(&world, "orders").await;
    for value in ["a", "b", "c"] {
        world.broker.produce(log, batch_of(&[value])).await.unwrap();
    }
    world.consensus.fake_log(log).damage(Offset(1)..Offset(2));
    assert_eq!(fetched(&world.broker, fetch(log, 0)).await.unwrap().next_offset, Offset(1));
    let error = fetched(&world.broker, fetch(log, 1)).await.unwrap_err();
    assert_eq!(error, BrokerError::DamagedRange { log, start: Offset(1), end: Offset(2) });
    assert_eq!(fetched(&world.broker, fetch(log, 2)).await.unwrap().batches.len(), 1);
}

/// What the disk refuses in a range is told by that range, so that a client reads it elsewhere; it is no damage.
#[tokio::test]
async fn a_range_that_the_disk_refuses_costs_its_offsets_and_no_others() {
    let world = world();
    let log = channel(&world, "orders").await;
    for value in ["a", "b", "c"] {
        world.broker.produce(log, batch_of(&[value])).await.unwrap();
    }
    let (range, said) = (Offset(1)..Offset(2), "0.seg: input/output error".to_owned());
    world.consensus.fake_log(log).fail(range.clone(), ReadFailure::Unreadable { range, said: said.clone() });
    assert_eq!(fetched(&world.broker, fetch(log, 0)).await.unwrap().next_offset, Offset(1));
    let error = fetched(&world.broker, fetch(log, 1)).await.unwrap_err();
    assert_eq!(error, BrokerError::UnreadableRange { log, start: Offset(1), end: Offset(2), said });
    assert_eq!(fetched(&world.broker, fetch(log, 2)).await.unwrap().batches.len(), 1);
}

/// Story: a fetch that waited on a log that was removed, or opened again when its replica switched to a snapshot, was
/// woken, found nothing new and was woken at once again: a processor was busy with it until its time was over, and
/// then the client heard that there is nothing new.
#[tokio::test]
async fn a_fetch_that_waits_on_a_log_that_ends_is_told_at_once() {
    for (how, code) in [(ReadFailure::Closed, "E2104"), (ReadFailure::Reopened, "E2114")] {
        let world = world();
        let log = channel(&world, "orders").await;
        let waiting = FetchRequest { wait: Duration::from_secs(20), ..fetch(log, 0) };
        let fetching = tokio::spawn({
            let broker = Arc::clone(&world.broker);
            async move { fetched(&broker, waiting).await }
        });
        tokio::task::yield_now().await;
        world.consensus.fake_log(log).end(how);
        let error = fetching.await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with(code), "{error}");
    }
}

#[tokio::test]
async fn before_consensus_has_started_everything_is_not_ready() {
    let broker = Arc::new(Broker::new(NodeId(3), LIMITS, Arc::default()));
    let log = LogId { generation: Generation(1), partition: Partition(0) };
    assert!(matches!(broker.produce(log, batch_of(&["x"])).await, Err(BrokerError::NotReady { .. })));
    assert!(matches!(broker.init_producer().await, Err(BrokerError::NotReady { .. })));
    let readiness = broker.readiness();
    assert_eq!((readiness.ready, readiness.stage), (false, Stage::Recovering));
    assert!(broker.cluster().is_none());
}

#[tokio::test]
async fn a_node_is_ready_once_every_group_has_a_leader() {
    let world = world();
    assert!(world.broker.readiness().ready);
    world.consensus.set_leader(GROUP, None);
    let readiness = world.broker.readiness();
    assert_eq!((readiness.ready, readiness.stage), (false, Stage::Joining));
    assert_eq!(readiness.waiting_for_leader, [GROUP]);
    assert!(readiness.registered);
}

#[tokio::test]
async fn producer_ids_are_never_handed_out_twice() {
    let world = world();
    let first = world.broker.init_producer().await.unwrap();
    let second = world.broker.init_producer().await.unwrap();
    assert_ne!(first.producer, second.producer);
    assert_eq!(first.epoch, 0);
}

#[tokio::test]
async fn leadership_is_handed_over_only_by_the_one_who_has_it() {
    let world = world();
    world.broker.transfer_leader(GROUP, NodeId(1)).await.unwrap();
    let error = world.broker.transfer_leader(GROUP, NodeId(0)).await.unwrap_err();
    assert_eq!(error, BrokerError::NotLeader { group: GROUP, leader: NodeId(1) });
    let error = world.broker.transfer_leader(GroupId(99), NodeId(0)).await.unwrap_err();
    assert!(matches!(error, BrokerError::InvalidRequest { .. }), "{error}");
}

/// A consumer that has read up to here from the old leader must not be told that its offset does not exist, only
/// because the new one has not applied it yet.
#[tokio::test]
async fn a_new_leader_asks_to_wait_until_it_knows_what_was_acknowledged() {
    let world = world();
    let log = channel(&world, "orders").await;
    world.consensus.set_unsettled(true);
    let error = fetched(&world.broker, fetch(log, 7)).await.unwrap_err();
    assert!(matches!(error, BrokerError::NotReady { .. }), "{error}");
    let error = world.broker.offset_at(log, When::Earliest).await.unwrap_err();
    assert!(matches!(error, BrokerError::NotReady { .. }), "{error}");
    world.consensus.set_unsettled(false);
    assert!(fetched(&world.broker, fetch(log, 0)).await.is_ok());
}

#[tokio::test]
async fn a_follower_that_lags_answers_empty_for_what_it_does_not_have_yet() {
    let world = world();
    let log = channel(&world, "orders").await;
    world.broker.produce(log, batch_of(&["x"])).await.unwrap();
    world.consensus.set_leader(GROUP, Some(NodeId(2)));
    let ahead = FetchRequest { any_replica: true, ..fetch(log, 9) };
    let found = fetched(&world.broker, ahead).await.unwrap();
    assert_eq!((found.next_offset, found.high_watermark, found.batches.len()), (Offset(9), Offset(1), 0));
}

/// A client that was refused for want of a leader used to ask around every 50 ms until somebody knew one.
#[tokio::test(start_paused = true)]
async fn a_batch_that_finds_no_leader_is_told_of_the_next_one_when_it_is_known() {
    let world = world();
    let log = channel(&world, "orders").await;
    world.consensus.set_leader(GROUP, None);
    let refused = tokio::spawn(world.broker.produce(log, batch_of(&["a"])));
    tokio::task::yield_now().await;
    world.consensus.set_leader(GROUP, Some(NodeId(7)));
    let started = tokio::time::Instant::now();
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(error, BrokerError::NotLeader { group: GROUP, leader: NodeId(7) });
    assert_eq!(started.elapsed(), Duration::ZERO, "at once");
    world.consensus.set_leader(GROUP, None);
    let error = world.broker.produce(log, batch_of(&["a"])).await.unwrap_err();
    assert_eq!(
        error,
        BrokerError::NoQuorum { group: GROUP },
        "nobody leads for as long as it may be put off"
    );
}

#[tokio::test]
async fn cursors_are_read_by_name_or_all_and_only_where_they_are_current() {
    let world = world();
    let log = channel(&world, "orders").await;
    let one = world.broker.cursors(log, Some("reader")).await.unwrap();
    assert_eq!(one, [("reader".to_owned(), Offset(7))]);
    assert_eq!(world.broker.cursors(log, None).await.unwrap().len(), 2);
    assert_eq!(world.broker.cursors(log, Some("nobody")).await, Ok(Vec::new()));
    let error = world.broker.set_cursor(log, String::new(), None).await.unwrap_err();
    assert!(matches!(error, BrokerError::InvalidRequest { .. }), "{error}");
    world.consensus.set_leader(GROUP, Some(NodeId(1)));
    let error = world.broker.cursors(log, None).await.unwrap_err();
    assert_eq!(error, BrokerError::NotLeader { group: GROUP, leader: NodeId(1) });
}

#[tokio::test]
async fn what_the_cluster_should_look_like_is_told_without_a_majority_too_and_said_to_be_old() {
    let world = world();
    assert!(world.broker.placement().await.unwrap().1);
    world.consensus.set_leader(GroupId::META, None);
    assert!(!world.broker.placement().await.unwrap().1);
}
