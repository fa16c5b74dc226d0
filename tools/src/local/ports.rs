//! Ports of a cluster: node i opens base + 10 i to base + 10 i + 3.
//!
//! A free block is found by binding every port of it, below the range that the system itself hands out to outgoing
//! connections: a cluster that is stopped and started again should find its ports free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::error::CliError;

/// First port that is tried.
const FIRST: u16 = 20_000;
/// One beyond the last: Linux hands out ports from 32768 on.
const END: u16 = 32_768;
/// Blocks begin at multiples of this, so that commands running at once rarely try the same.
const STRIDE: u16 = 100;
/// Ports between two nodes.
const PER_NODE: u64 = 10;
/// Ports that a node opens or reserves.
const USED_PER_NODE: u64 = 4;

/// The addresses of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddresses {
    /// Native protocol, UDP.
    pub(crate) native: SocketAddr,
    /// Other nodes, UDP.
    pub(crate) peers: SocketAddr,
    /// Admin HTTP, TCP.
    pub(crate) admin: SocketAddr,
}

/// The addresses of node `node` of a cluster at `base_port`; none beyond the last port there is.
pub(crate) fn addresses(base_port: u16, node: u64) -> Option<NodeAddresses> {
    let first = u64::from(base_port).checked_add(node.checked_mul(PER_NODE)?)?;
    let at = |place: u64| {
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(first.checked_add(place)?).ok()?)))
    };
    Some(NodeAddresses { native: at(0)?, peers: at(1)?, admin: at(3)? })
}

/// A base port whose whole block is free right now. `seed` spreads the first try.
pub(crate) fn free_block(nodes: u64, seed: u32) -> Result<u16, CliError> {
    let starts: Vec<u16> = (FIRST..END).step_by(usize::from(STRIDE)).collect();
    let skip = usize::try_from(seed).unwrap_or(0) % starts.len().max(1);
    let rotated = starts.iter().cycle().skip(skip).take(starts.len());
    for base_port in rotated.copied() {
        let beyond = u64::from(base_port) + PER_NODE * nodes;
        if beyond <= u64::from(END) && (0..nodes).all(|node| node_is_free(base_port, node)) {
            return Ok(base_port);
        }
    }
    Err(CliError::NoPorts { count: PER_NODE * nodes, first: FIRST, last: END - 1 })
}

fn node_is_free(base_port: u16, node: u64) -> bool {
    (0..USED_PER_NODE).all(|place| {
        u16::try_from(u64::from(base_port) + PER_NODE * node + place).is_ok_and(|port| {
            let address = (Ipv4Addr::LOCALHOST, port);
            UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
        })
    })
}
