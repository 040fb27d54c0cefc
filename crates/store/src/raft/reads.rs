//! Linearizable reads on any member: ask the leader how far one must have applied, then wait until one has.
//!
//! The leader answers only after a quorum has confirmed that it still leads (Raft dissertation, section 6.4). Rounds
//! are shared, on the member that reads and again on the leader.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::time::Instant;

use super::batching::NoRound;
use super::network::client::Lane;
use super::network::messages::{self, ReadIndexResponse};
use super::node::Node;
use crate::error::StoreError;

pub const QUEUE: usize = 65_536;
const RETRY: Duration = Duration::from_millis(20);
/// A leader that has not answered by then is asked again, or another one is.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The index that must have been applied, or why there is none.
pub type Barrier = Result<u64, StoreError>;

/// Waits until this member has applied everything acknowledged before the call.
pub async fn barrier(node: &Node) -> Result<(), StoreError> {
    let deadline = Instant::now() + node.settings.request_timeout;
    let index = match tokio::time::timeout_at(deadline, node.queues.barrier.next()).await {
        Ok(Ok(index)) => index?,
        Ok(Err(NoRound::TooMany)) => return Err(StoreError::Overloaded),
        Ok(Err(NoRound::Ended)) => return Err(StoreError::ShuttingDown),
        Err(_) => return Err(StoreError::NoLeader("no leader confirmed a read in time".to_owned())),
    };
    let mut position = node.instance()?.state.position();
    let applied = position.wait_for(|position| position.next_index() > index);
    match tokio::time::timeout_at(deadline, applied).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(StoreError::NoLeader("this member restarts its state".to_owned())),
        Err(_) => Err(StoreError::NoLeader(format!("this member has not applied up to {index} in time"))),
    }
}

/// One round: finds the leader and its read index.
pub async fn barrier_round(node: Arc<Node>) -> Barrier {
    let deadline = Instant::now() + node.settings.request_timeout;
    let mut problem = "none is known".to_owned();
    loop {
        match ask(&node).await {
            Some(Ok(ReadIndexResponse::At(log_id))) => return Ok(log_id.index),
            Some(Ok(ReadIndexResponse::NotLeader { .. })) => problem = "it does not lead any more".to_owned(),
            Some(Ok(ReadIndexResponse::NoQuorum)) => problem = "a quorum does not confirm it".to_owned(),
            Some(Err(reason)) => problem = reason,
            None => {}
        }
        if node.shutdown.is_cancelled() {
            return Err(StoreError::ShuttingDown);
        }
        node.check_in_service()?;
        if Instant::now() + RETRY > deadline {
            return Err(StoreError::NoLeader(problem));
        }
        let mut leadership = node.leadership.subscribe();
        drop(tokio::time::timeout(RETRY, leadership.changed()).await);
    }
}

async fn ask(node: &Node) -> Option<Result<ReadIndexResponse, String>> {
    let leader = node.leader()?;
    if leader == node.id() {
        return Some(node.queues.read_index.next().await.map_err(|_| "this member is shutting down".to_owned()));
    }
    let call = node.peers.get(leader)?.call(Lane::Control, messages::READ_INDEX, &(), ASK_TIMEOUT);
    Some(call.await.map_err(|error| error.to_string()))
}

/// The read index of this member, if it leads.
pub async fn read_index_round(node: Arc<Node>) -> ReadIndexResponse {
    let Ok(instance) = node.instance() else { return ReadIndexResponse::NotLeader { leader: None } };
    match instance.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => ReadIndexResponse::At(*linearizer.read_log_id().log_id()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            ReadIndexResponse::NotLeader { leader: forward.leader_id }
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => ReadIndexResponse::NoQuorum,
        Err(RaftError::Fatal(_)) => ReadIndexResponse::NotLeader { leader: None },
    }
}
