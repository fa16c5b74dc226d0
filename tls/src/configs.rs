//! Configurations for `quinn`, all of them mutual TLS 1.3 with certificates of one cluster.
//!
//! Timeouts and windows are the caller's: each use has its own.

use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use crate::reset::{RandomIds, ResetKey};
use crate::shown::Pair;
use crate::{Credentials, TlsError, verify};

/// What is spoken over a connection; the two ends must mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Between nodes.
    Peer,
    /// Between clients and nodes.
    Native,
}

impl Protocol {
    /// The name under which TLS negotiates it.
    #[must_use]
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Peer => "tidelog-peer/1",
            Self::Native => "tidelog/1",
        }
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Credentials {
    pub(crate) fn unusable(&self, reason: &str) -> TlsError {
        let (cert, key) = (self.cert_path.clone(), self.key_path.clone());
        TlsError::Mismatch { cert, key, reason: reason.to_owned() }
    }
}

/// A certificate with the key that it was made with.
pub(crate) fn pair(
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    cert_path: &Path,
    key_path: &Path,
) -> Result<Pair, TlsError> {
    let certified = CertifiedKey::from_der(vec![cert.clone()], key.clone_key(), &provider());
    let certified = certified.map_err(|error| TlsError::Mismatch {
        cert: cert_path.to_path_buf(),
        key: key_path.to_path_buf(),
        reason: error.to_string(),
    })?;
    Ok(Pair { cert, key, certified: Arc::new(certified) })
}

/// For the accepting end: peers must show a certificate of the same cluster.
///
/// # Errors
/// [`TlsError::Mismatch`] if the credentials cannot be used.
pub fn server_config(credentials: &Credentials, protocol: Protocol) -> Result<quinn::ServerConfig, TlsError> {
    let provider = provider();
    let clients = verify::clients(credentials, &provider)?;
    let shown: Arc<dyn ResolvesServerCert> = credentials.shown.clone();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| credentials.unusable(&error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown);
    tls.send_tls13_tickets = 0;
    tls.alpn_protocols = vec![protocol.alpn().as_bytes().to_vec()];
    let quic = QuicServerConfig::try_from(tls).map_err(|error| credentials.unusable(&error.to_string()))?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(quic)))
}

/// For the dialling end. Dial a node by [`crate::node_name`]: any other certificate is refused.
///
/// # Errors
/// [`TlsError::Mismatch`] if the credentials cannot be used.
pub fn client_config(credentials: &Credentials, protocol: Protocol) -> Result<quinn::ClientConfig, TlsError> {
    let provider = provider();
    let servers = verify::servers(credentials, &provider)?;
    let shown: Arc<dyn ResolvesClientCert> = credentials.shown.clone();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| credentials.unusable(&error.to_string()))?
        .dangerous() // The verifier is the library's own, which only words one refusal better.
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(shown);
    tls.resumption = Resumption::disabled();
    tls.alpn_protocols = vec![protocol.alpn().as_bytes().to_vec()];
    let quic = QuicClientConfig::try_from(tls).map_err(|error| credentials.unusable(&error.to_string()))?;
    Ok(quinn::ClientConfig::new(Arc::new(quic)))
}

/// For both ends. Its reset key is derived from the private key, so that a node that was killed and
/// restarted makes its peers drop dead connections at once instead of after the idle limit. An endpoint keeps the key it was
/// made with: after a renewal the first restart has another, and the idle limit does it that once.
#[must_use]
pub fn endpoint_config(credentials: &Credentials) -> quinn::EndpointConfig {
    let mut config =
        quinn::EndpointConfig::new(Arc::new(ResetKey::derive(credentials.shown.current().key.secret_der())));
    config.cid_generator(|| Box::new(RandomIds::new()));
    config
}
