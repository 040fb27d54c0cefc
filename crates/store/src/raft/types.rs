//! Type parameters of openraft: a log entry carries a batch of commands, its response the replies to them.

use std::fmt;

use bytes::{Bytes, BytesMut};
use openraft::type_config::alias;
use quorate_mvcc::{Command, CommandVersion, Reply};
use serde::{Deserialize, Serialize};

use super::codec::CodecError;
use super::requests::commands;
use super::state::snapshot::SnapshotData;
use super::state::state_machine::StateMachine;
use crate::membership::{Member, MemberId};
use crate::platform::Runtime;

openraft::declare_raft_types!(
    /// Quorate's Raft group.
    pub TypeConfig:
        D = CommandBatch,
        R = Vec<Reply>,
        NodeId = MemberId,
        Node = Member,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, MemberId>,
        AsyncRuntime = Runtime,
);

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub type LogId = alias::LogIdOf<TypeConfig>;
/// Id of a leader that a quorum has elected.
pub type LeaderId = alias::CommittedLeaderIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub type AppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub type TransferResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
pub type SnapshotResponse = openraft::raft::SnapshotResponse<TypeConfig>;
pub type RpcError = openraft::errors::RPCError<TypeConfig>;
pub type Fatal = openraft::errors::Fatal<TypeConfig>;
pub type Metrics = openraft::RaftMetrics<TypeConfig>;
pub type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;

/// Encoded commands that commit together. The member that proposes them encodes them once and `apply` decodes them; the
/// log, replication and forwarding share the same bytes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBatch {
    count: u32,
    encoded: Bytes,
}

impl CommandBatch {
    /// Returns a batch of commands that [`codec::encode`](super::codec::encode) has encoded one by one.
    #[must_use]
    pub fn concat<'a>(commands: impl ExactSizeIterator<Item = &'a Bytes> + Clone) -> Self {
        let count = u32::try_from(commands.len()).expect("a batch is bounded far below four billion commands");
        let mut encoded = BytesMut::with_capacity(commands.clone().map(Bytes::len).sum());
        for command in commands {
            encoded.extend_from_slice(command);
        }
        CommandBatch { count, encoded: encoded.freeze() }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Decodes the commands, in order, as a program that knows versions up to `newest`.
    ///
    /// # Errors
    /// When the bytes are not `count` commands and nothing more.
    pub fn decode(&self, newest: CommandVersion) -> Result<Vec<Command>, CodecError> {
        let mut rest = &self.encoded[..];
        let mut commands = Vec::with_capacity(self.count().min(rest.len()));
        for _ in 0..self.count {
            let (command, _, used) = commands::decode_prefix(rest, newest)?;
            commands.push(command);
            rest = &rest[used..];
        }
        if rest.is_empty() { Ok(commands) } else { Err(CodecError::TrailingBytes(rest.len())) }
    }
}

impl fmt::Debug for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands in {} bytes", self.count, self.encoded.len())
    }
}
