//! Notices that a node is dead: it owes answers, and not one datagram comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How often to look.
const TICK: Duration = Duration::from_millis(25);

/// How many answers a node owes, over all lanes.
#[derive(Default)]
pub(super) struct Owed {
    count: AtomicUsize,
    first: Notify,
}

impl Owed {
    pub(super) fn more(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.notify_one();
        }
    }

    pub(super) fn fewer(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
    }

    fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }
}

/// Closes `connection` once it has been silent for `silence`, counted in ticks, while answers are owed. Ends with it.
pub(super) async fn run(connection: quinn::Connection, owed: Arc<Owed>, silence: Duration) {
    let mut seen = connection.stats().udp_rx.datagrams;
    let mut quiet = Duration::ZERO;
    while connection.close_reason().is_none() {
        if !owed.any() {
            tokio::select! {
                () = owed.first.notified() => {}
                _ = connection.closed() => return,
            }
            quiet = Duration::ZERO;
        }
        tokio::time::sleep(TICK).await;
        let now = connection.stats().udp_rx.datagrams;
        quiet = if now == seen { quiet + TICK } else { Duration::ZERO };
        seen = now;
        // On a long way the first answer takes a round trip, whatever the node does. Less than a tick is no long way.
        if quiet + TICK > silence + connection.rtt() {
            connection.close(2_u32.into(), b"the node is silent");
        }
    }
}
