//! Errors of certificates and keys.

use std::path::PathBuf;

/// Reason why a certificate or key cannot be read, created or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{what} cannot be created")]
    Make { what: String, source: rcgen::Error },
    #[error("{what} is not usable")]
    Unusable { what: String, source: rcgen::Error },
    #[error("no {what} can be read from PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("the PEM contains no certificate")]
    Empty,
    #[error("certificate and key are not usable")]
    Identity(#[source] rustls::Error),
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    #[error("the request for a certificate asks for {0}, which is neither a DNS name nor an IP address")]
    UnknownName(String),
}
