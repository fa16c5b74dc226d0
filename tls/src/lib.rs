//! TLS of a cluster: one authority, names in certificates, and the configurations built from them.
//!
//! A cluster is its certificate authority. The authority's certificate carries the cluster id, and
//! may only vouch for names below `<cluster id>.tidelog`. Each node has a certificate for
//! `node-<id>.<cluster id>.tidelog`, each client one for `client-<name>.<cluster id>.tidelog`. Both
//! ends of every connection show theirs (mutual TLS 1.3), and a node is dialled by its name, so an
//! address that leads to the wrong node, or to another cluster, is noticed before a byte of ours flows.
//! Addresses are in no certificate: nodes may move.
//!
//! Certificates do not expire unless they were issued so ([`Authority::expiring`]): a clock that jumps must not take a
//! cluster down by itself. Those that do are renewed while the process runs ([`Credentials::renew`]). Who is no longer
//! trusted before its time is left behind by a new authority.
//!
//! Not here: files (callers read and write the PEM texts) and what is said over a connection.

mod authority;
mod configs;
mod credentials;
mod error;
mod expiry;
mod names;
mod peer;
mod reset;
mod shown;
#[cfg(test)]
mod tests;
mod verify;

pub use authority::{Authority, PemPair};
pub use configs::{Protocol, client_config, endpoint_config, server_config};
pub use credentials::{Credentials, PemFile};
pub use error::TlsError;
pub use names::{Holder, client_name, node_name};
pub use peer::{expect_node, peer_holder};
