//! Certificate checks as the TLS library does them, with one thing added: a peer of another cluster
//! is told so, with both cluster ids, instead of "unknown issuer".

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme};
use tidelog_wire::ids::ClusterId;

use crate::credentials::names_of;
use crate::error::ForeignCluster;
use crate::{Credentials, TlsError};

#[derive(Debug)]
struct Servers {
    inner: Arc<WebPkiServerVerifier>,
    ours: ClusterId,
}

#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    ours: ClusterId,
}

/// A refusal, put better if the certificate says that it is of another cluster.
fn explain(refusal: Error, cert: &CertificateDer<'_>, ours: ClusterId) -> Error {
    match names_of(cert) {
        Some((_, theirs)) if theirs != ours => {
            Error::Other(OtherError(Arc::new(ForeignCluster { ours, theirs })))
        }
        Some(_) | None => refusal,
    }
}

fn roots(credentials: &Credentials) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(credentials.ca.clone()).map_err(|error| credentials.unusable(&error.to_string()))?;
    Ok(Arc::new(roots))
}

pub(crate) fn servers(
    credentials: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(credentials)?, Arc::clone(provider))
        .build()
        .map_err(|error| credentials.unusable(&error.to_string()))?;
    Ok(Arc::new(Servers { inner, ours: credentials.cluster() }))
}

pub(crate) fn clients(
    credentials: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let inner = WebPkiClientVerifier::builder_with_provider(roots(credentials)?, Arc::clone(provider))
        .build()
        .map_err(|error| credentials.unusable(&error.to_string()))?;
    Ok(Arc::new(Clients { inner, ours: credentials.cluster() }))
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|refusal| explain(refusal, end_entity, self.ours))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Naming ours would make a peer of another cluster show nothing, and the error say nothing.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|refusal| explain(refusal, end_entity, self.ours))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
