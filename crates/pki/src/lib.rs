//! Certificates: the authorities of a cluster and what they sign, requests to be signed, identities that change while
//! TLS uses them, what a certificate says, and the tokens with which machines join.
//!
//! Two authorities: one for API clients, API servers and nodes, and one that signs masters' peer certificates and
//! nothing else, so that no node's or user's certificate opens the door to the log.

mod authority;
mod details;
mod error;
mod files;
mod identity;
mod request;
mod token;

pub use authority::{Authorities, Authority, Lifetimes, Subject, Usage};
pub use details::{Details, details};
pub use error::PkiError;
pub use files::{FileIdentity, Pair, read, write_private, write_public};
pub use identity::LiveIdentity;
pub use request::{Machine, SigningRequest};
pub use token::{JoinToken, Pin};
