//! Scenarios of a producer and a consumer against nodes that fail in every way a client can see.

use std::time::Duration;

use crate::{
    Client, ClientError, ClientOptions, Codec, ConsumerOptions, Delivery, NewChannel, NewRecord, Producer,
    ProducerOptions, Start,
};
use tidelog_wire::ids::{NodeId, Offset};
use tidelog_wire::protocol::{ErrorCode, Retry};

mod fake;

use fake::{CHANNEL, FakeCluster, Fault, refusal};

fn values(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("flight {number}")).collect()
}

fn small_batches() -> ProducerOptions {
    ProducerOptions { batch_records: 10, linger: Duration::from_millis(200), ..ProducerOptions::default() }
}

fn client(cluster: &FakeCluster) -> Client {
    Client::new(cluster.profile.clone(), ClientOptions::default()).unwrap()
}

async fn send(producer: &Producer, values: &[String]) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push(producer.send(NewRecord::value(value.clone())).await.unwrap());
    }
    deliveries
}

/// Every delivery is good, and offsets are dense.
async fn all_delivered(deliveries: Vec<Delivery>) {
    for (expected, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.delivered().await.unwrap().offset, Offset(expected));
    }
}

async fn outcomes(deliveries: Vec<Delivery>) -> Vec<Result<u64, ClientError>> {
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        outcomes.push(delivery.delivered().await.map(|delivered| delivered.offset.get()));
    }
    outcomes
}

#[tokio::test]
async fn what_is_produced_is_consumed_in_order() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster);
    let options = ProducerOptions { codec: Codec::Lz4, ..small_batches() };
    let producer = client.producer(CHANNEL, options).await.unwrap();
    all_delivered(send(&producer, &values(0..500)).await).await;
    let summary = producer.close().await;
    assert_eq!((summary.records(), summary.retries(), summary.duplicates()), (500, 0, 0));
    assert_eq!(summary.partitions[0].last_offset, Some(Offset(499)));

    let options = ConsumerOptions { max_bytes: 4000, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(CHANNEL, 0, Start::Offset(Offset(7)), options).await.unwrap();
    let mut read = Vec::new();
    while consumer.position() < Offset(500) {
        let fetched = consumer.poll().await.unwrap();
        assert_eq!(fetched.high_watermark, Offset(500));
        read.extend(
            fetched
                .records
                .into_iter()
                .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()),
        );
    }
    assert_eq!(read, values(7..500));
}

#[tokio::test]
async fn a_leader_that_changes_in_mid_stream_costs_no_record_and_no_order() {
    let cluster = FakeCluster::start().await;
    cluster.with(|state| state.move_at = Some(100));
    let producer = client(&cluster).producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..300)).await).await;
    assert_eq!(cluster.values(), values(0..300));
    assert!(producer.summary().retries() > 0);
}

#[tokio::test]
async fn a_lost_answer_is_repeated_and_recognised() {
    let cluster = FakeCluster::start().await;
    let producer = client(&cluster).producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..10)).await).await;
    cluster
        .with(|state| state.faults.extend([Fault::LoseAnswer, Fault::LoseRequest, Fault::DoneButUncertain]));
    let offsets = outcomes(send(&producer, &values(10..100)).await).await;
    assert_eq!(offsets.into_iter().map(Result::unwrap).collect::<Vec<_>>(), (10..100).collect::<Vec<_>>());
    assert_eq!(cluster.values(), values(0..100), "each once, in order");
    let summary = producer.close().await;
    assert_eq!(summary.records(), 100);
    assert!(summary.duplicates() >= 1 && summary.retries() >= 2, "{summary:?}");
}

