//! Names in certificates, and back.

use std::fmt;

use tidelog_wire::ids::{ClusterId, NodeId};

use crate::TlsError;

const SUFFIX: &str = "tidelog";
/// A DNS label has 63 characters at most; `client-` takes 7 of them.
const CLIENT_NAME_MAX: usize = 56;

/// Whom a certificate was issued to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The authority itself.
    Authority,
    /// A node of the cluster.
    Node(NodeId),
    /// A client, by the name it was given.
    Client(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => out.write_str("the authority"),
            Self::Node(node) => write!(out, "node {node}"),
            Self::Client(name) => write!(out, "client {name}"),
        }
    }
}

/// The name of a node's certificate, under which it is dialled.
#[must_use]
pub fn node_name(node: NodeId, cluster: ClusterId) -> String {
    format!("node-{node}.{}", domain(cluster))
}

/// The name of a client's certificate.
///
/// # Errors
/// [`TlsError::ClientName`] unless `name` is 1..=56 of `a-z`, `0-9` and inner `-`.
pub fn client_name(name: &str, cluster: ClusterId) -> Result<String, TlsError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !plain || name.is_empty() || name.len() > CLIENT_NAME_MAX || name.ends_with('-') {
        return Err(TlsError::ClientName { name: name.to_owned() });
    }
    Ok(format!("client-{name}.{}", domain(cluster)))
}

/// The name in the authority's own certificate, which says which cluster it is.
pub(crate) fn authority_name(cluster: ClusterId) -> String {
    format!("ca.{}", domain(cluster))
}

/// What all names of a cluster end with.
pub(crate) fn domain(cluster: ClusterId) -> String {
    format!("{cluster}.{SUFFIX}")
}

/// Reads a name back; `None` if it is none of ours.
pub(crate) fn parse(name: &str) -> Option<(Holder, ClusterId)> {
    let (label, rest) = name.split_once('.')?;
    let cluster = rest.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok()?;
    let holder = if label == "ca" {
        Holder::Authority
    } else if let Some(node) = label.strip_prefix("node-") {
        Holder::Node(NodeId(node.parse().ok()?))
    } else {
        Holder::Client(label.strip_prefix("client-")?.to_owned())
    };
    Some((holder, cluster))
}
