//! The certificate that a process shows, which may be replaced while it runs.
//!
//! Every configuration built from the same [`crate::Credentials`] shares one [`Shown`], and asks it at each handshake. So a
//! renewed certificate is shown on every connection made from then on, and connections that stand are not touched:
//! certificates play no part in them any more. Sessions are not resumed, or an old certificate would live on in them.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate with its key.
pub(crate) struct Pair {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) certified: Arc<CertifiedKey>,
}

/// What is shown now.
pub(crate) struct Shown(RwLock<Arc<Pair>>);

impl Shown {
    pub(crate) fn new(pair: Pair) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(pair))))
    }

    pub(crate) fn current(&self) -> Arc<Pair> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, pair: Arc<Pair>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
