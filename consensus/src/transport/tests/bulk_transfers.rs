//! Bulk transfers: whole, resumable, bounded, and never in the way of control messages.

use std::io;
use std::sync::Mutex;

use super::*;

const MIB: u64 = 1 << 20;

/// The byte at each position of a test object.
fn byte_at(position: u64) -> u8 {
    u8::try_from(position.wrapping_mul(0x9e37_79b9) >> 13 & 0xff).unwrap()
}

/// Serves objects named by their length, with an optional hitch.
struct Source {
    /// Reads at or beyond this position wait for the sender to be dropped.
    hold: Mutex<Option<(u64, std::sync::mpsc::Receiver<()>)>>,
    /// The first read at or beyond this position fails.
    fail: Arc<Mutex<Option<u64>>>,
}

struct Object {
    total: u64,
    hold: Option<(u64, std::sync::mpsc::Receiver<()>)>,
    fail: Arc<Mutex<Option<u64>>>,
}

impl BulkSource for Source {
    fn open(&self, _: NodeId, request: Bytes) -> Result<Box<dyn BulkObject>, String> {
        let text = String::from_utf8(request.to_vec()).map_err(|_| "no text".to_owned())?;
        let total = text.parse().map_err(|_| format!("nothing is called `{text}`"))?;
        let hold = self.hold.lock().unwrap().take();
        Ok(Box::new(Object { total, hold, fail: Arc::clone(&self.fail) }))
    }
}

impl BulkObject for Object {
    fn total(&self) -> u64 {
        self.total
    }

    fn read(&mut self, position: u64, bytes_max: usize) -> io::Result<Bytes> {
        if let Some((at, held)) = &self.hold
            && position >= *at
        {
            // Ends when the test drops its half.
            assert!(held.recv().is_err());
            self.hold = None;
        }
        let mut fail = self.fail.lock().unwrap();
        if fail.is_some_and(|at| position >= at) {
            *fail = None;
            return Err(io::ErrorKind::Other.into());
        }
        drop(fail);
        let end = self.total.min(position + u64::try_from(bytes_max).unwrap());
        Ok((position..end).map(byte_at).collect())
    }
}

async fn serving_pair(source: Source, tuning: TransportTuning) -> (TestNode, TestNode) {
    let authority = Authority::create(CLUSTER).unwrap();
    let addresses = free_addresses::<2>();
    let [nowhere] = free_addresses::<1>();
    let credentials = credentials(&authority, 0);
    let mut zero = start_with(credentials, hello(0, 1), &addresses, Arc::new(source), tuning);
    let mut one = start(&authority, hello(1, 1), &[nowhere, addresses[1]]);
    zero.up().await;
    one.up().await;
    (zero, one)
}

fn plain() -> Source {
    Source { hold: Mutex::new(None), fail: Arc::default() }
}

