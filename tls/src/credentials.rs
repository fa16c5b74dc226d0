//! What a process shows and trusts: the authority's certificate, its own, and its key.
//!
//! Its own may be renewed while it runs: [`Credentials::renew`]. Clones share what they show, so one call is enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tidelog_wire::ids::{ClusterId, TimestampMs};
use webpki::EndEntityCert;

use crate::authority::cluster_of_authority;
use crate::configs::provider;
use crate::shown::Shown;
use crate::{Holder, TlsError, configs, expiry, names, verify};

/// The text of a PEM file, and where it was read, for errors.
#[derive(Clone, Copy, Debug)]
pub struct PemFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is in it.
    pub text: &'a str,
}

/// A process's own certificate and key, and the authority that it trusts.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) shown: Arc<Shown>,
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
        let (cert_path, key_path) = (cert.path.to_path_buf(), key.path.to_path_buf());
        let shown = Shown::new(configs::pair(cert_der, key_der, &cert_path, &key_path)?);
        Ok(Self { ca: ca_der, shown, cert_path, key_path, cluster, holder })
    }

    /// Shows the certificate of `newer` from now on, on new connections of this and of all clones. False if it is the one
    /// that is shown already. Connections that stand go on.
    ///
    /// # Errors
    /// [`TlsError::Renewal`] if it is of another holder or authority, was not issued by it, or is not valid at `now`: the old
    /// certificate stays in use.
    pub fn renew(&self, newer: &Self, now: TimestampMs) -> Result<bool, TlsError> {
        let refused = |reason: String| TlsError::Renewal { path: newer.cert_path.clone(), reason };
        if newer.holder != self.holder || newer.cluster != self.cluster {
            return Err(refused(format!(
                "it is of {} of cluster {}, and {} of cluster {} runs here",
                newer.holder, newer.cluster, self.holder, self.cluster
            )));
        }
        if newer.ca != self.ca {
            return Err(refused("it comes with another authority; only a restart changes that".to_owned()));
        }
        let pair = newer.shown.current();
        if pair.cert == self.shown.current().cert {
            return Ok(false);
        }
        let since_1970 = Duration::from_millis(u64::try_from(now.get()).unwrap_or(0));
        verify::clients(self, &provider())?
            .verify_client_cert(&pair.cert, &[], UnixTime::since_unix_epoch(since_1970))
            .map_err(|error| refused(error.to_string()))?;
        self.shown.replace(pair);
        Ok(true)
    }

    /// When the certificate that is shown expires; `None` if it does not.
    #[must_use]
    pub fn expires(&self) -> Option<TimestampMs> {
        expiry::of(&self.shown.current().cert)
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
