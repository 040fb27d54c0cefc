//! Mutual TLS between members: both present a certificate, and trust only certificates that the peers' CA has signed.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::StoreError;
use crate::raft::config::{PeerTls, Pem};

const ALPN: &[u8] = b"h2";

/// TLS configuration of both ends of the peer transport.
#[derive(Clone)]
pub struct PeerTlsContext {
    pub acceptor: TlsAcceptor,
    pub connector: TlsConnector,
}

impl PeerTlsContext {
    /// Loads the certificates.
    ///
    /// # Errors
    /// When the CA certificate cannot be read or used.
    pub fn load(tls: &PeerTls) -> Result<Self, StoreError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&tls.ca)? {
            roots.add(certificate).map_err(|error| fatal("the peers' CA", &error))?;
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| fatal("the peers' CA", &error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| fatal("TLS 1.3", &error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(tls.identity.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| fatal("TLS 1.3", &error))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(tls.identity.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(PeerTlsContext { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }
}

/// Returns the name that a member's certificate must have: the host in its peer address.
///
/// # Errors
/// When `peer` is not `host:port`.
pub fn server_name(peer: &str) -> Result<ServerName<'static>, StoreError> {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host).trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned())
        .map_err(|error| StoreError::Fatal(format!("the peer address {peer:?} has no host name: {error}")))
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(pem)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(StoreError::Fatal("the peers' CA holds no certificate".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(fatal("the peers' CA", &error)),
    }
}

fn read(pem: &Pem) -> Result<Vec<u8>, StoreError> {
    match pem {
        Pem::Bytes(bytes) => Ok(bytes.clone()),
        Pem::File(path) => std::fs::read(path)
            .map_err(|error| StoreError::Fatal(format!("cannot read the peers' CA {}: {error}", path.display()))),
    }
}

fn fatal(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Fatal(format!("{what} cannot be used: {error}"))
}
