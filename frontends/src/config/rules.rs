//! What a value of a key may look like: one [`Rule`] per kind of value.
//!
//! A rule turns text into a value, says in words which texts it takes, and writes a value back as the text that
//! would give it again. Flags, variables and files all come down to text first, so a value means the same
//! wherever it was written.
//!
//! Not here: rules between keys (see `super::check`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tidelog_wire::ids::NodeId;

/// How the values of one key are read, described and written.
pub(super) trait Rule {
    /// What the text stands for.
    type Value;
    /// Whether a value of a file may stand without quotes, as a number does.
    const BARE: bool = false;
    /// Whether a relative text means a path, which counts from where it was written.
    const PATH: bool = false;

    /// The value that `text` stands for, or `None` if it is not allowed.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// The text that gives `value` again.
    fn show(&self, value: &Self::Value) -> String;
    /// Which texts are allowed, in words that end a sentence.
    fn allowed(&self) -> String;
}

/// A whole number within bounds, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    /// Smallest.
    pub(super) min: u64,
    /// Largest.
    pub(super) max: u64,
}

impl Rule for Number {
    type Value = u64;
    const BARE: bool = true;

    fn parse(&self, text: &str) -> Option<u64> {
        digits(text).filter(|number| (self.min..=self.max).contains(number))
    }

    fn show(&self, value: &u64) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }
}

/// A number of bytes within bounds, with or without a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    /// Smallest.
    pub(super) min: u64,
    /// Largest.
    pub(super) max: u64,
}

/// Units of [`Bytes`], the largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Rule for Bytes {
    type Value = u64;

    fn parse(&self, text: &str) -> Option<u64> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, size)| text.strip_suffix(name).map(|rest| (rest.trim_end(), *size)))
            .unwrap_or((text, 1));
        digits(number)?.checked_mul(unit).filter(|bytes| (self.min..=self.max).contains(bytes))
    }

    fn show(&self, value: &u64) -> String {
        let unit = UNITS.iter().find(|(_, size)| *value >= *size && value.is_multiple_of(*size));
        unit.map_or_else(|| value.to_string(), |(name, size)| format!("{}{name}", value / size))
    }

    fn allowed(&self) -> String {
        format!(
            "bytes from {} to {}, as a number or with KiB, MiB or GiB",
            self.show(&self.min),
            self.show(&self.max)
        )
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let edged = text.starts_with('_') || text.ends_with('_');
    if plain && !edged { text.replace('_', "").parse().ok() } else { None }
}

/// A file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilePath;

impl Rule for FilePath {
    type Value = PathBuf;
    const PATH: bool = true;

    fn parse(&self, text: &str) -> Option<PathBuf> {
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn allowed(&self) -> String {
        "a path; in a file it counts from the file's directory".to_owned()
    }
}

/// An IP address and a port. Names are not resolved: what a node listens on must not depend on a resolver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address;

impl Rule for Address {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "an IP address and a port, such as 127.0.0.1:7400 or [::1]:7400".to_owned()
    }
}

/// An IP address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip;

impl Rule for Ip {
    type Value = IpAddr;

    fn parse(&self, text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    fn show(&self, value: &IpAddr) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "an IP address, such as 127.0.0.1 or ::1".to_owned()
    }
}

/// One of a few words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Rule for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Option<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn show(&self, value: &T) -> String {
        self.0.iter().find(|(_, own)| own == value).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
    }

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        format!("one of {}", words.join(", "))
    }
}

/// The nodes of the cluster and where they listen for each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers;

/// Most nodes that a cluster may list.
const PEERS_MAX: usize = 1000;

impl Rule for Peers {
    type Value = BTreeMap<NodeId, SocketAddr>;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        let mut peers = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (node, address) = part.split_once('=')?;
            let node = Number { min: 0, max: NODE_MAX }.parse(node.trim())?;
            let former = peers.insert(NodeId(node), address.trim().parse().ok()?);
            if former.is_some() || peers.len() > PEERS_MAX {
                return None;
            }
        }
        Some(peers)
    }

    fn show(&self, value: &Self::Value) -> String {
        let parts: Vec<_> = value.iter().map(|(node, address)| format!("{node}={address}")).collect();
        parts.join(",")
    }

    fn allowed(&self) -> String {
        "NODE=IP:PORT for each node once, separated by commas, such as 0=10.0.0.1:7401,1=10.0.0.2:7401; \
         in a file also a list of such texts, or of tables { node = 0, address = \"10.0.0.1:7401\" }"
            .to_owned()
    }
}

/// The highest number a node may have: ports are derived from it.
pub(super) const NODE_MAX: u64 = 6_000;

/// What another rule takes, or nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Optional<R>(pub(super) R);

impl<R: Rule> Rule for Optional<R> {
    type Value = Option<R::Value>;
    const BARE: bool = false;
    const PATH: bool = R::PATH;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        if text.is_empty() { Some(None) } else { self.0.parse(text).map(Some) }
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_ref().map(|value| self.0.show(value)).unwrap_or_default()
    }

    fn allowed(&self) -> String {
        format!("empty, or {}", self.0.allowed())
    }
}
