//! The sockets between the nodes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::rules::{Fate, Rules};
use crate::dice::Dice;

/// Datagrams that may be on their way late; more are lost, as in a router whose queue is full.
const LATE_MAX: usize = 8192;
/// Room for the longest datagram.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Where a node is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// By its peers: the proxy's.
    pub told: SocketAddr,
    /// By the proxy: its own.
    pub own: SocketAddr,
}

/// A running proxy. Dropped, it stops.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    nodes: BTreeMap<u64, Ends>,
    sockets: BTreeMap<u64, UdpSocket>,
    rules: Mutex<Rules>,
    room: Arc<Semaphore>,
    sent_on: AtomicU64,
    lost: AtomicU64,
}

impl Proxy {
    /// Listens for each of `nodes`. Must be called inside a runtime.
    ///
    /// # Errors
    /// The system's, if an address cannot be bound.
    pub async fn start(nodes: BTreeMap<u64, Ends>, mut dice: Dice) -> io::Result<Self> {
        let mut sockets = BTreeMap::new();
        for (node, ends) in &nodes {
            sockets.insert(*node, UdpSocket::bind(ends.told).await?);
        }
        let shared = Arc::new(Shared {
            nodes,
            sockets,
            rules: Mutex::default(),
            room: Arc::new(Semaphore::new(LATE_MAX)),
            sent_on: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for node in shared.nodes.keys() {
            tasks.spawn(Arc::clone(&shared).receive(*node, dice.split()));
        }
        Ok(Self { shared, _tasks: tasks })
    }

    /// What the network is like; changes hold from the next datagram on.
    pub fn rules(&self) -> MutexGuard<'_, Rules> {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Datagrams sent on, and lost, so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.sent_on.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// Takes what comes to the address that is told of node `to`.
    async fn receive(self: Arc<Self>, to: u64, mut dice: Dice) {
        let Some(socket) = self.sockets.get(&to) else { return };
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            // An error is about a datagram that was sent before, to a process that is no more.
            let Ok((len, source)) = socket.recv_from(&mut buffer).await else { continue };
            let sender = self.nodes.iter().find(|(_, ends)| ends.own == source);
            let (Some((from, _)), Some(datagram)) = (sender, buffer.get(..len)) else { continue };
            let fate = self.rules.lock().unwrap_or_else(PoisonError::into_inner).fate(*from, to, &mut dice);
            match fate {
                Fate::Lost => self.count_lost(),
                Fate::SentOn(Duration::ZERO) => self.send(*from, to, datagram).await,
                Fate::SentOn(delay) => self.send_late(*from, to, Bytes::copy_from_slice(datagram), delay),
            }
        }
    }

    fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    async fn send(&self, from: u64, to: u64, datagram: &[u8]) {
        let (Some(socket), Some(ends)) = (self.sockets.get(&from), self.nodes.get(&to)) else { return };
        match socket.send_to(datagram, ends.own).await {
            Ok(_) => {
                self.sent_on.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.count_lost(),
        }
    }

    fn send_late(self: &Arc<Self>, from: u64, to: u64, datagram: Bytes, delay: Duration) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return self.count_lost() };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            shared.send(from, to, &datagram).await;
            drop(room);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rule;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Two nodes that are sockets, and the proxy between them.
    async fn two() -> (Proxy, [UdpSocket; 2], [Ends; 2]) {
        let mut ends = Vec::new();
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let free = UdpSocket::bind("127.0.1.9:0").await.unwrap().local_addr().unwrap();
            ends.push(Ends { told: free, own: node.local_addr().unwrap() });
            nodes.push(node);
        }
        let ends: [Ends; 2] = ends.try_into().unwrap();
        let proxy = Proxy::start((0..).zip(ends).collect(), Dice::new(1)).await.unwrap();
        (proxy, nodes.try_into().unwrap(), ends)
    }

    async fn receive(node: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 100];
        let (len, source) =
            tokio::time::timeout(PATIENCE, node.recv_from(&mut buffer)).await.expect("a datagram").unwrap();
        (buffer[..len].to_vec(), source)
    }

    #[tokio::test]
    async fn a_node_sees_another_at_the_address_that_is_told_of_it_and_answers_there() {
        let (_proxy, [first, second], [first_ends, second_ends]) = two().await;
        first.send_to(b"hello", second_ends.told).await.unwrap();
        let (bytes, source) = receive(&second).await;
        assert_eq!((bytes.as_slice(), source), (&b"hello"[..], first_ends.told));
        second.send_to(b"and back", source).await.unwrap();
        let (bytes, source) = receive(&first).await;
        assert_eq!((bytes.as_slice(), source), (&b"and back"[..], second_ends.told));
    }

    #[tokio::test]
    async fn what_is_cut_is_lost_what_is_late_arrives_and_strangers_are_not_served() {
        let (proxy, [first, second], [_, second_ends]) = two().await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(b"let me in", second_ends.told).await.unwrap();
        proxy.rules().set(0, 1, Rule { cut: true, ..Rule::default() });
        first.send_to(b"lost", second_ends.told).await.unwrap();
        // The proxy takes one after the other, so when the count is there both have been decided on.
        tokio::time::timeout(PATIENCE, async {
            while proxy.counts() != (0, 1) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the cut");
        proxy.rules().set(0, 1, Rule { delay: Duration::from_millis(5), ..Rule::default() });
        first.send_to(b"late", second_ends.told).await.unwrap();
        assert_eq!(receive(&second).await.0, b"late");
        assert_eq!(proxy.counts(), (1, 1));
    }
}
