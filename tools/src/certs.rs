//! Certificates: the authority of a cluster, and what it issues, as files.
//!
//! What stands in a certificate is `tidelog_tls`'s business; here it gets a place and rights.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;
use tidelog_tls::{Authority, PemFile, PemPair};
use tidelog_wire::ids::{ClusterId, NodeId, TimestampMs};

use crate::arguments::{Certs, CertsIssue};
use crate::error::CliError;
use crate::files::{self, Access};
use crate::output::{Answer, Output};

/// Name of the client certificate that `up` makes.
const CLIENT: &str = "client";

#[derive(Serialize)]
struct CertsAnswer {
    cluster_id: String,
    cert: PathBuf,
    key: PathBuf,
    /// When it expires, if it does.
    expires: Option<String>,
}

impl Answer for CertsAnswer {
    fn text(&self) -> String {
        let wrote =
            format!("cluster {}: wrote {} and {}", self.cluster_id, self.cert.display(), self.key.display());
        match &self.expires {
            Some(expires) => format!("{wrote}, valid until {expires}"),
            None => wrote,
        }
    }
}

/// `tidelog certs …`.
pub(crate) fn run(certs: Certs, output: &Output) -> Result<(), CliError> {
    let answer = match certs {
        Certs::Create { dir } => {
            let ca = dir.join("ca.pem");
            if files::exists(&ca) {
                return Err(CliError::AuthorityExists { path: ca });
            }
            files::create_folder(&dir)?;
            let authority = create_authority(&dir)?;
            CertsAnswer {
                cluster_id: authority.cluster().to_string(),
                cert: ca,
                key: dir.join("ca.key"),
                expires: None,
            }
        }
        Certs::Issue(CertsIssue { dir, node, client, days }) => {
            let expires = days.map(in_days);
            let authority = load_authority(&dir)?;
            let authority = match expires {
                Some(end) => authority.expiring(TimestampMs(end.as_millisecond())),
                None => authority,
            };
            let (name, pair) = match (node, client) {
                (Some(node), _) => (format!("node-{node}"), authority.issue_node(NodeId(node))?),
                (None, client) => {
                    let name = client.unwrap_or_else(|| CLIENT.to_owned());
                    let pair = authority.issue_client(&name)?;
                    (name, pair)
                }
            };
            let (cert, key) = write_pair(&dir, &name, &pair)?;
            let expires = expires.map(|end| end.to_string());
            CertsAnswer { cluster_id: authority.cluster().to_string(), cert, key, expires }
        }
    };
    output.print(&answer);
    Ok(())
}

/// The full second that lies so many days ahead.
fn in_days(days: u32) -> Timestamp {
    let now = Timestamp::now().as_second();
    // More than a hundred years are never asked for.
    Timestamp::from_second(now.saturating_add(i64::from(days) * 86_400)).unwrap_or(Timestamp::MAX)
}

/// Makes an authority in `folder`, and certificates of `nodes` nodes and one client.
///
/// Replaces what an interrupted call left; call it only for a cluster of which no node was ever started.
pub(crate) fn make_cluster(folder: &Path, nodes: u64) -> Result<ClusterId, CliError> {
    files::create_folder(folder)?;
    let authority = create_authority(folder)?;
    for node in 0..nodes {
        write_pair(folder, &format!("node-{node}"), &authority.issue_node(NodeId(node))?)?;
    }
    write_pair(folder, CLIENT, &authority.issue_client(CLIENT)?)?;
    Ok(authority.cluster())
}

/// Issues a node's certificate from the authority in `folder`, into the same folder. One that is there stays.
pub(crate) fn issue_node(folder: &Path, node: NodeId) -> Result<(), CliError> {
    let name = format!("node-{node}");
    if files::exists(&folder.join(format!("{name}.pem"))) {
        return Ok(());
    }
    let authority = load_authority(folder)?;
    write_pair(folder, &name, &authority.issue_node(node)?).map(|_| ())
}

/// Issues a node's certificate from the authority in `ca`, into `folder`, with the authority's own beside it. Gives the cluster.
pub(crate) fn issue_node_to(ca: &Path, folder: &Path, node: NodeId) -> Result<ClusterId, CliError> {
    let authority = load_authority(ca)?;
    files::create_folder(folder)?;
    files::replace(&folder.join("ca.pem"), authority.cert_pem(), Access::Public)?;
    let name = format!("node-{node}");
    if !files::exists(&folder.join(format!("{name}.pem"))) {
        write_pair(folder, &name, &authority.issue_node(node)?)?;
    }
    Ok(authority.cluster())
}

fn create_authority(folder: &Path) -> Result<Authority, CliError> {
    let authority = Authority::create(random_cluster_id()?)?;
    files::replace(&folder.join("ca.key"), &authority.key_pem(), Access::Owner)?;
    files::replace(&folder.join("ca.pem"), authority.cert_pem(), Access::Public)?;
    Ok(authority)
}

fn load_authority(folder: &Path) -> Result<Authority, CliError> {
    let (cert_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
    let (cert, key) = (files::read(&cert_path)?, files::read(&key_path)?);
    let cert = PemFile { path: &cert_path, text: &cert };
    Ok(Authority::load(&cert, &PemFile { path: &key_path, text: &key })?)
}

fn write_pair(folder: &Path, name: &str, pair: &PemPair) -> Result<(PathBuf, PathBuf), CliError> {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    files::replace(&key, &pair.key, Access::Owner)?;
    files::replace(&cert, &pair.cert, Access::Public)?;
    Ok((cert, key))
}

fn random_cluster_id() -> Result<ClusterId, CliError> {
    let mut bytes = [0; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| CliError::Runtime { source: errno.into() })?;
    assert_eq!(filled, bytes.len(), "the kernel gives up to 256 random bytes at once");
    Ok(ClusterId(u128::from_ne_bytes(bytes)))
}
