//! The way of a command or a read from its caller through the leader.
//!
//! [`proposals`] commits commands, which [`batching`] gathers; [`commands`] knows which commands all members can decode.
//! [`reads`] are linearizable: callers share [`rounds`], [`confirmation`] is the quorum's word that the leader still
//! leads, and [`announced`] the commit index that the leader has sent.
//!
//! Nothing here interprets a command beyond its version; `quorate-mvcc` does.

pub mod announced;
pub mod batching;
pub mod commands;
pub mod confirmation;
pub mod proposals;
pub mod reads;
pub mod rounds;
