//! Who is at the other end of a connection, by the certificate it proved to hold.

use rustls::pki_types::{CertificateDer, ServerName};
use tidelog_wire::ids::{ClusterId, NodeId};
use webpki::EndEntityCert;

use crate::credentials::names_of;
use crate::{Holder, TlsError, node_name};

fn certificate(connection: &quinn::Connection) -> Result<CertificateDer<'static>, TlsError> {
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.and_then(|chain| chain.into_iter().next()).ok_or(TlsError::NoCertificate)
}

/// Whose certificate the peer showed. The TLS library has verified that `cluster`'s authority
/// issued it and that the peer holds its key.
///
/// # Errors
/// [`TlsError::NoCertificate`] if there is none, or it names nobody of `cluster`.
pub fn peer_holder(connection: &quinn::Connection, cluster: ClusterId) -> Result<Holder, TlsError> {
    match names_of(&certificate(connection)?) {
        Some((holder, found)) if found == cluster => Ok(holder),
        Some(_) | None => Err(TlsError::NoCertificate),
    }
}

/// Checks that the peer's certificate is valid for the name of `node`.
///
/// # Errors
/// [`TlsError::WrongPeer`] if it is of somebody else, [`TlsError::NoCertificate`].
pub fn expect_node(connection: &quinn::Connection, cluster: ClusterId, node: NodeId) -> Result<(), TlsError> {
    let der = certificate(connection)?;
    let cert = EndEntityCert::try_from(&der).map_err(|_| TlsError::NoCertificate)?;
    let name = ServerName::try_from(node_name(node, cluster)).map_err(|_| TlsError::NoCertificate)?;
    cert.verify_is_valid_for_subject_name(&name).map_err(|_| match peer_holder(connection, cluster) {
        Ok(found) => TlsError::WrongPeer { expected: node, cluster, found },
        Err(error) => error,
    })
}