/// A node takes any first sequence from a producer it does not know: a second batch in flight could overtake the first.
#[tokio::test]
async fn a_producer_that_is_not_known_yet_sends_one_batch_at_a_time() {
    let cluster = FakeCluster::start().await;
    let busy = refusal(ErrorCode::Busy { retry_after_ms: 50 }, Retry::Here { after_ms: 50 });
    cluster.with(|state| state.faults.push_back(Fault::Refuse(busy)));
    let producer = client(&cluster).producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..50)).await).await;
    assert_eq!(cluster.values(), values(0..50));
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_taken_once() {
    let cluster = FakeCluster::start().await;
    cluster.with(|state| state.faults.extend([Fault::AnswerTwice, Fault::AnswerTwice]));
    let producer = client(&cluster).producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..50)).await).await;
    assert_eq!(producer.close().await.records(), 50);
}

#[tokio::test]
async fn a_refused_batch_fails_what_is_behind_it_and_then_the_producer_goes_on() {
    let cluster = FakeCluster::start().await;
    let producer = client(&cluster).producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..10)).await).await;
    let too_large = refusal(ErrorCode::BatchTooLarge { bytes: 2, max: 1 }, Retry::Never);
    cluster.with(|state| state.faults.push_back(Fault::Refuse(too_large)));
    let failed = outcomes(send(&producer, &values(10..20)).await).await;
    for outcome in failed {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, ClientError::Refused { node: NodeId(0), .. }), "{error}");
        assert!(!error.may_have_committed());
    }
    let again = outcomes(send(&producer, &values(10..20)).await).await;
    assert!(again.into_iter().map(Result::unwrap).eq(10..20));
    assert_eq!(cluster.values(), values(0..20));
}

#[tokio::test]
async fn a_record_whose_fate_is_unknown_when_its_time_is_up_says_so() {
    let cluster = FakeCluster::start().await;
    let uncertain = refusal(ErrorCode::TimedOutMayHaveCommitted, Retry::MayHaveCommitted);
    cluster.with(|state| state.always = Some(uncertain));
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..small_batches() };
    let producer = client(&cluster).producer(CHANNEL, options).await.unwrap();
    for outcome in outcomes(send(&producer, &values(0..10)).await).await {
        let error = outcome.unwrap_err();
        assert!(error.may_have_committed(), "{error}");
    }
}

#[tokio::test]
async fn a_record_that_was_surely_not_written_in_time_says_so() {
    let cluster = FakeCluster::start().await;
    let busy = refusal(ErrorCode::Busy { retry_after_ms: 5 }, Retry::Here { after_ms: 5 });
    cluster.with(|state| state.always = Some(busy));
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..small_batches() };
    let producer = client(&cluster).producer(CHANNEL, options).await.unwrap();
    for outcome in outcomes(send(&producer, &values(0..10)).await).await {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, ClientError::Timeout { .. }), "{error}");
        assert!(!error.may_have_committed());
    }
    assert!(cluster.values().is_empty());
}

