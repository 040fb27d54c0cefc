//! How members talk: HTTP/2 over mutual TLS, with bincode bodies.
//!
//! To each peer there are two long-lived connections ([`channel`], kept by [`link`]): one for what must not wait (heartbeats, votes, read
//! index, status), one for bulk (log, proposals, snapshots). [`messages`] is what is said, [`frames`] how a stream of
//! messages lies in a body, [`client`] says it, [`server`] answers, and [`openraft_network`] lets openraft speak.
//!
//! Nothing here decides anything about Raft.

pub mod channel;
pub mod client;
pub mod frames;
pub mod link;
pub mod messages;
pub mod openraft_network;
pub mod server;
pub mod snapshot_stream;
pub mod tls;
