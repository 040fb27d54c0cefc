//! Why a certificate or key cannot be used.

use std::path::PathBuf;

/// Why a certificate or key cannot be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{what} cannot be made")]
    Make { what: String, source: rcgen::Error },
    #[error("{what} is not usable")]
    Unusable { what: String, source: rcgen::Error },
    #[error("no {what} can be read from PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("the PEM holds no certificate")]
    Empty,
    #[error("certificate and key are not usable")]
    Identity(#[source] rustls::Error),
    #[error("{0} is not a certificate that can be understood")]
    Malformed(String),
    #[error("the request for a certificate asks for {0}, which is neither a DNS name nor an IP address")]
    UnknownName(String),
}
