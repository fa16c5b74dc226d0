//! Counters of a transport. They only rise, except for the number of connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn add_len(&self, len: usize) {
        self.add(u64::try_from(len).unwrap_or(u64::MAX));
    }

    pub(super) fn take(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What a transport has done.
#[derive(Debug, Default)]
pub struct TransportMetrics {
    /// Peers that are connected now.
    pub connected: Counter,
    /// Frames handed to the network, both lanes.
    pub frames_sent: Counter,
    /// Their bytes.
    pub bytes_sent: Counter,
    /// Frames received, both lanes.
    pub frames_received: Counter,
    /// Their bytes.
    pub bytes_received: Counter,
    /// Frames dropped because the queue was full.
    pub dropped_full: Counter,
    /// Frames dropped because the peer was not connected.
    pub dropped_down: Counter,
    /// Frames of guests, neither taken nor sent.
    pub dropped_guest: Counter,
    /// Dials and accepted connections that did not get through TLS and hellos.
    pub handshakes_failed: Counter,
    /// Connections closed because the peer broke the protocol.
    pub violations: Counter,
    /// Connections replaced by a newer one.
    pub replaced: Counter,
    /// Bytes of bulk transfers served.
    pub bulk_bytes_sent: Counter,
    /// Bytes of bulk transfers fetched.
    pub bulk_bytes_received: Counter,
}
