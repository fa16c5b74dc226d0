//! Claims the addresses a node listens on, before anything else is started.
//!
//! An address that is taken is found out here, and the sockets of clients and admin stay open from then on, so that
//! nobody else takes them. The address of peers is only tried: the transport opens it itself.
//!
//! With `base_port = 0` four free ports in a row are looked for, so that the scheme "native, +1 peers, +2 Kafka,
//! +3 admin" holds for chosen ports too. A number of blocks is tried, since others take ports at the same time.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use crate::config::Endpoints;

/// Blocks tried before giving up.
const ATTEMPTS: usize = 100;

/// The sockets of a node, open.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// The addresses, with ports filled in.
    pub(crate) endpoints: Endpoints,
    /// Bound to `endpoints.native`.
    pub(crate) native: UdpSocket,
    /// Listening on `endpoints.admin`.
    pub(crate) admin: TcpListener,
}

/// Why an address could not be claimed.
#[derive(Debug)]
pub(crate) struct ClaimError {
    /// The key that asked for it.
    pub(crate) key: &'static str,
    /// The address.
    pub(crate) address: SocketAddr,
    /// What the system said.
    pub(crate) source: io::Error,
}

/// Opens the sockets for the wanted addresses. Addresses of the same host with port 0 are taken from one block.
pub(crate) fn claim(wanted: &Endpoints) -> Result<Claimed, ClaimError> {
    let open = [wanted.native, wanted.peers, wanted.kafka, wanted.admin];
    if open.iter().all(|address| address.port() == 0) {
        return claim_block(wanted);
    }
    claim_exactly(wanted)
}

fn claim_block(wanted: &Endpoints) -> Result<Claimed, ClaimError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let first = match free_port(wanted.native.ip()) {
            Ok(port) => port,
            Err(source) => return Err(ClaimError { key: "listen.native", address: wanted.native, source }),
        };
        let Some(block) = block_at(wanted, first) else { continue };
        match claim_exactly(&block) {
            Ok(claimed) => return Ok(claimed),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| ClaimError {
        key: "base_port",
        address: wanted.native,
        source: io::Error::from(io::ErrorKind::AddrInUse),
    }))
}

fn free_port(host: IpAddr) -> io::Result<u16> {
    Ok(UdpSocket::bind(SocketAddr::new(host, 0))?.local_addr()?.port())
}

fn block_at(wanted: &Endpoints, first: u16) -> Option<Endpoints> {
    let at = |address: SocketAddr, place: u16| {
        first.checked_add(place).map(|port| SocketAddr::new(address.ip(), port))
    };
    Some(Endpoints {
        native: at(wanted.native, 0)?,
        peers: at(wanted.peers, 1)?,
        kafka: at(wanted.kafka, 2)?,
        admin: at(wanted.admin, 3)?,
    })
}

fn claim_exactly(wanted: &Endpoints) -> Result<Claimed, ClaimError> {
    let failed = |key, address| move |source| ClaimError { key, address, source };
    let native = UdpSocket::bind(wanted.native).map_err(failed("listen.native", wanted.native))?;
    let tried = UdpSocket::bind(wanted.peers).map_err(failed("listen.peers", wanted.peers))?;
    let kafka = reserve(wanted).map_err(failed("listen.kafka", wanted.kafka))?;
    let admin = TcpListener::bind(wanted.admin).map_err(failed("listen.admin", wanted.admin))?;
    let endpoints = Endpoints {
        native: native.local_addr().map_err(failed("listen.native", wanted.native))?,
        peers: tried.local_addr().map_err(failed("listen.peers", wanted.peers))?,
        kafka,
        admin: admin.local_addr().map_err(failed("listen.admin", wanted.admin))?,
    };
    Ok(Claimed { endpoints, native, admin })
}

/// The Kafka address is only reserved: nothing listens there yet, so a taken one matters only when the port is ours
/// to choose.
fn reserve(wanted: &Endpoints) -> io::Result<SocketAddr> {
    if wanted.kafka.port() == 0 { TcpListener::bind(wanted.kafka)?.local_addr() } else { Ok(wanted.kafka) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(port: u16) -> Endpoints {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Endpoints { native: address, peers: address, kafka: address, admin: address }
    }

    #[test]
    fn base_port_0_takes_four_ports_in_a_row() {
        let claimed = claim(&any(0)).unwrap();
        let first = claimed.endpoints.native.port();
        assert_ne!(first, 0);
        assert_eq!(claimed.endpoints.peers.port(), first + 1);
        assert_eq!(claimed.endpoints.kafka.port(), first + 2);
        assert_eq!(claimed.endpoints.admin.port(), first + 3);
        assert_eq!(claimed.native.local_addr().unwrap(), claimed.endpoints.native);
    }

    #[test]
    fn a_taken_address_is_named_with_its_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wanted = any(0);
        wanted.admin = taken.local_addr().unwrap();
        let error = claim(&wanted).unwrap_err();
        assert_eq!((error.key, error.address), ("listen.admin", wanted.admin));
    }
}
