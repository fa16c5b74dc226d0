//! Every key of the configuration, declared once.
//!
//! A line of the table below gives a key its name, its type, its default, its rule and its meaning. The flag, the
//! variable, the place in the file, the reference page, the help text and the field of [`Settings`] all follow
//! from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tidelog_wire::ids::NodeId;

use super::error::ConfigError;
use super::rules::{Address, Bytes, Choice, FilePath, Ip, NODE_MAX, Number, Optional, Peers, Rule};
use super::sources::Text;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name: in a file, `table.name` stands as `name` below `[table]`.
    pub name: &'static str,
    /// The text that holds when nothing is said.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Which texts are allowed.
    pub allowed: fn() -> String,
    /// Whether its value stands in a file without quotes.
    pub(super) bare: bool,
    /// Whether its value is a path.
    pub(super) path: bool,
}

impl Key {
    /// The flag that sets it, without dashes in front.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The key with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }
}

/// How the name of each variable begins.
pub(super) const VARIABLE_PREFIX: &str = "TIDELOG_";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

macro_rules! settings {
    ($(
        #[doc = $doc:literal]
        $field:ident: $type:ty = $name:literal, $default:literal, $rule:expr, $rule_type:ty;
    )+) => {
        /// The value of each key.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $( #[doc = $doc] pub $field: $type, )+
        }

        /// All keys, in the order of the reference.
        pub const KEYS: &[Key] = &[
            $( Key {
                name: $name,
                default: $default,
                doc: $doc,
                allowed: || $rule.allowed(),
                bare: <$rule_type as Rule>::BARE,
                path: <$rule_type as Rule>::PATH,
            }, )+
        ];

        impl Settings {
            /// Reads each key from the text that `text` gives for it.
            ///
            /// # Errors
            /// [`ConfigError::BadValue`] for the first key whose text its rule does not take.
            pub(super) fn read(text: impl Fn(&str) -> Text) -> Result<Self, ConfigError> {
                Ok(Self {
                    $( $field: read_one($name, text($name), &$rule)?, )+
                })
            }

            /// Each key with the text that gives its value again.
            #[must_use]
            pub fn texts(&self) -> Vec<(&'static str, String)> {
                vec![ $( ($name, $rule.show(&self.$field)), )+ ]
            }
        }
    };
}

fn read_one<R: Rule>(key: &'static str, text: Text, rule: &R) -> Result<R::Value, ConfigError> {
    rule.parse(&text.text).ok_or_else(|| ConfigError::BadValue {
        key,
        value: text.text,
        origin: text.origin,
        allowed: rule.allowed(),
    })
}