/// Idle limit and attempt timeout are far away, so it can only be the silence that was noticed.
#[tokio::test]
async fn a_leader_that_falls_silent_is_left_for_the_next_one() {
    let cluster = FakeCluster::start().await;
    let patient = Duration::from_secs(60);
    let options = ClientOptions { idle: patient, request_timeout: patient, ..ClientOptions::default() };
    let client = Client::new(cluster.profile.clone(), options).unwrap();
    let options = ProducerOptions { attempt_timeout: patient, delivery_timeout: patient, ..small_batches() };
    let producer = client.producer(CHANNEL, options).await.unwrap();
    let mut consumer =
        client.consumer(CHANNEL, 0, Start::Earliest, ConsumerOptions::default()).await.unwrap();
    all_delivered(send(&producer, &values(0..100)).await).await;
    cluster.kill(0);
    let late = send(&producer, &values(100..200)).await;
    cluster.with(|state| state.leader = 1);
    let started = tokio::time::Instant::now();
    for outcome in outcomes(late).await {
        outcome.unwrap();
    }
    assert!(started.elapsed() < patient / 4, "only the watch is so quick: {:?}", started.elapsed());
    assert_eq!(cluster.values(), values(0..200));
    while consumer.position() < Offset(200) {
        consumer.poll().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_wrongly_believes_to_lead_is_left() {
    let cluster = FakeCluster::start().await;
    let options = ProducerOptions { attempt_timeout: Duration::from_millis(100), ..small_batches() };
    let producer = client(&cluster).producer(CHANNEL, options).await.unwrap();
    all_delivered(send(&producer, &values(0..10)).await).await;
    cluster.with(|state| {
        (state.stubborn, state.leader) = (true, 1);
        state.faults.push_back(Fault::Ignore);
    });
    let offsets = outcomes(send(&producer, &values(10..20)).await).await;
    assert!(offsets.into_iter().map(Result::unwrap).eq(10..20));
}

#[tokio::test]
async fn a_range_that_is_damaged_at_the_leader_is_read_from_another_replica() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster);
    let producer = client.producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..10)).await).await;
    cluster.with(|state| state.damaged = true);
    let mut consumer =
        client.consumer(CHANNEL, 0, Start::Earliest, ConsumerOptions::default()).await.unwrap();
    let fetched = consumer.poll().await.unwrap();
    assert_eq!((fetched.records.len(), fetched.node == NodeId(0)), (10, false));
}

/// One answer may hold many small batches of very much: only so much is decompressed at once.
#[tokio::test]
async fn small_batches_of_much_are_handed_out_poll_by_poll() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster);
    let options = ProducerOptions { codec: Codec::Zstd, batch_bytes: 16 << 20, ..small_batches() };
    let producer = client.producer(CHANNEL, options).await.unwrap();
    let zeros = bytes::Bytes::from(vec![0; 1 << 19]);
    for _ in 0..100 {
        drop(producer.send(NewRecord::value(zeros.clone())).await.unwrap());
    }
    producer.flush().await;
    assert_eq!(producer.summary().records(), 100);
    let mut consumer =
        client.consumer(CHANNEL, 0, Start::Earliest, ConsumerOptions::default()).await.unwrap();
    let mut next = 0;
    while next < 100 {
        let records = consumer.poll().await.unwrap().records;
        assert!((1..=70).contains(&records.len()), "{}", records.len());
        assert!(records.iter().map(|record| record.offset.get()).eq(next..consumer.position().get()));
        next = consumer.position().get();
    }
}

#[tokio::test]
async fn consumers_that_wait_leave_a_node_room_for_a_producer() {
    let cluster = FakeCluster::start().await;
    cluster.with(|state| state.requests_max = 4);
    let client = client(&cluster);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let options = ConsumerOptions { max_wait: Duration::from_secs(3600), ..ConsumerOptions::default() };
        let mut consumer = client.consumer(CHANNEL, 0, Start::Earliest, options).await.unwrap();
        waiting.spawn(async move { consumer.poll().await.unwrap().records.len() });
    }
    let producer = client.producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..10)).await).await;
    while let Some(read) = waiting.join_next().await {
        assert_eq!(read.unwrap(), 10);
    }
}

/// A client that has never been connected finds out which nodes are alive by asking all of them at once.
#[tokio::test]
async fn a_dead_node_does_not_delay_what_any_node_can_do() {
    let cluster = FakeCluster::start().await;
    cluster.kill(0);
    cluster.with(|state| state.leader = 1);
    let patient = Duration::from_secs(60);
    let options =
        ClientOptions { connect_timeout: patient, request_timeout: patient, ..ClientOptions::default() };
    let client = Client::new(cluster.profile.clone(), options).unwrap();
    let new = NewChannel { name: CHANNEL.to_owned(), partitions: 1, replicas: None, segment_bytes: None };
    let started = tokio::time::Instant::now();
    client.create_channel(new).await.unwrap_err();
    client.producer(CHANNEL, small_batches()).await.unwrap();
    assert!(started.elapsed() < patient / 4);
    client.close().await;
}

