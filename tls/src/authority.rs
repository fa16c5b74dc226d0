//! Makes a cluster's authority, and the certificates that it issues.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData as _, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use tidelog_wire::ids::{ClusterId, NodeId, TimestampMs};

use crate::credentials::{PemFile, certificate, names_of};
use crate::names::{authority_name, domain};
use crate::{Holder, TlsError, client_name, node_name};

/// The last second of the year 4095: what is valid longer is valid for ever.
const EXPIRES_MAX_SECONDS: u64 = 67_090_118_399;

/// A certificate and its private key, as texts for two files. The key's should be readable by its
/// owner only.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for PemPair {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PemPair").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// The one who says which certificates belong to a cluster.
pub struct Authority {
    cluster: ClusterId,
    cert: String,
    issuer: Issuer<'static, KeyPair>,
    expires: Option<TimestampMs>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of a new cluster. The caller draws `cluster` at random.
    ///
    /// # Errors
    /// [`TlsError::Generate`] if the system gives no randomness.
    pub fn create(cluster: ClusterId) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(generate)?;
        let params = authority_params(cluster)?;
        let cert = params.self_signed(&key).map_err(generate)?.pem();
        Ok(Self { cluster, cert, issuer: Issuer::new(params, key), expires: None })
    }

    /// Takes up an authority from the texts of its two files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file that is not what it should be.
    pub fn load(cert: &PemFile<'_>, key: &PemFile<'_>) -> Result<Self, TlsError> {
        let der = certificate(cert)?;
        let cluster = cluster_of_authority(cert, &der)?;
        let pair = KeyPair::from_pem(key.text)
            .map_err(|error| TlsError::Key { path: key.path.to_path_buf(), found: error.to_string() })?;
        let public = pair.subject_public_key_info();
        if !der.windows(public.len()).any(|window| window == public) {
            return Err(TlsError::NotTheAuthority {
                ca: cert.path.to_path_buf(),
                key: key.path.to_path_buf(),
            });
        }
        let issuer = Issuer::new(authority_params(cluster)?, pair);
        Ok(Self { cluster, cert: cert.text.to_owned(), issuer, expires: None })
    }

    /// What it issues from now on expires at `end`, to the second; before the year 4096, or never.
    #[must_use]
    pub const fn expiring(mut self, end: TimestampMs) -> Self {
        self.expires = Some(end);
        self
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority's certificate, which every node and client needs.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert
    }

    /// The authority's private key. Only whoever adds nodes and clients needs it.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes the certificate of a node.
    ///
    /// # Errors
    /// [`TlsError::Generate`] if the system gives no randomness.
    pub fn issue_node(&self, node: NodeId) -> Result<PemPair, TlsError> {
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(node_name(node, self.cluster), &format!("tidelog node {node}"), &usages)
    }

    /// Makes the certificate of a client. It cannot pass for a node.
    ///
    /// # Errors
    /// [`TlsError::ClientName`] if the name cannot stand in a certificate, [`TlsError::Generate`].
    pub fn issue_client(&self, name: &str) -> Result<PemPair, TlsError> {
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(client_name(name, self.cluster)?, &format!("tidelog client {name}"), &usages)
    }

    fn issue(
        &self,
        name: String,
        title: &str,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<PemPair, TlsError> {
        let key = KeyPair::generate().map_err(generate)?;
        let mut params = CertificateParams::new(vec![name]).map_err(generate)?;
        params.distinguished_name.push(DnType::CommonName, title);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        if let Some(end) = self.expires {
            let seconds = u64::try_from(end.get() / 1000).unwrap_or(0).min(EXPIRES_MAX_SECONDS);
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        }
        let cert = params.signed_by(&key, &self.issuer).map_err(generate)?;
        Ok(PemPair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// The same for the same cluster, so that the issuer's name in certificates matches after a reload.
fn authority_params(cluster: ClusterId) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(vec![authority_name(cluster)]).map_err(generate)?;
    params.distinguished_name.push(DnType::CommonName, format!("tidelog cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain(cluster))],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

/// The cluster that an authority's certificate speaks for.
pub(crate) fn cluster_of_authority(
    file: &PemFile<'_>,
    cert: &CertificateDer<'_>,
) -> Result<ClusterId, TlsError> {
    match names_of(cert) {
        Some((Holder::Authority, cluster)) => Ok(cluster),
        Some((Holder::Node(_) | Holder::Client(_), _)) | None => Err(TlsError::ForeignName {
            path: file.path.to_path_buf(),
            expected: "authority",
            pattern: "ca.<cluster id>.tidelog",
        }),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as the argument of map_err")]
fn generate(error: rcgen::Error) -> TlsError {
    TlsError::Generate { reason: error.to_string() }
}
