//! A certificate and its key as TLS uses them, replaceable while it does.

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

/// The certificate that a server or a client shows. Each handshake takes the newest; connections that stand are left
/// alone.
pub struct LiveIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for LiveIdentity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveIdentity").finish_non_exhaustive()
    }
}

impl LiveIdentity {
    /// # Errors
    /// When the two cannot be read, or do not belong together.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Arc<LiveIdentity>, PkiError> {
        let current = ArcSwap::from_pointee(certified(certificate_pem, key_pem)?);
        Ok(Arc::new(LiveIdentity { current }))
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// As [`LiveIdentity::from_pem`]; then nothing is changed.
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
