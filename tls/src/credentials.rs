//! What a process shows and trusts: the authority's certificate, its own, and its key.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidelog_wire::ids::ClusterId;
use webpki::EndEntityCert;

use crate::authority::cluster_of_authority;
use crate::{Holder, TlsError, names};

/// The text of a PEM file, and where it was read, for errors.
#[derive(Clone, Copy, Debug)]
pub struct PemFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is in it.
    pub text: &'a str,
}

/// A process's own certificate and key, and the authority that it trusts.
pub struct Credentials {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) cert_path: PathBuf,
    pub(crate) key_path: PathBuf,
    cluster: ClusterId,
    holder: Holder,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = out.debug_struct("Credentials");
        shown.field("cluster", &self.cluster).field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone_key(),
            cert_path: self.cert_path.clone(),
            key_path: self.key_path.clone(),
            cluster: self.cluster,
            holder: self.holder.clone(),
        }
    }
}

impl Credentials {
    /// Reads and checks the texts of the three files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file that is not what it should be, or the two that do not match.
    pub fn parse(ca: &PemFile<'_>, cert: &PemFile<'_>, key: &PemFile<'_>) -> Result<Self, TlsError> {
        let ca_der = certificate(ca)?;
        let cluster = cluster_of_authority(ca, &ca_der)?;
        let cert_der = certificate(cert)?;
        let (holder, found) = match names_of(&cert_der) {
            Some((holder @ (Holder::Node(_) | Holder::Client(_)), found)) => (holder, found),
            Some((Holder::Authority, _)) | None => {
                return Err(TlsError::ForeignName {
                    path: cert.path.to_path_buf(),
                    expected: "node or client",
                    pattern: "node-<id>.<cluster id>.tidelog",
                });
            }
        };
        if found != cluster {
            let (cert, ca) = (cert.path.to_path_buf(), ca.path.to_path_buf());
            return Err(TlsError::ClusterMismatch { cert, ca, expected: cluster, found });
        }
        let key_der = PrivateKeyDer::from_pem_slice(key.text.as_bytes())
            .map_err(|error| TlsError::Key { path: key.path.to_path_buf(), found: error.to_string() })?;
        let credentials = Self {
            ca: ca_der,
            cert: cert_der,
            key: key_der,
            cert_path: cert.path.to_path_buf(),
            key_path: key.path.to_path_buf(),
            cluster,
            holder,
        };
        credentials.check_key()?;
        Ok(credentials)
    }

    /// The cluster that these belong to.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Whom the certificate was issued to.
    #[must_use]
    pub const fn holder(&self) -> &Holder {
        &self.holder
    }
}

/// The first certificate in a file.
pub(crate) fn certificate(file: &PemFile<'_>) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(file.text.as_bytes())
        .map_err(|error| TlsError::Certificate { path: file.path.to_path_buf(), found: error.to_string() })
}

/// Whom a certificate says it is of. Says nothing about whether that is true.
pub(crate) fn names_of(cert: &CertificateDer<'_>) -> Option<(Holder, ClusterId)> {
    let cert = EndEntityCert::try_from(cert).ok()?;
    cert.valid_dns_names().find_map(names::parse)
}
