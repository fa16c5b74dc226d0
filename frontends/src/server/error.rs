//! Why a node could not be started, or could not go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tidelog_engine::identity::IdentityError;
use tidelog_tls::TlsError;
use tidelog_wire::ids::NodeId;

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address is taken, or not of this machine.
    #[error("E2208 key `{key}`: cannot open {address}: {source}; free the address, or choose another")]
    Address {
        /// The key that asked for it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the configuration or beside it.
    #[error("E2209 {path}: cannot {action}: {source}; check the path and its permissions, then start again")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An empty directory, and nobody said that it may be formatted.
    #[error(
        "E2210 {path}: not formatted, and this node is one of a cluster; if the cluster is new, start once with \
         --bootstrap; if the cluster exists, and this node is new or its directory was wiped, start with --join"
    )]
    NotFormatted {
        /// The data directory.
        path: PathBuf,
    },
    /// To join needs somebody to join.
    #[error(
        "E2213 --join and --rejoin need another node to ask: name the cluster's nodes in `peers`, and give this node a certificate \
         of the cluster's authority (tls.ca, tls.cert, tls.key)"
    )]
    NobodyToJoin,
    /// The certificate is not this node's.
    #[error(
        "E2211 {path}: the certificate was made for {found}, and the configuration says node {expected}: correct `node` or \
         `tls.cert`"
    )]
    WrongCertificate {
        /// The certificate.
        path: PathBuf,
        /// Whom it was made for.
        found: String,
        /// In the configuration.
        expected: NodeId,
    },
    /// Certificates cannot be read, made or used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The directory's identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The directory cannot be formatted.
    #[error(transparent)]
    Format(#[from] tidelog_engine::OpenError),
    /// Consensus could not be started.
    #[error(transparent)]
    Node(#[from] tidelog_consensus::runtime::StartError),
    /// A front-end could not be started.
    #[error(transparent)]
    FrontEnd(#[from] crate::StartError),
    /// The system refused something that every process needs.
    #[error("E2212 cannot {action}: {source}; check the limits of the process, then start again")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
