//! Configuration of `tidelogd`: from flags, environment and file to checked [`Settings`].
//!
//! 1. `keys` declares each key once; `rules` says what a value may look like.
//! 2. `sources` collects texts: a flag wins over a variable, a variable over the file, the file over the default.
//! 3. Each text is read by its key's rule, then `check` looks at rules between keys: whatever would contradict
//!    itself or open a port to strangers is refused here, before anything is started.
//!
//! Pure: the environment and the file come in as arguments ([`load`]), so every case can be tested.
//!
//! Not here: what the settings do (see [`crate::server`]), and whether files and addresses are there.

mod check;
mod error;
mod keys;
mod reference;
mod rules;
mod sources;
mod suggest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use check::Endpoints;
pub use error::{ConfigError, Origin};
pub use keys::{KEYS, Key, LogFormat, Settings};
pub use reference::reference;

use sources::{Layer, Text};

/// The settings that hold, and where each was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The value of each key.
    pub settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

/// What the caller of `tidelogd` wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Start a node.
    Run {
        /// With these settings.
        configuration: Box<Configuration>,
        /// What may be done to the data directory.
        founding: Founding,
    },
    /// Print this text and stop.
    Print(String),
}

/// What may be done to the data directory at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founding {
    /// Nothing: it is formatted.
    Resume,
    /// Format it if it is new, as a member of a new cluster.
    Bootstrap,
    /// Format it if it is new, and join the cluster of the peers.
    Join,
    /// Set aside what it holds, and join the cluster of the peers.
    Rejoin,
}

impl Founding {
    /// The flags are refused together by the command line itself; the last one here would win.
    fn of(matches: &clap::ArgMatches) -> Self {
        match (matches.get_flag("rejoin"), matches.get_flag("join"), matches.get_flag("bootstrap")) {
            (true, _, _) => Self::Rejoin,
            (false, true, _) => Self::Join,
            (false, false, true) => Self::Bootstrap,
            (false, false, false) => Self::Resume,
        }
    }
}

/// Reads the command line `arguments` (without the program's name), the environment and the file that they name.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong. Nothing but the configuration file was read.
pub fn load(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Invocation, ConfigError> {
    let matches = sources::command()
        .no_binary_name(true)
        .try_get_matches_from(arguments)
        .map_err(|error| ConfigError::Usage(Box::new(error)))?;
    if matches.get_flag("print-config-reference") {
        return Ok(Invocation::Print(reference()));
    }
    let (variables, variable_file) = sources::environment(environment)?;
    let path = matches.get_one::<String>("config").map(PathBuf::from).or(variable_file);
    let from_file = match path {
        Some(path) => {
            let content =
                read_file(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            sources::file(&path, &content)?
        }
        None => Layer::new(),
    };
    let configuration = Configuration::from_layers(&[sources::flags(&matches), variables, from_file])?;
    if matches.get_flag("check-config") {
        return Ok(Invocation::Print(configuration.effective()));
    }
    Ok(Invocation::Run { configuration: Box::new(configuration), founding: Founding::of(&matches) })
}

impl Configuration {
    /// Settings from layers of texts, the strongest first.
    fn from_layers(layers: &[Layer]) -> Result<Self, ConfigError> {
        let text = |name: &str| -> Text {
            let written = layers.iter().find_map(|layer| layer.get(name)).cloned();
            let default = Key::named(name).map_or("", |key| key.default);
            written.unwrap_or_else(|| Text { text: default.to_owned(), origin: Origin::Default })
        };
        let settings = Settings::read(text)?;
        let origins = KEYS.iter().map(|key| (key.name, text(key.name).origin)).collect();
        let configuration = Self { settings, origins };
        configuration.check()?;
        Ok(configuration)
    }

    /// The configuration when nothing is said anywhere.
    ///
    /// # Errors
    /// None that a test of this crate would let pass: the defaults go together.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::from_layers(&[])
    }

    /// Where the value of the key `name` was written.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    /// The whole configuration as a file that gives it again, with the origin of each value as a comment.
    #[must_use]
    pub fn effective(&self) -> String {
        let mut text = String::from("# The configuration that holds, and where each value comes from.\n");
        let mut table = "";
        let mut texts = self.settings.texts();
        // Keys without a table must stand before the first table.
        texts.sort_by_key(|(name, _)| name.contains('.'));
        for (name, value) in texts {
            let (own_table, short) = name.split_once('.').unwrap_or(("", name));
            if own_table != table {
                text.push_str(&format!("\n[{own_table}]\n"));
                table = own_table;
            }
            let bare = Key::named(name).is_some_and(|key| key.bare);
            let shown = if bare { value } else { toml::Value::String(value).to_string() };
            text.push_str(&format!("{short} = {shown} # {}\n", self.origin(name)));
        }
        text
    }

    /// The address at which clients and nodes are told to reach what listens on `listening`.
    #[must_use]
    pub fn advertised(&self, listening: SocketAddr) -> SocketAddr {
        let host = self.settings.advertise_host.unwrap_or(listening.ip());
        SocketAddr::new(host, listening.port())
    }
}