/// Reads to the end and checks every byte.
async fn read_all(reader: &mut BulkReader) -> Result<(), TransportError> {
    loop {
        let start = reader.position();
        let Some(bytes) = reader.next().await? else { return Ok(()) };
        assert!((start..).zip(&bytes).all(|(at, byte)| *byte == byte_at(at)), "bytes from {start}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_messages_pass_a_64_mib_transfer_that_is_under_way() {
    let (release, held) = std::sync::mpsc::channel();
    let source = Source { hold: Mutex::new(Some((48 * MIB, held))), fail: Arc::default() };
    let (mut zero, mut one) = serving_pair(source, patient()).await;
    let request = Bytes::from((64 * MIB).to_string());
    let mut reader = one.transport.fetch(NodeId(0), request, 0).await.unwrap();
    assert_eq!(reader.total(), 64 * MIB);
    let fetched = tokio::spawn(async move {
        read_all(&mut reader).await.unwrap();
        reader.position()
    });
    // The transfer cannot end before all of these have gone there and back.
    for number in 0..100_u32 {
        one.transport.send(NodeId(0), Lane::Control, GROUP, numbered(number)).unwrap();
        while zero.message().await.2 != numbered(number) {}
        zero.transport.send(NodeId(1), Lane::Control, GROUP, numbered(number)).unwrap();
        while one.message().await.2 != numbered(number) {}
    }
    assert!(!fetched.is_finished());
    drop(release);
    assert_eq!(timeout(PATIENCE, fetched).await.unwrap().unwrap(), 64 * MIB);
    assert_eq!(one.transport.metrics().bulk_bytes_received.value(), 64 * MIB);
}

/// All transfers that are allowed at once, and nobody reads them: every byte that may wait on the way
/// does. Messages of both lanes, the largest that a stream's window takes, still get through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_that_nobody_reads_do_not_hold_up_messages() {
    let tuning = TransportTuning { stream_window_bytes: 1 << 20, ..patient() };
    let authority = Authority::create(CLUSTER).unwrap();
    let addresses = free_addresses::<2>();
    let [nowhere] = free_addresses::<1>();
    let one_sees = [nowhere, addresses[1]];
    let source = Arc::new(plain());
    let mut zero = start_with(credentials(&authority, 0), hello(0, 1), &addresses, source, tuning);
    let mut one = start_with(credentials(&authority, 1), hello(1, 1), &one_sees, Arc::new(NoBulk), tuning);
    one.up().await;
    zero.up().await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(one.transport.fetch(NodeId(0), (64 * MIB).to_string().into(), 0).await.unwrap());
    }
    // Each stream is full once the server has handed over a window's worth of it.
    while zero.transport.metrics().bulk_bytes_sent.value() < 3 * (MIB - 128 * 1024) {
        tokio::task::yield_now().await;
    }
    let large = Bytes::from(vec![7; 1 << 20]);
    for number in 0..20_u32 {
        for lane in [Lane::Append, Lane::Control] {
            let message = if lane == Lane::Append { large.clone() } else { numbered(number) };
            zero.transport.send(NodeId(1), lane, GROUP, message.clone()).unwrap();
            assert_eq!(one.message().await, (NodeId(0), lane, message.clone()));
            one.transport.send(NodeId(0), lane, GROUP, message.clone()).unwrap();
            assert_eq!(zero.message().await, (NodeId(1), lane, message));
        }
    }
    // A fourth waits for its turn.
    let request = Bytes::from_static(b"1000");
    let fourth = one.transport.fetch(NodeId(0), request.clone(), 0);
    assert!(timeout(Duration::from_millis(50), fourth).await.is_err());
    stalled.clear();
    loop {
        match one.transport.fetch(NodeId(0), request.clone(), 0).await {
            Ok(mut reader) => {
                read_all(&mut reader).await.unwrap();
                return;
            }
            // The server has not noticed yet that the others were given up.
            Err(busy) => assert!(busy.to_string().contains("busy"), "{busy}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_broke_off_goes_on_where_it_stopped() {
    let fail = Arc::new(Mutex::new(Some(MIB)));
    let source = Source { hold: Mutex::new(None), fail: Arc::clone(&fail) };
    let (_zero, one) = serving_pair(source, patient()).await;
    let request = Bytes::from((3 * MIB).to_string());
    let mut reader = one.transport.fetch(NodeId(0), request.clone(), 0).await.unwrap();
    let error = read_all(&mut reader).await.unwrap_err();
    let position = reader.position();
    assert!(error.to_string().starts_with("E1317 node 0 stopped at byte"), "{error}");
    assert!(position <= MIB);
    let mut reader = one.transport.fetch(NodeId(0), request, position).await.unwrap();
    read_all(&mut reader).await.unwrap();
    assert_eq!(reader.position(), 3 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_with_their_reason() {
    let (_zero, one) = serving_pair(plain(), patient()).await;
    let fetch = |request: &'static str, position| one.transport.fetch(NodeId(0), request.into(), position);
    let text = fetch("gold", 0).await.unwrap_err().to_string();
    assert!(text.starts_with("E1316") && text.contains("nothing is called `gold`"), "{text}");
    let text = fetch("100", 101).await.unwrap_err().to_string();
    assert!(text.contains("beyond the end"), "{text}");
    let mut at_the_end = fetch("100", 100).await.unwrap();
    assert_eq!(at_the_end.next().await.unwrap(), None);
    let unknown = one.transport.fetch(NodeId(5), Bytes::new(), 0).await.unwrap_err();
    assert!(matches!(unknown, TransportError::UnknownNode { .. }), "{unknown}");
    let large = Bytes::from(vec![0; BULK_REQUEST_BYTES_MAX + 1]);
    let large = one.transport.fetch(NodeId(0), large, 0).await.unwrap_err();
    assert!(matches!(large, TransportError::TooLarge { .. }), "{large}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transfer_too_many_is_refused_not_queued() {
    let (release, held) = std::sync::mpsc::channel();
    let source = Source { hold: Mutex::new(Some((0, held))), fail: Arc::default() };
    let tuning = TransportTuning { bulk_served_max: 1, ..patient() };
    let (_zero, one) = serving_pair(source, tuning).await;
    let mut first = one.transport.fetch(NodeId(0), "1000".into(), 0).await.unwrap();
    let second = one.transport.fetch(NodeId(0), "1000".into(), 0).await.unwrap_err().to_string();
    assert!(second.contains("busy"), "{second}");
    // Asks have slots of their own.
    assert_eq!(one.transport.ask(NodeId(0), "who?".into()).await.unwrap(), "who?");
    drop(release);
    read_all(&mut first).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_spreads_a_transfer_over_time() {
    let tuning = TransportTuning { bulk_bytes_per_second: Some(4 * MIB), ..patient() };
    let (_zero, one) = serving_pair(plain(), tuning).await;
    let started = tokio::time::Instant::now();
    let mut reader = one.transport.fetch(NodeId(0), MIB.to_string().into(), 0).await.unwrap();
    read_all(&mut reader).await.unwrap();
    // Seven pauses of 128 KiB at 4 MiB a second; a slow machine only makes it longer.
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}
