//! TLS: the server side with optional client certificates, and the client side of connections to nodes.

use std::sync::Arc;

use quorate_pki::LiveIdentity;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::{AUTHENTICATED, UserInfo};

/// The reason why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no {what} can be read from PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("the certificate authority's certificate is not usable")]
    Authority(#[source] rustls::Error),
    #[error("client certificates cannot be verified")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    #[error("the TLS provider does not support the default protocol versions")]
    Protocol(#[source] rustls::Error),
}

fn roots(authority_pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem) {
        let certificate =
            certificate.map_err(|source| TlsError::Pem { what: "certificate authority's certificate", source })?;
        roots.add(certificate).map_err(TlsError::Authority)?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Returns the server side of TLS, which presents the current `identity` at each handshake. A client certificate is
/// optional, but must be signed by the authority.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(
    identity: Arc<LiveIdentity>,
    client_authority_pem: &[u8],
) -> Result<rustls::ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(client_authority_pem)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Returns the client side of TLS towards nodes, whose certificates the authority must have signed. It authenticates as
/// `identity`.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(identity: Arc<LiveIdentity>, authority_pem: &[u8]) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots(authority_pem)?)
        .with_client_cert_resolver(identity))
}

/// Returns the user that a verified client certificate names: CN is the user, each O a group.
#[must_use]
pub fn certificate_user(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    (!name.is_empty()).then_some(UserInfo { name, groups })
}
