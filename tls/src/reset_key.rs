//! The key that signs stateless resets of QUIC connections: HKDF of the node's private key.

use quinn::crypto::{CryptoError, HmacKey};
use rustls::Tls13CipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};

const CONTEXT: &[u8] = b"tidelog quic stateless reset key 1";
const LEN: usize = 32;

/// HMAC-SHA256 with a derived key.
pub(crate) struct ResetKey {
    hash: &'static dyn Hkdf,
    key: OkmBlock,
}

impl ResetKey {
    pub(crate) fn derive(secret: &[u8]) -> Self {
        let suite: &'static Tls13CipherSuite = match TLS13_CHACHA20_POLY1305_SHA256.tls13() {
            Some(suite) => suite,
            None => unreachable!("a TLS 1.3 suite"),
        };
        let hash = suite.hkdf_provider;
        let mut key = [0; LEN];
        // 32 bytes are one block of SHA-256, which an expansion always has.
        let expanded = hash.extract_from_secret(None, secret).expand_slice(&[CONTEXT], &mut key);
        assert!(expanded.is_ok(), "HKDF-SHA256 gives 32 bytes");
        Self { hash, key: OkmBlock::new(&key) }
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.hash.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = self.hash.hmac_sign(&self.key, data);
        let expected = expected.as_ref();
        // Looks at every byte, so that the time taken says nothing about them.
        let difference = expected.iter().zip(signature).fold(0, |all, (a, b)| all | (a ^ b));
        if expected.len() == signature.len() && difference == 0 { Ok(()) } else { Err(CryptoError) }
    }
}
