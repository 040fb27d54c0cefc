//! A member of the quorum: openraft over RocksDB, and the transport between members.
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`types`], [`codec`] | a member's configuration, openraft's type parameters, the encoding on disk and on the wire |
//! | [`node`], [`engine`] | the running member, and the member as an [`Engine`](crate::handle::Engine) |
//! | [`lifecycle`] | how a member starts, restarts and ends, and the tools for a stopped one |
//! | [`membership`] | who belongs to the quorum and who votes |
//! | [`elections`] | who leads |
//! | [`requests`] | commands and linearizable reads |
//! | [`upkeep`] | a member's background tasks |
//! | [`log`], [`state`] | the Raft log, and the applied state |
//! | [`network`] | the transport |
//!
//! This module does not interpret commands; `quorate-mvcc` does.

pub mod codec;
pub mod config;
mod elections;
mod engine;
mod lifecycle;
mod log;
mod membership;
mod network;
mod node;
mod requests;
#[cfg(test)]
pub(crate) mod simulation;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod tests;
mod types;
mod upkeep;

pub use config::{LogRetention, PeerListen, PeerTls, Pem, RaftConfig, Timing};
pub use lifecycle::recovery::Recovery;
pub use lifecycle::restore::restore;
pub use lifecycle::start::{owner, start};
pub use membership::invitations::PREFIX as INVITATIONS;
pub use membership::joining::{JoinConfig, join};
