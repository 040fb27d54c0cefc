//! The transport between members: HTTP/2 over mutual TLS, with bincode bodies.
//!
//! Each peer has two long-lived connections ([`channel`], kept open by [`link`]): one for short messages that must not
//! wait (heartbeats, votes, read index, status), and one for bulk (log, proposals, snapshots). [`messages`] defines the
//! messages, [`frames`] puts a stream of messages into a body, [`client`] sends requests, [`server`] answers them, and
//! [`openraft_network`] connects openraft to the transport.
//!
//! This module makes no decisions about Raft.

pub mod channel;
pub mod client;
pub mod frames;
pub mod link;
pub mod messages;
pub mod openraft_network;
pub mod server;
pub mod snapshot_stream;
pub mod tls;
