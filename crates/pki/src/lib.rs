//! Certificates: the authorities of a cluster and the certificates that they sign, signing requests, identities that
//! can be replaced while TLS uses them, the contents of certificates, and the tokens with which machines join.
//!
//! A cluster has two authorities. One signs API clients, API servers and nodes. The other signs only the masters' peer
//! certificates, so no certificate of a node or user gives access to the Raft log.

mod authority;
mod details;
mod error;
mod files;
mod host;
mod identity;
mod request;
mod token;

pub use authority::{Authorities, Authority, Lifetimes, Subject, Usage};
pub use details::{Details, details};
pub use error::PkiError;
pub use files::{FileIdentity, Pair, read, write_private, write_public};
pub use host::{canonical_host, parse_host};
pub use identity::LiveIdentity;
pub use request::{Machine, SigningRequest};
pub use token::{JoinToken, Pin};
