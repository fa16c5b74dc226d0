//! What lets a restarted node reset the connections of the process before it.
//!
//! A peer goes on sending on a connection whose other end was killed. The process that follows there
//! does not know the connection, and answers with a reset that the peer believes only if it is signed
//! with the same key. So the key is derived from the node's private key (HKDF), and connection ids are
//! plain random numbers: the QUIC library's own ids carry a mark of the process that made them, and
//! packets with another mark are dropped instead of answered.

use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rustls::Tls13CipherSuite;
use rustls::crypto::SecureRandom;
use rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};

const CONTEXT: &[u8] = b"tidelog quic stateless reset key 1";
const LEN: usize = 32;
const CONNECTION_ID_LEN: usize = 8;

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

/// Makes connection ids that say nothing about the process.
pub(crate) struct RandomIds {
    random: &'static dyn SecureRandom,
}

impl RandomIds {
    pub(crate) fn new() -> Self {
        Self { random: rustls::crypto::ring::default_provider().secure_random }
    }
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_LEN];
        // The library does not foresee failure here, and a system without randomness has no TLS either.
        assert!(self.random.fill(&mut id).is_ok(), "the system gives no randomness");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
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
