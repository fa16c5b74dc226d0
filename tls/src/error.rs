//! What can be wrong with certificates, and what to do about it.

use std::path::PathBuf;

use tidelog_wire::ids::{ClusterId, NodeId};

use crate::Holder;

/// Why a certificate, a key or a peer is not accepted. Nothing was sent or changed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file holds no certificate.
    #[error(
        "E1401 {path}: expected a PEM certificate, found {found}: name the file that `tidelog up` or the \
         certificate command wrote"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A file holds no usable private key.
    #[error(
        "E1402 {path}: expected a PEM private key (PKCS#8), found {found}: name the key file that belongs to the certificate"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A certificate carries no name of ours.
    #[error(
        "E1403 {path}: the certificate names no tidelog {expected} (expected `{pattern}`): it was made by \
         another program; make one with tidelog"
    )]
    ForeignName {
        /// The file.
        path: PathBuf,
        /// Whose certificate it should be.
        expected: &'static str,
        /// What its name should look like.
        pattern: &'static str,
    },
    /// Certificate and authority belong to two clusters.
    #[error(
        "E1404 {cert}: issued for cluster {found}, but {ca} is the authority of cluster {expected}: take both from \
         the same cluster"
    )]
    ClusterMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The authority's file.
        ca: PathBuf,
        /// The authority's cluster.
        expected: ClusterId,
        /// The certificate's cluster.
        found: ClusterId,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error(
        "E1405 {cert}: cannot be used with the key {key}: {reason}: name the key that the certificate was made with"
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
    /// A client's name cannot stand in a certificate.
    #[error(
        "E1406 client name `{name}`: expected 1 to 56 of a-z, 0-9 and inner hyphens: choose another name"
    )]
    ClientName {
        /// The name.
        name: String,
    },
    /// The peer holds a valid certificate, but of somebody else.
    #[error(
        "E1407 the peer should be node {expected} of cluster {cluster}, its certificate is of {found}: check the \
         addresses in the configuration of both nodes"
    )]
    WrongPeer {
        /// The node that was expected.
        expected: NodeId,
        /// Our cluster.
        cluster: ClusterId,
        /// Whose certificate it is.
        found: Holder,
    },
    /// The peer showed no certificate that can be read.
    #[error(
        "E1408 the peer showed no certificate of this cluster: give it one issued by the cluster's authority"
    )]
    NoCertificate,
    /// A certificate could not be made.
    #[error(
        "E1409 cannot make a certificate: {reason}: check that the system has randomness to give, then try again"
    )]
    Generate {
        /// What the library said.
        reason: String,
    },
    /// The authority's certificate is not what its key would make.
    #[error(
        "E1410 {ca}: not the authority's certificate for the key {key}: name the pair that was made together"
    )]
    NotTheAuthority {
        /// The certificate's file.
        ca: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A new certificate that cannot take the place of the one in use.
    #[error(
        "E1412 {path}: this certificate cannot take the place of the one in use: {reason}; the old one stays in use: \
         issue another with `tidelog certs issue` and the cluster's authority"
    )]
    Renewal {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a peer of another cluster is told, and what is logged about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "E1411 the certificate is of cluster {theirs}, this is cluster {ours}: check the addresses of the two clusters"
)]
pub(crate) struct ForeignCluster {
    pub(crate) ours: ClusterId,
    pub(crate) theirs: ClusterId,
}
