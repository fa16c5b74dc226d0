//! Rules between keys: what would contradict itself, or open a port to strangers, is refused.

use std::net::SocketAddr;

use tidelog_wire::ids::NodeId;

use super::Configuration;
use super::error::ConfigError;

/// The addresses a node listens on. Port 0 stands for one that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Endpoints {
    /// Native clients, UDP.
    pub native: SocketAddr,
    /// Other nodes, UDP.
    pub peers: SocketAddr,
    /// Kafka clients, TCP. Reserved.
    pub kafka: SocketAddr,
    /// Admin HTTP, TCP.
    pub admin: SocketAddr,
}

/// How far apart the ports of two nodes lie.
const PORTS_PER_NODE: u64 = 10;

impl Configuration {
    /// The addresses that the settings ask for; port 0 where any will do.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        let settings = &self.settings;
        let derived = |own: Option<SocketAddr>, place: u64| {
            own.unwrap_or_else(|| SocketAddr::new(settings.host, self.derived_port(place).unwrap_or(0)))
        };
        Endpoints {
            native: derived(settings.listen_native, 0),
            peers: derived(settings.listen_peers, 1),
            kafka: derived(settings.listen_kafka, 2),
            admin: derived(settings.listen_admin, 3),
        }
    }

    /// The port at `place` of this node's block; `None` beyond the last port there is.
    fn derived_port(&self, place: u64) -> Option<u16> {
        let settings = &self.settings;
        if settings.base_port == 0 {
            return Some(0);
        }
        u16::try_from(settings.base_port + PORTS_PER_NODE * settings.node + place).ok()
    }

    /// Whether other nodes belong to the cluster.
    #[must_use]
    pub fn has_other_peers(&self) -> bool {
        self.settings.peers.keys().any(|node| *node != NodeId(self.settings.node))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_ports()?;
        self.check_tls()?;
        self.check_exposure()?;
        self.check_peers()?;
        self.check_raft()
    }

    fn contradiction(&self, key: &'static str, because: String, allowed: String) -> ConfigError {
        let value = self.settings.texts().into_iter().find(|(name, _)| *name == key).map(|(_, text)| text);
        ConfigError::Contradiction {
            key,
            value: value.unwrap_or_default(),
            origin: self.origin(key),
            because,
            allowed,
        }
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let (node, port) = (self.settings.node, self.settings.base_port);
        if self.derived_port(3).is_none() {
            let highest = 65_535 - 3 - PORTS_PER_NODE * node;
            return Err(self.contradiction(
                "base_port",
                format!("node {node} would need port {}", port + PORTS_PER_NODE * node + 3),
                format!("0 to {highest} for this node"),
            ));
        }
        let Endpoints { native, peers, kafka, admin } = self.endpoints();
        for (key, left, right, other) in
            [("listen.native", native, peers, "peers"), ("listen.admin", admin, kafka, "kafka")]
        {
            if left == right && left.port() != 0 {
                return Err(self.contradiction(
                    key,
                    format!("{left} is also the {other} address"),
                    "an address of its own".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let given =
            [("tls.ca", &settings.tls_ca), ("tls.cert", &settings.tls_cert), ("tls.key", &settings.tls_key)];
        let missing = given.iter().find(|(_, path)| path.is_none());
        if let (Some((key, _)), Some((present, _))) = (missing, given.iter().find(|(_, path)| path.is_some()))
        {
            return Err(self.contradiction(
                key,
                format!("`{present}` is given"),
                "a path for all three of tls.ca, tls.cert and tls.key, or for none".to_owned(),
            ));
        }
        if self.has_other_peers() && settings.tls_ca.is_none() {
            return Err(self.contradiction(
                "tls.ca",
                "`peers` names other nodes, and nodes talk over mutual TLS only".to_owned(),
                "paths of certificates that one authority made: `tidelog certs` makes them".to_owned(),
            ));
        }
        Ok(())
    }

    fn check_exposure(&self) -> Result<(), ConfigError> {
        let Endpoints { native, peers, admin, .. } = self.endpoints();
        let exposed = |key: &'static str, own: Option<SocketAddr>, address: SocketAddr, because| {
            let key = if own.is_some() { key } else { "host" };
            ConfigError::Exposed { key, address, origin: self.origin(key), because }
        };
        let settings = &self.settings;
        for (key, own, address) in [
            ("listen.native", settings.listen_native, native),
            ("listen.peers", settings.listen_peers, peers),
        ] {
            if !address.ip().is_loopback() && settings.tls_ca.is_none() {
                return Err(exposed(
                    key,
                    own,
                    address,
                    "set tls.ca, tls.cert and tls.key, so that only certificates of the cluster's authority get in",
                ));
            }
            if address.ip().is_unspecified() && settings.advertise_host.is_none() {
                return Err(self.contradiction(
                    "advertise_host",
                    format!("{address} is no address to be reached at"),
                    "the address that others reach this node at".to_owned(),
                ));
            }
        }
        if !admin.ip().is_loopback() {
            return Err(exposed(
                "listen.admin",
                settings.listen_admin,
                admin,
                "admin HTTP has no client authentication: set listen.admin to a loopback address, and reach it from afar \
                 through something that authenticates",
            ));
        }
        Ok(())
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let listening = self.endpoints().peers;
        if self.has_other_peers() && listening.port() == 0 {
            return Err(self.contradiction(
                if settings.listen_peers.is_some() { "listen.peers" } else { "base_port" },
                "`peers` names other nodes, which must know where to find this one".to_owned(),
                "a fixed port".to_owned(),
            ));
        }
        let advertised = self.advertised(listening);
        match settings.peers.get(&NodeId(settings.node)) {
            Some(own) if listening.port() != 0 && *own != advertised => Err(self.contradiction(
                "peers",
                format!(
                    "it sends the others to {own} for this node {}, which is at {advertised}",
                    settings.node
                ),
                format!(
                    "{}={advertised}, or another `base_port`, `listen.peers` or `advertise_host`",
                    settings.node
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn check_raft(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        if settings.election_ticks_min <= settings.heartbeat_ticks {
            return Err(self.contradiction(
                "raft.election_ticks_min",
                format!(
                    "a leader is heard only every {} ticks (raft.heartbeat_ticks)",
                    settings.heartbeat_ticks
                ),
                format!("more than {}", settings.heartbeat_ticks),
            ));
        }
        if settings.election_ticks_max <= settings.election_ticks_min {
            return Err(self.contradiction(
                "raft.election_ticks_max",
                format!("the least is {} (raft.election_ticks_min)", settings.election_ticks_min),
                format!("more than {}", settings.election_ticks_min),
            ));
        }
        Ok(())
    }

    /// Whether this is how a bare start looks: nothing that speaks of a cluster or of other machines.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        let Endpoints { native, peers, .. } = self.endpoints();
        let loopback = native.ip().is_loopback() && peers.ip().is_loopback();
        loopback && self.settings.peers.is_empty() && self.settings.tls_ca.is_none()
    }
}