settings! {
    #[doc = "Number of this node, from 0. Never changes for a data directory."]
    node: u64 = "node", "0", Number { min: 0, max: NODE_MAX }, Number;
    #[doc = "Directory that holds everything this node keeps. One process owns it at a time."]
    data_dir: PathBuf = "data_dir", "tidelog-data", FilePath, FilePath;
    #[doc = "Address of the interface that ports derived from `base_port` are opened on."]
    host: IpAddr = "host", "127.0.0.1", Ip, Ip;
    #[doc = "First port P of the cluster: node i opens P+10i for clients (UDP), P+10i+1 for nodes (UDP), reserves P+10i+2 for Kafka (TCP) and opens P+10i+3 for admin HTTP (TCP). 0 takes four free ports in a row."]
    base_port: u64 = "base_port", "7400", Number { min: 0, max: 65_530 }, Number;
    #[doc = "Where native clients are served, instead of the address derived from `host` and `base_port`."]
    listen_native: Option<SocketAddr> = "listen.native", "", Optional(Address), Optional<Address>;
    #[doc = "Where other nodes are served, instead of the derived address."]
    listen_peers: Option<SocketAddr> = "listen.peers", "", Optional(Address), Optional<Address>;
    #[doc = "Reserved for Kafka clients, which this release does not serve: the address is kept for them and told to nobody."]
    listen_kafka: Option<SocketAddr> = "listen.kafka", "", Optional(Address), Optional<Address>;
    #[doc = "Where admin HTTP is served, instead of the derived address. It is plain HTTP without authentication, so only loopback addresses are taken."]
    listen_admin: Option<SocketAddr> = "listen.admin", "", Optional(Address), Optional<Address>;
    #[doc = "Address that clients and nodes are told to reach this node at, when it is not the one it listens on, as with 0.0.0.0 or in a container. Ports stay the same."]
    advertise_host: Option<IpAddr> = "advertise_host", "", Optional(Ip), Optional<Ip>;
    #[doc = "The nodes of the cluster and the address each is reached at by the others. This node may be in it. Empty: a cluster of one."]
    peers: BTreeMap<NodeId, SocketAddr> = "peers", "", Peers, Peers;
    #[doc = "File to write the chosen addresses to. Empty: `addresses.json` in the data directory."]
    addresses_file: Option<PathBuf> = "addresses_file", "", Optional(FilePath), Optional<FilePath>;
    #[doc = "Certificate of the cluster's authority (PEM). All three `tls` keys or none."]
    tls_ca: Option<PathBuf> = "tls.ca", "", Optional(FilePath), Optional<FilePath>;
    #[doc = "This node's certificate (PEM), made for its node number by the cluster's authority."]
    tls_cert: Option<PathBuf> = "tls.cert", "", Optional(FilePath), Optional<FilePath>;
    #[doc = "Private key of that certificate (PEM)."]
    tls_key: Option<PathBuf> = "tls.key", "", Optional(FilePath), Optional<FilePath>;
    #[doc = "Data groups that share out the partition logs. Fixed when the cluster is made."]
    data_groups: u64 = "raft.data_groups", "4", Number { min: 1, max: 64 }, Number;
    #[doc = "Milliseconds of one raft tick."]
    tick_ms: u64 = "raft.tick_ms", "25", Number { min: 5, max: 1_000 }, Number;
    #[doc = "Ticks between heartbeats of a leader."]
    heartbeat_ticks: u64 = "raft.heartbeat_ticks", "2", Number { min: 1, max: 100 }, Number;
    #[doc = "Ticks without a leader after which a follower stands for election: at least."]
    election_ticks_min: u64 = "raft.election_ticks_min", "10", Number { min: 2, max: 1_000 }, Number;
    #[doc = "The same: at most. The actual number is drawn anew for each election."]
    election_ticks_max: u64 = "raft.election_ticks_max", "20", Number { min: 3, max: 2_000 }, Number;
    #[doc = "Bytes that a group may apply before it writes a checkpoint."]
    checkpoint_bytes: u64 = "checkpoint.bytes", "64MiB", Bytes { min: 64 << 10, max: 16 << 30 }, Bytes;
    #[doc = "Seconds after which a group that applied something writes a checkpoint."]
    checkpoint_seconds: u64 = "checkpoint.seconds", "30", Number { min: 1, max: 86_400 }, Number;
    #[doc = "Size at which a segment is sealed, for channels that do not say."]
    segment_bytes: u64 = "segment_bytes", "128MiB", Bytes { min: 64 << 10, max: 4 << 30 }, Bytes;
    #[doc = "Largest record batch that is taken."]
    batch_bytes: u64 = "limits.batch_bytes", "1MiB", Bytes { min: 1 << 10, max: 16 << 20 }, Bytes;
    #[doc = "Native connections at a time; further ones are refused."]
    connections: u64 = "limits.connections", "1024", Number { min: 1, max: 100_000 }, Number;
    #[doc = "Requests of one connection that may be unanswered; a connection with more is not read from until one is."]
    in_flight: u64 = "limits.in_flight", "256", Number { min: 1, max: 10_000 }, Number;
    #[doc = "Bytes of batches received and not yet answered, of one connection; above it, it is not read from."]
    in_flight_bytes: u64 = "limits.in_flight_bytes", "32MiB", Bytes { min: 16 << 20, max: 1 << 30 }, Bytes;
    #[doc = "Most bytes of batches in one answer to a fetch; a single larger batch is still served."]
    fetch_bytes: u64 = "limits.fetch_bytes", "8MiB", Bytes { min: 1 << 10, max: 16 << 20 }, Bytes;
    #[doc = "Longest that a fetch may wait for records, in milliseconds."]
    fetch_wait_ms: u64 = "limits.fetch_wait_ms", "30000", Number { min: 0, max: 600_000 }, Number;
    #[doc = "Longest that a produce or a change of channels may wait for its quorum, in milliseconds. After it the client is told that the outcome is unknown."]
    request_ms: u64 = "limits.request_ms", "10000", Number { min: 50, max: 600_000 }, Number;
    #[doc = "Seconds that a graceful stop may take; after it the process exits all the same, which loses nothing that was acknowledged."]
    stop_seconds: u64 = "stop_seconds", "20", Number { min: 1, max: 600 }, Number;
    #[doc = "How log lines on standard error look."]
    log_format: LogFormat = "logging.format", "text", Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), Choice<LogFormat>;
    #[doc = "The least severe lines to log."]
    log_level: tracing::Level = "logging.level", "info", Choice(&[("error", tracing::Level::ERROR), ("warn", tracing::Level::WARN), ("info", tracing::Level::INFO), ("debug", tracing::Level::DEBUG), ("trace", tracing::Level::TRACE)]), Choice<tracing::Level>;
}
