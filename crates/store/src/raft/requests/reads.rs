//! Linearizable reads on any member: ask the leader for its read index, then wait until this member has applied it.
//!
//! The leader answers only when a quorum has confirmed that it still leads (Raft dissertation, section 6.4; see
//! [`confirmation`](super::confirmation)). The request carries the confirmation of the member that sends it. In a
//! quorum of three that is enough, so a read costs one message to the leader and one back. Reads share rounds: on the
//! member that reads, and on the leader when it has to ask other members.

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver;

use super::confirmation::{self, Confirmed};
use super::rounds::NoRound;
use crate::error::StoreError;
use crate::membership::MemberId;
use crate::platform::tokio;
use crate::platform::tokio::time::Instant;
use crate::raft::network::client::Lane;
use crate::raft::network::messages::{self, ReadIndexRequest, ReadIndexResponse};
use crate::raft::node::Node;
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};
use crate::raft::state::StateStore;
use crate::raft::types::Vote;

pub const QUEUE: usize = 65_536;
const RETRY: Duration = Duration::from_millis(20);
/// How long to wait for an answer before the leader, or a new one, is asked again.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The index that a read must wait for, or why there is none.
pub type Barrier = Result<u64, StoreError>;

/// Waits until this member has applied everything acknowledged before the call; returns the state that has it. A state
/// that is opened later from disk may be behind it.
pub async fn barrier(node: &Node) -> Result<Arc<StateStore>, StoreError> {
    let deadline = Instant::now() + node.settings.request_timeout;
    let index = match tokio::time::timeout_at(deadline, node.queues.barrier.next()).await {
        Ok(Ok(index)) => index?,
        Ok(Err(NoRound::TooMany)) => return Err(StoreError::Overloaded),
        Ok(Err(NoRound::Ended)) => return Err(StoreError::ShuttingDown),
        Err(_) => return Err(StoreError::NoLeader("no leader confirmed a read in time".to_owned())),
    };
    // A weak reference, so that a waiting read does not keep a state open that must be closed.
    let (state, mut position) = {
        let instance = node.instance()?;
        (Arc::downgrade(&instance.state), instance.state.position())
    };
    let applied = position.wait_for(|position| position.next_index() > index);
    let restarts = || StoreError::NoLeader("this member restarts its state".to_owned());
    match tokio::time::timeout_at(deadline, applied).await {
        Ok(Ok(_)) => state.upgrade().ok_or_else(restarts),
        Ok(Err(_)) => Err(restarts()),
        Err(_) => Err(StoreError::NoLeader(format!("this member has not applied up to {index} in time"))),
    }
}

/// Runs one round: finds the leader and its read index.
pub async fn barrier_round(node: Arc<Node>) -> Barrier {
    let deadline = Instant::now() + node.settings.request_timeout;
    let mut problem = "none is known".to_owned();
    loop {
        match ask(&node).await {
            Some(Ok(ReadIndexResponse::At(index))) => return Ok(index),
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
    let request = ReadIndexRequest { member: node.id(), vote: node.instance().ok()?.log.vote() };
    let peer = node.peers.get(leader)?;
    let call = peer.call(Lane::Control, messages::READ_INDEX, &request, ASK_TIMEOUT);
    Some(call.await.map_err(|error| error.to_string()))
}

/// Returns the read index of this member, if it leads, for the member `asking`, whose request carried `vote`.
///
/// # Errors
/// When there is no round that could confirm this leader.
pub async fn read_index_for(node: &Node, asking: MemberId, vote: Option<Vote>) -> Result<ReadIndexResponse, NoRound> {
    match read_index(node, |confirmed| confirmed.add(asking, vote)) {
        Ok(index) => Ok(index),
        Err(Some(_)) => node.queues.read_index.next().await,
        Err(None) => Ok(not_leader(node)),
    }
}

/// Runs one round: returns the read index of this member, if it leads and a quorum confirms it.
pub async fn read_index_round(node: Arc<Node>) -> ReadIndexResponse {
    let needed = match read_index(&node, |_| {}) {
        Ok(index) => return index,
        Err(needed) => needed,
    };
    let Some(Unconfirmed { index, mut confirmed }) = needed else { return not_leader(&node) };
    match tokio::time::timeout(ASK_TIMEOUT, confirmation::ask(&node, &mut confirmed)).await {
        Ok(true) => ReadIndexResponse::At(index),
        Ok(false) | Err(_) => ReadIndexResponse::NoQuorum,
    }
}

/// An index that becomes the read index once enough members have confirmed the leader.
struct Unconfirmed {
    index: u64,
    confirmed: Confirmed,
}

/// Returns the read index if the confirmations so far are enough; `Err(None)` when this member does not lead.
fn read_index(node: &Node, confirm: impl FnOnce(&mut Confirmed)) -> Result<ReadIndexResponse, Option<Unconfirmed>> {
    let instance = node.instance().map_err(|_| None)?;
    let (leads, term) = {
        let leadership = node.leadership.borrow();
        (leadership.is_active_leader, leadership.term)
    };
    // A leader that has applied an entry of its own term has applied all that earlier leaders acknowledged. An entry
    // that it committed since is acknowledged or shown on the leader only after it has applied the entry, and on other
    // members only after it has sent them the commit index.
    let applied = instance.state.position().borrow().log_id.map(|id| id.index);
    let (true, Some(applied)) = (leads, applied) else { return Err(None) };
    let index = node.announced.at_least(applied);
    #[cfg(test)]
    let index = if planted::is(Bug::ReadsWhatIsApplied) { applied } else { index };
    #[cfg(test)]
    if planted::is(Bug::ReadsStale) {
        return Ok(ReadIndexResponse::At(index));
    }
    let membership = instance.raft.server_metrics().borrow_watched().membership_config.clone();
    let mut confirmed = Confirmed::new(term, node.id(), membership);
    // Read after the position: the vote must show that this member still led when the position was read.
    confirmed.add(node.id(), instance.log.vote());
    if !confirmed.has(node.id()) {
        return Err(None);
    }
    confirm(&mut confirmed);
    if confirmed.is_enough() { Ok(ReadIndexResponse::At(index)) } else { Err(Some(Unconfirmed { index, confirmed })) }
}

fn not_leader(node: &Node) -> ReadIndexResponse {
    ReadIndexResponse::NotLeader { leader: node.leader().filter(|leader| *leader != node.id()) }
}
