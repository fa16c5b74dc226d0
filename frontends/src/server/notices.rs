//! Files that a starting node leaves for others to read: its addresses, and for a cluster of one the profile that
//! clients connect with.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tidelog_engine::storage::{Storage, parent, replace_file};
use tidelog_wire::ids::{ClusterId, NodeId};

use super::credentials::{PemPaths, file};
use super::error::ServerError;
use crate::config::{Configuration, Endpoints};

/// What `addresses.json` says.
#[derive(Serialize)]
struct Addresses {
    node: NodeId,
    pid: u32,
    #[serde(flatten)]
    endpoints: Endpoints,
}

/// Writes the addresses in use to the file that the configuration names, or to `addresses.json` in the data directory.
pub(super) fn write_addresses(
    storage: &dyn Storage,
    configuration: &Configuration,
    endpoints: Endpoints,
) -> Result<PathBuf, ServerError> {
    let settings = &configuration.settings;
    let path = settings.addresses_file.clone().unwrap_or_else(|| settings.data_dir.join("addresses.json"));
    let addresses = Addresses { node: NodeId(settings.node), pid: std::process::id(), endpoints };
    let text = serde_json::to_string_pretty(&addresses)
        .map_err(|error| file(&path, "write", std::io::Error::other(error)))?;
    write(storage, &path, &format!("{text}\n"))?;
    Ok(path)
}

/// A client profile.
#[derive(Serialize)]
struct Profile {
    cluster_id: ClusterId,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    nodes: Vec<ProfileNode>,
}

#[derive(Serialize)]
struct ProfileNode {
    id: NodeId,
    native: String,
    admin: String,
}

/// Writes `client.toml` into the data directory of a cluster of one. Its paths count from there.
pub(super) fn write_profile(
    storage: &dyn Storage,
    data_dir: &Path,
    cluster: ClusterId,
    node: NodeId,
    endpoints: Endpoints,
    client: &PemPaths,
) -> Result<PathBuf, ServerError> {
    let relative = |path: &Path| path.strip_prefix(data_dir).unwrap_or(path).to_owned();
    let profile = Profile {
        cluster_id: cluster,
        ca: relative(&client.ca),
        cert: relative(&client.cert),
        key: relative(&client.key),
        nodes: vec![ProfileNode {
            id: node,
            native: endpoints.native.to_string(),
            admin: endpoints.admin.to_string(),
        }],
    };
    let path = data_dir.join("client.toml");
    let text =
        toml::to_string(&profile).map_err(|error| file(&path, "write", std::io::Error::other(error)))?;
    write(storage, &path, &format!("# Written by tidelogd at each start.\n{text}"))?;
    Ok(path)
}

fn write(storage: &dyn Storage, path: &Path, text: &str) -> Result<(), ServerError> {
    let dir = parent(path);
    if !dir.as_os_str().is_empty() {
        storage.create_dir(dir).map_err(|source| file(dir, "make the directory", source))?;
    }
    replace_file(storage, path, text.as_bytes()).map_err(|source| file(path, "write", source))
}
