//! The Raft member behind a [`Store`](crate::Store).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_api::Revision;
use quorate_mvcc::{Command, KeyRange, RangeRequest, RangeResponse, ReadError, Reply};
use tokio::sync::watch;

use super::network::client::{Lane, PeerClient};
use super::network::messages::{self, StatusFields, StatusResponse};
use super::node::Node;
use super::{proposals, reads};
use crate::error::StoreError;
use crate::handle::Engine;
use crate::membership::{Leadership, MemberRole, QuorumStatus};
use crate::watch::{Watch, WatchError};

const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// This member as an engine.
pub struct RaftEngine {
    node: Arc<Node>,
}

impl RaftEngine {
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        RaftEngine { node }
    }
}

#[async_trait]
impl Engine for RaftEngine {
    async fn propose(&self, command: Command) -> Result<Reply, StoreError> {
        proposals::propose(&self.node, &command).await
    }

    async fn read_barrier(&self) -> Result<(), StoreError> {
        reads::barrier(&self.node).await
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.node.instance()?.state.current().range(request).map_err(read_failed)
    }

    fn revision(&self) -> Revision {
        self.node.revision()
    }

    fn watch(&self, range: KeyRange, after: Revision) -> Result<Watch, WatchError> {
        self.node.watching.watch(range, after)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.node.leadership.subscribe()
    }

    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError> {
        let own = self.node.status()?;
        let asked = self.node.peers.iter().map(ask_status);
        let mut answers = futures::future::join_all(asked).await;
        answers.push(own);
        let (leader, term) = {
            let leadership = self.node.leadership.borrow();
            (leadership.leader.as_ref().map(|leader| leader.name.clone()), leadership.term)
        };
        let newest = answers.iter().map(|status| status.last_log_index).max().unwrap_or(0);
        let head = answers.iter().find(|status| status.role == MemberRole::Leader);
        let head = head.map_or(newest, |status| status.last_log_index);
        answers.sort_by(|a, b| a.member.name.cmp(&b.member.name));
        let members = answers
            .into_iter()
            .map(|status| {
                let lag = head.saturating_sub(status.applied_index);
                status.into_status(lag)
            })
            .collect();
        Ok(QuorumStatus { leader, term, members })
    }

    async fn state_hash(&self) -> Result<(Revision, u64), StoreError> {
        let state = self.node.instance()?.state.current();
        let hashing = tokio::task::spawn_blocking(move || state.hash_at(Revision::ZERO));
        hashing.await.map_err(|error| StoreError::Fatal(error.to_string()))?.map_err(read_failed)
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        self.node.shutdown.cancel();
        self.node.tasks.close();
        self.node.tasks.wait().await;
        Ok(())
    }
}

async fn ask_status(peer: &PeerClient) -> StatusFields {
    let answer = peer.call::<_, StatusResponse>(Lane::Control, messages::STATUS, &(), STATUS_TIMEOUT).await;
    match answer {
        Ok(answer) => answer.status,
        Err(error) => {
            tracing::debug!(%error, "no status");
            StatusFields {
                member: peer.peer.clone(),
                role: MemberRole::Unreachable,
                term: 0,
                last_log_index: 0,
                applied_index: 0,
                revision: Revision::ZERO,
                database_size_bytes: 0,
            }
        }
    }
}

fn read_failed(error: ReadError) -> StoreError {
    match error {
        ReadError::Refused(refused) => StoreError::Command(refused),
        ReadError::Backend(error) => StoreError::Fatal(error.to_string()),
    }
}
