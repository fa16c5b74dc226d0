//! Where values come from: flags, environment variables, the file, defaults; the first that speaks holds.
//!
//! Each source gives texts by key. A key that no source knows is an error of its own, in each of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::keys::{KEYS, Key, VARIABLE_PREFIX};
use super::suggest::nearest;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The texts of one source, by key.
pub(super) type Layer = BTreeMap<&'static str, Text>;

/// Variables that begin as ours do and are none of our keys: the command line client's, what tests say to each
/// other, and those that Kubernetes sets in every pod beside a service called `tidelog`.
fn foreign_variable(name: &str) -> bool {
    name == "PROFILE"
        || name == "CONFIG"
        || name == "PORT"
        || ["TEST_", "SERVICE_", "PORT_"].iter().any(|prefix| name.starts_with(prefix))
}

/// The environment's texts, and the path that `TIDELOG_CONFIG` names.
pub(super) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(Layer, Option<PathBuf>), ConfigError> {
    let mut layer = Layer::new();
    let mut file = None;
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        let origin = Origin::Variable(name.clone());
        if rest == "CONFIG" {
            file = Some(PathBuf::from(&value));
        }
        if foreign_variable(rest) {
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
            let suggestion = nearest(&name, KEYS.iter().map(Key::variable));
            return Err(ConfigError::UnknownKey { key: name, origin, suggestion });
        };
        layer.insert(key.name, Text { text: value.to_string_lossy().into_owned(), origin });
    }
    Ok((layer, file))
}

/// The command line, as clap knows it.
pub(super) fn command() -> Command {
    let mut command = Command::new("tidelogd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A node of a tidelog cluster: a durable, replicated stream log.")
        .after_help("Each key is also a variable TIDELOG_… and a key of the file. Flags win over variables, variables over the file.")
        .arg(Arg::new("config").long("config").value_name("FILE").help("Configuration file (TOML); also TIDELOG_CONFIG"))
        .arg(switch("bootstrap", "Format the data directory as a member of a new cluster; does nothing if it is formatted"))
        .arg(
            switch("join", "Join the cluster of `peers`, with a certificate of its authority; may stay: does nothing once the node is a member")
                .conflicts_with("bootstrap"),
        )
        .arg(
            switch("rejoin", "Set aside what the data directory holds, in its quarantine, and join the cluster of `peers` anew; for one start")
                .conflicts_with_all(["bootstrap", "join"]),
        )
        .arg(switch("check-config", "Print the configuration that would hold, and where each value comes from; start nothing"))
        .arg(switch("print-config-reference", "Print the table of all keys (Markdown)"));
    for key in KEYS {
        let help = if key.default.is_empty() {
            key.doc.to_owned()
        } else {
            format!("{} [default: {}]", key.doc, key.default)
        };
        let value = key.name.rsplit('.').next().unwrap_or(key.name).to_ascii_uppercase();
        command = command.arg(
            Arg::new(key.name)
                .long(key.flag())
                .value_name(value)
                .help(help)
                .help_heading("Keys")
                .allow_hyphen_values(true),
        );
    }
    command
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The flags' texts.
pub(super) fn flags(matches: &ArgMatches) -> Layer {
    let given = |key: &&Key| matches.get_one::<String>(key.name).cloned();
    KEYS.iter()
        .filter_map(|key| given(&key).map(|text| (key, text)))
        .map(|(key, text)| (key.name, Text { text, origin: Origin::Flag(key.flag()) }))
        .collect()
}

/// The texts of the file `path`, which holds `content`.
pub(super) fn file(path: &Path, content: &str) -> Result<Layer, ConfigError> {
    let table = DeTable::parse(content).map_err(|error| ConfigError::NotToml {
        path: path.to_owned(),
        line: line_of(content, error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut reader = FileReader { path, content, layer: Layer::new() };
    for (name, value) in table.get_ref() {
        let is_table_of_keys = KEYS.iter().any(|key| key.name.starts_with(&format!("{}.", name.get_ref())));
        match value.get_ref() {
            DeValue::Table(inner) if is_table_of_keys => {
                for (inner_name, inner_value) in inner {
                    let full = format!("{}.{}", name.get_ref(), inner_name.get_ref());
                    reader.take(&full, inner_name.span().start, inner_value)?;
                }
            }
            DeValue::Table(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => reader.take(name.get_ref(), name.span().start, value)?,
        }
    }
    Ok(reader.layer)
}

struct FileReader<'a> {
    path: &'a Path,
    content: &'a str,
    layer: Layer,
}

impl FileReader<'_> {
    fn take(&mut self, name: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Result<(), ConfigError> {
        let origin = Origin::File { path: self.path.to_owned(), line: line_of(self.content, at) };
        let Some(key) = Key::named(name) else {
            let suggestion = nearest(name, KEYS.iter().map(|key| key.name.to_owned()));
            return Err(ConfigError::UnknownKey { key: name.to_owned(), origin, suggestion });
        };
        let Some(mut text) = text_of(value.get_ref()) else {
            let written = self.content.get(value.span()).unwrap_or_default().to_owned();
            return Err(ConfigError::BadValue {
                key: key.name,
                value: written,
                origin,
                allowed: (key.allowed)(),
            });
        };
        if key.path && !text.is_empty() {
            let directory = self.path.parent().unwrap_or(Path::new(""));
            text = directory.join(&text).to_string_lossy().into_owned();
        }
        self.layer.insert(key.name, Text { text, origin });
        Ok(())
    }
}

/// A value of the file as the text that a flag would give. Lists are joined by commas; a table of a list stands
/// for `node=address`. `None` for what no key takes.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| item_text(item.get_ref())).collect();
            items.map(|items| items.join(","))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn item_text(item: &DeValue<'_>) -> Option<String> {
    match item {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Table(fields) => {
            let field = |name: &str| fields.get(name).and_then(|value| scalar(value.get_ref()));
            if fields.len() != 2 {
                return None;
            }
            Some(format!("{}={}", field("node")?, field("address")?))
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => None,
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

fn line_of(content: &str, at: usize) -> usize {
    content.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