/// A full batch waited for the next record, or until its time to linger was over, before it was sent.
#[tokio::test]
async fn a_full_batch_does_not_linger() {
    let cluster = FakeCluster::start().await;
    let hour = Duration::from_secs(3600);
    let options = ProducerOptions { linger: hour, ..small_batches() };
    let producer = client(&cluster).producer(CHANNEL, options).await.unwrap();
    all_delivered(send(&producer, &values(0..30)).await).await;
}

#[tokio::test]
async fn a_flush_waits_for_what_is_in_flight_even_if_the_last_records_are_refused() {
    let cluster = FakeCluster::start().await;
    let producer = client(&cluster).producer(CHANNEL, small_batches()).await.unwrap();
    let good = send(&producer, &values(0..25)).await;
    let bad = producer.send(NewRecord::value(vec![0; 2 << 20])).await.unwrap();
    producer.flush().await;
    assert_eq!(producer.summary().records(), 25);
    assert!(bad.delivered().await.is_err());
    all_delivered(good).await;
}

#[tokio::test]
async fn a_damaged_answer_is_noticed_and_nothing_is_skipped() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster);
    let producer = client.producer(CHANNEL, small_batches()).await.unwrap();
    all_delivered(send(&producer, &values(0..10)).await).await;
    cluster.with(|state| state.corrupt_fetch = true);
    let mut consumer =
        client.consumer(CHANNEL, 0, Start::Earliest, ConsumerOptions::default()).await.unwrap();
    let error = consumer.poll().await.unwrap_err();
    assert!(matches!(error, ClientError::BadBatch { offset: Offset(0), .. }), "{error}");
    assert_eq!(consumer.poll().await.unwrap().records.len(), 10);
}

#[tokio::test]
async fn errors_name_what_is_wrong_before_anything_is_sent() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster);
    let missing = client.producer("nothing", ProducerOptions::default()).await.unwrap_err();
    assert!(matches!(missing, ClientError::UnknownChannel { .. }), "{missing}");
    let partition =
        client.consumer(CHANNEL, 7, Start::Earliest, ConsumerOptions::default()).await.unwrap_err();
    assert!(
        matches!(partition, ClientError::UnknownPartition { partition: 7, partitions: 1, .. }),
        "{partition}"
    );
    let options = ProducerOptions { in_flight: 6, ..ProducerOptions::default() };
    assert!(matches!(
        client.producer(CHANNEL, options).await,
        Err(ClientError::Option { name: "in_flight", .. })
    ));
    let new = NewChannel { name: CHANNEL.to_owned(), partitions: 1, replicas: None, segment_bytes: None };
    let exists = client.create_channel(new).await.unwrap_err();
    assert_eq!(exists.reply().map(|reply| reply.code.clone()), Some(ErrorCode::ChannelExists));
    let large = NewRecord::value(vec![0; 2 << 20]);
    let producer = client.producer(CHANNEL, small_batches()).await.unwrap();
    let error = producer.send(large).await.unwrap().delivered().await.unwrap_err();
    assert!(matches!(error, ClientError::Record(_)), "{error}");
    all_delivered(send(&producer, &values(0..3)).await).await;
}

/// Story: who waited until a node had left asked any node, and now and then the one that had left: it never hears of its own
/// removal's end, so the wait was in vain.
#[tokio::test]
async fn a_node_that_does_not_have_what_was_agreed_on_is_not_believed_about_the_cluster() {
    for leader in 0..3 {
        let cluster = FakeCluster::start().await;
        cluster.with(|state| state.leader = leader);
        assert!(client(&cluster).cluster().await.unwrap().current, "node {leader} has it all");
    }
    let cluster = FakeCluster::start().await;
    cluster.with(|state| state.leader = 99);
    assert!(!client(&cluster).cluster().await.unwrap().current, "nobody has, and the answer says so");
}
