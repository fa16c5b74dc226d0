//! The certificates of a node: those that the configuration names, or, for a cluster of one that nobody configured,
//! its own.
//!
//! A cluster of one formats its directory, and then makes an authority, a node and a client certificate below
//! `DATA_DIR/tls`, before it opens the directory for the first time. If a crash comes in between, the directory was
//! never opened, and the next start makes them anew: nobody has seen the first ones.
//!
//! Not here: what a certificate says (`tidelog_tls`).

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tidelog_engine::storage::{Storage, read_whole, replace_file};
use tidelog_tls::{Authority, Credentials, Holder, PemFile};
use tidelog_wire::ids::{ClusterId, NodeId};

use super::error::ServerError;
use crate::config::Settings;

/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Where a cluster of one keeps its certificates, below its data directory.
const OWN: &str = "tls";
/// Name of the client that a cluster of one makes a certificate for.
const CLIENT: &str = "local";

/// The three files of a holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PemPaths {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// The files that the configuration names, if it does.
pub(super) fn given(settings: &Settings) -> Option<PemPaths> {
    let (ca, cert, key) = (settings.tls_ca.clone()?, settings.tls_cert.clone()?, settings.tls_key.clone()?);
    Some(PemPaths { ca, cert, key })
}

/// The files of a cluster of one: the node's.
pub(super) fn own_node(data_dir: &Path, node: NodeId) -> PemPaths {
    own(data_dir, &format!("node-{node}"))
}

/// The files of a cluster of one: the client's.
pub(super) fn own_client(data_dir: &Path) -> PemPaths {
    own(data_dir, "client")
}

fn own(data_dir: &Path, name: &str) -> PemPaths {
    let dir = data_dir.join(OWN);
    PemPaths {
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    }
}

/// Reads and checks a node's credentials.
///
/// # Errors
/// [`ServerError`] names the file.
pub(super) fn load(
    storage: &dyn Storage,
    paths: &PemPaths,
    node: NodeId,
) -> Result<Credentials, ServerError> {
    let read = |path: &Path| -> Result<String, ServerError> {
        let bytes = read_whole(storage, path, PEM_BYTES_MAX).map_err(|source| file(path, "read", source))?;
        String::from_utf8(bytes).map_err(|error| file(path, "read as text", io::Error::other(error)))
    };
    let (ca, cert, key) = (read(&paths.ca)?, read(&paths.cert)?, read(&paths.key)?);
    let credentials = Credentials::parse(
        &PemFile { path: &paths.ca, text: &ca },
        &PemFile { path: &paths.cert, text: &cert },
        &PemFile { path: &paths.key, text: &key },
    )?;
    let found = match credentials.holder() {
        Holder::Node(found) if *found == node => return Ok(credentials),
        Holder::Node(found) => format!("node {found}"),
        Holder::Client(name) => format!("client {name}"),
        Holder::Authority => "the authority".to_owned(),
    };
    Err(ServerError::WrongCertificate { path: paths.cert.clone(), found, expected: node })
}

/// Makes the authority of `cluster` and the certificates of a cluster of one, over whatever an interrupted start left.
///
/// # Errors
/// [`ServerError`]; the files may be there in part, and the directory must not be opened then.
pub(super) fn make_own(
    storage: &dyn Storage,
    data_dir: &Path,
    node: NodeId,
    cluster: ClusterId,
) -> Result<(), ServerError> {
    let authority = Authority::create(cluster)?;
    let dir = data_dir.join(OWN);
    // Private keys lie here: nobody else may look in.
    match rustix::fs::mkdir(&dir, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(file(&dir, "make the directory", errno.into())),
    }
    storage.sync_dir(data_dir).map_err(|source| file(data_dir, "sync the directory", source))?;
    let write = |path: &Path, text: &str| {
        replace_file(storage, path, text.as_bytes()).map_err(|source| file(path, "write", source))
    };
    let node_pair = authority.issue_node(node)?;
    let client_pair = authority.issue_client(CLIENT)?;
    let (node_paths, client_paths) = (own_node(data_dir, node), own_client(data_dir));
    write(&dir.join("ca.key"), &authority.key_pem())?;
    write(&node_paths.key, &node_pair.key)?;
    write(&node_paths.cert, &node_pair.cert)?;
    write(&client_paths.key, &client_pair.key)?;
    write(&client_paths.cert, &client_pair.cert)?;
    write(&node_paths.ca, authority.cert_pem())
}

pub(super) fn file(path: &Path, action: &'static str, source: io::Error) -> ServerError {
    ServerError::File { path: path.to_owned(), action, source }
}
