//! What can be wrong with a configuration. Every message names the key, the value, where it was written and what
//! is allowed there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the key's default holds.
    Default,
    /// In the file, at this line.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Variable(String),
    /// In this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(out, "default"),
            Self::File { path, line } => write!(out, "{} line {line}", path.display()),
            Self::Variable(name) => write!(out, "environment variable {name}"),
            Self::Flag(name) => write!(out, "flag --{name}"),
        }
    }
}

/// Why a configuration is refused. Nothing was started, opened or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error(
        "E2201 {origin}: unknown key `{key}`{}; `tidelogd --print-config-reference` lists the keys that are allowed",
        suggestion.as_ref().map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
    )]
    UnknownKey {
        /// As written.
        key: String,
        /// Where.
        origin: Origin,
        /// The nearest one that exists.
        suggestion: Option<String>,
    },
    /// The file cannot be read.
    #[error("E2202 {}: cannot read the configuration: {source}; give another file to --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("E2203 {} line {line}: not TOML: {reason}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A value that its key does not take.
    #[error("E2204 {origin}: key `{key}` cannot be `{value}`; allowed: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, as text.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What it takes.
        allowed: String,
    },
    /// Two keys that cannot both hold.
    #[error("E2205 {origin}: key `{key}` cannot be `{value}` here: {because}; allowed: {allowed}")]
    Contradiction {
        /// The key to change.
        key: &'static str,
        /// Its value, as text.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// Which other key it contradicts.
        because: String,
        /// What it may be.
        allowed: String,
    },
    /// An address that others could reach without proving who they are.
    #[error("E2206 {origin}: key `{key}` would open {address}, which is not a loopback address: {because}")]
    Exposed {
        /// The key to change.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Where it was written.
        origin: Origin,
        /// What is missing, and what to do.
        because: &'static str,
    },
    /// Wrong flags, or a request for help or the version: shown as clap words it.
    #[error("{0}")]
    Usage(Box<clap::Error>),
}
