//! The profile: a file that names a cluster and what the caller shows to it.
//!
//! ```toml
//! cluster_id = "0123456789abcdef0123456789abcdef"
//! ca = "tls/ca.pem"
//! cert = "tls/client.pem"
//! key = "tls/client.key"
//! nodes = [{ id = 0, native = "127.0.0.1:9000", admin = "127.0.0.1:9003" }]
//! ```
//! Paths are relative to the file. The nodes are where to begin; the others are learned from them.

#![expect(
    clippy::disallowed_methods,
    reason = "owns the files of the client: the profile and its certificates"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tidelog_tls::{Credentials, PemFile};
use tidelog_wire::ids::{ClusterId, NodeId};

use crate::error::ClientError;

/// Largest file that is read.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A cluster, and what to show to it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Where to begin.
    pub nodes: Vec<ProfileNode>,
    /// Certificates and key.
    pub credentials: Credentials,
}

/// A node as the profile names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileNode {
    /// The node.
    pub id: NodeId,
    /// Its native protocol, `host:port`.
    pub native: String,
    /// Its admin HTTP, `host:port`.
    #[serde(default)]
    pub admin: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    cluster_id: ClusterId,
    nodes: Vec<ProfileNode>,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Profile {
    /// Reads the profile at `path` and the certificates it names.
    ///
    /// # Errors
    /// [`ClientError::ProfileFile`], [`ClientError::Profile`], [`ClientError::Tls`].
    pub fn load(path: &Path) -> Result<Self, ClientError> {
        let wrong = |reason: String| ClientError::Profile { path: path.to_path_buf(), reason };
        let file: ProfileFile = toml::from_str(&read(path)?).map_err(|error| wrong(error.to_string()))?;
        if file.nodes.is_empty() {
            return Err(wrong("nodes is empty".to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let [ca, cert, key] = [&file.ca, &file.cert, &file.key].map(|name| folder.join(name));
        let (ca_text, cert_text, key_text) = (read(&ca)?, read(&cert)?, read(&key)?);
        let credentials = Credentials::parse(
            &PemFile { path: &ca, text: &ca_text },
            &PemFile { path: &cert, text: &cert_text },
            &PemFile { path: &key, text: &key_text },
        )?;
        if credentials.cluster() != file.cluster_id {
            let (found, expected) = (credentials.cluster(), file.cluster_id);
            return Err(wrong(format!("cluster_id is {expected}, but the certificates are of {found}")));
        }
        Ok(Self { cluster: file.cluster_id, nodes: file.nodes, credentials })
    }
}

fn read(path: &Path) -> Result<String, ClientError> {
    let failed = |source| ClientError::ProfileFile { path: path.to_path_buf(), source: Arc::new(source) };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if usize::try_from(length).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        std::fs::read_to_string(path).map_err(failed)
    } else {
        let reason = format!("{length} bytes, at most {FILE_BYTES_MAX} are expected");
        Err(ClientError::Profile { path: path.to_path_buf(), reason })
    }
}

#[cfg(test)]
mod tests {
    use tidelog_tls::Authority;

    use super::*;

    const CLUSTER: &str = "000000000000000000000000000007ea";

    fn folder_with(profile: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(CLUSTER.parse().unwrap()).unwrap();
        let pair = authority.issue_client("test").unwrap();
        for (name, text) in [("ca.pem", authority.cert_pem()), ("c.pem", &pair.cert), ("c.key", &pair.key)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::write(folder.path().join("client.toml"), profile).unwrap();
        folder
    }

    fn load(profile: &str) -> Result<Profile, ClientError> {
        Profile::load(&folder_with(profile).path().join("client.toml"))
    }

    fn profile(cluster: &str, nodes: &str) -> String {
        format!("cluster_id = '{cluster}'\nca = 'ca.pem'\ncert = 'c.pem'\nkey = 'c.key'\nnodes = [{nodes}]\n")
    }

    #[test]
    fn a_profile_names_its_files_relative_to_itself() {
        let nodes = "{ id = 2, native = '127.0.0.1:9020', admin = '127.0.0.1:9023' }";
        let read = load(&profile(CLUSTER, nodes)).unwrap();
        assert_eq!((read.cluster.to_string().as_str(), read.nodes[0].id), (CLUSTER, NodeId(2)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let node = "{ id = 0, native = '127.0.0.1:9000' }";
        for (profile, expected) in [
            (profile(CLUSTER, ""), "nodes is empty"),
            (profile("12", node), "32 hexadecimal digits"),
            (profile(&CLUSTER.replace('7', "8"), node), "the certificates are of"),
            (profile(CLUSTER, node) + "colour = 'blue'", "colour"),
        ] {
            let error = load(&profile).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("client.toml"), "{error}");
        }
        let error = Profile::load(Path::new("/nowhere/client.toml")).unwrap_err();
        assert!(matches!(error, ClientError::ProfileFile { .. }), "{error}");
    }
}
