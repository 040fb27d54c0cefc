//! A certificate and its key for TLS, replaceable at run time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::PkiError;

/// Certificate that a server or client presents. Each handshake uses the newest one; existing connections are not
/// affected.
pub struct LiveIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for LiveIdentity {
    /// Omits the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveIdentity").finish_non_exhaustive()
    }
}

impl LiveIdentity {
    /// # Errors
    /// Fails when the certificate or key cannot be read, or when they do not belong together.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Arc<LiveIdentity>, PkiError> {
        let current = ArcSwap::from_pointee(certified(certificate_pem, key_pem)?);
        Ok(Arc::new(LiveIdentity { current }))
    }

    /// Replaces the certificate for new handshakes.
    ///
    /// # Errors
    /// Fails like [`LiveIdentity::from_pem`], and then changes nothing.
    pub fn replace(&self, certificate_pem: &[u8], key_pem: &[u8]) -> Result<(), PkiError> {
        self.current.store(Arc::new(certified(certificate_pem, key_pem)?));
        Ok(())
    }
}

fn certified(certificate_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, PkiError> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| PkiError::Pem { what: "certificate", source })?;
    if chain.is_empty() {
        return Err(PkiError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|source| PkiError::Pem { what: "private key", source })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(PkiError::Identity)
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load_full();
        current.key.choose_scheme(schemes).is_some().then_some(current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
