//! From a proposed command to its reply, on any member.
//!
//! The member that took the command looks for the leader and hands the command to it, together with whatever else
//! waits; the leader writes what waits there as one entry, in the term for which it was handed over or not at all. What has
//! certainly not been proposed is tried again until the deadline; what may have been is never sent twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::impls::ProgressResponder;
use quorate_mvcc::{Command, CommandVersion, Reply};

use super::batching::{Batch, Limits, Slot};
use super::network::client::Lane;
use super::network::messages::{self, ProposeRequest, ProposeResponse, Proposed};
use super::node::Node;
use super::types::{CommandBatch, LeaderId};
use super::{codec, commands, space};
use crate::error::StoreError;
use crate::membership::MemberId;
use crate::platform::tokio;
use crate::platform::tokio::time::Instant;

/// Limits of the commands that this member leads, and of those that it forwards.
pub const LIMITS: Limits = Limits {
    queue: 32_768,
    queue_bytes: 64 << 20,
    batch_commands: 2048,
    batch_bytes: 1 << 20,
    in_flight: 3,
    // What a round costs is worth it for so many; fewer go with the next one.
    worth_commands: 64,
    patience: Duration::from_millis(20),
};

/// A command longer than this would not fit into an entry that followers take.
const MAX_COMMAND_BYTES: usize = 16 << 20;
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(50);

/// Commits a command and answers after this member has applied it.
pub async fn propose(node: &Node, command: &Command) -> Result<Reply, StoreError> {
    if matches!(command, Command::RaiseVersion { .. }) {
        return Err(StoreError::Unsupported("the version of commands is raised by the leader alone".to_owned()));
    }
    propose_encoded(node, encode(command)?, command.version(), |term| node.traces.left_open(command, term)).await
}

/// Commits an encoded command that needs a version; `left_open` hears of the term in which its outcome became unknown.
pub async fn propose_encoded(
    node: &Node,
    encoded: Bytes,
    version: CommandVersion,
    left_open: impl Fn(u64),
) -> Result<Reply, StoreError> {
    commands::check_own(node, version)?;
    let deadline = Instant::now() + node.settings.request_timeout;
    let mut pause = RETRY_MIN;
    let mut problem = "none is known".to_owned();
    let mut leadership = node.leadership.subscribe();
    loop {
        if node.shutdown.is_cancelled() {
            return Err(StoreError::ShuttingDown);
        }
        node.check_in_service()?;
        let (leader, term) = leadership.borrow_and_update().leader_and_term();
        if let Some(leader) = leader {
            match hand_over(node, leader, term, encoded.clone(), deadline).await? {
                Proposed::Applied { reply, .. } => return Ok(reply),
                Proposed::NotLeader { leader: Some(other) } if other != leader => {
                    problem = format!("member {leader} says that {other} leads");
                }
                Proposed::NotLeader { .. } => {
                    problem = format!("member {leader} does not lead in term {term}, or cannot be reached");
                }
                Proposed::Overloaded => return Err(StoreError::Overloaded),
                Proposed::NoSpace => return Err(no_space(node, leader)),
                Proposed::Unsupported { reason } => return Err(StoreError::Unsupported(reason)),
                Proposed::Unknown { reason } => {
                    left_open(term);
                    return Err(StoreError::OutcomeUnknown(reason));
                }
            }
        }
        if Instant::now() + pause > deadline {
            return Err(StoreError::NoLeader(problem));
        }
        // News of a leader end the pause, also those that came since it was asked for.
        drop(tokio::time::timeout(pause, leadership.changed()).await);
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Commits a command if this member leads in `term`; otherwise nobody does.
pub async fn propose_as_leader(node: &Node, term: u64, command: &Command) -> Result<Reply, StoreError> {
    let command = encode(command)?;
    let deadline = Instant::now() + node.settings.request_timeout;
    match hand_over(node, node.id(), term, command, deadline).await? {
        Proposed::Applied { reply, .. } => Ok(reply),
        Proposed::NotLeader { .. } => Err(StoreError::NoLeader("this member does not lead any more".to_owned())),
        Proposed::Overloaded => Err(StoreError::Overloaded),
        Proposed::NoSpace => Err(no_space(node, node.id())),
        Proposed::Unsupported { reason } => Err(StoreError::Unsupported(reason)),
        Proposed::Unknown { reason } => Err(StoreError::OutcomeUnknown(reason)),
    }
}

fn encode(command: &Command) -> Result<Bytes, StoreError> {
    let command = codec::encode(command).map_err(|error| StoreError::Fatal(error.to_string()))?;
    if command.len() > MAX_COMMAND_BYTES {
        return Err(StoreError::TooLarge { size_bytes: command.len(), max_bytes: MAX_COMMAND_BYTES });
    }
    Ok(command)
}

fn no_space(node: &Node, leader: MemberId) -> StoreError {
    StoreError::NoSpace(node.member(leader).map_or_else(|| leader.to_string(), |member| member.name))
}

/// Hands a command to the leader of a term; no other takes it.
async fn hand_over(
    node: &Node,
    leader: MemberId,
    term: u64,
    command: Bytes,
    deadline: Instant,
) -> Result<Proposed, StoreError> {
    let queue = if leader == node.id() { &node.queues.lead } else { &node.queues.forward };
    let Some(outcome) = queue.submit(term, command) else {
        return Err(if node.shutdown.is_cancelled() { StoreError::ShuttingDown } else { StoreError::Overloaded });
    };
    let unknown = |reason: &str| Ok(Proposed::Unknown { reason: reason.to_owned() });
    match tokio::time::timeout_at(deadline, outcome).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_)) => unknown("this member is shutting down"),
        Err(_) => unknown("it was not committed in time"),
    }
}

/// Waits until this member has applied the entry at `index`.
async fn wait_applied(node: &Node, index: u64, deadline: Instant) -> Result<(), &'static str> {
    let mut position = node.instance().map_err(|_| "this member restarts")?.state.position();
    let applied = position.wait_for(|position| position.next_index() > index);
    match tokio::time::timeout_at(deadline, applied).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("this member restarts"),
        Err(_) => Err("this member has not applied it in time"),
    }
}

/// Writes commands as one entry of this member's log, if it leads in their term.
pub async fn lead(node: Arc<Node>, Batch { term, commands }: Batch, slot: Slot) -> Vec<Proposed> {
    let count = commands.len();
    let all = |outcome: Proposed| vec![outcome; count];
    if node.space.is_full() && commands.iter().any(|command| !is_taken_when_full(command)) {
        return lead_what_is_taken_when_full(node, Batch { term, commands }, slot).await;
    }
    let (leader, current) = node.leader_and_term();
    if current > term {
        // This much is known without asking.
        return all(Proposed::NotLeader { leader });
    }
    let Ok(instance) = node.instance() else { return all(Proposed::NotLeader { leader: None }) };
    let (responder, response) = ProgressResponder::complete_only();
    let batch = CommandBatch::concat(commands.iter());
    drop(commands);
    let leader = LeaderId { term, node_id: node.id() };
    if instance.raft.write(batch).with_leader(leader).responder(responder).await.is_err() {
        return all(Proposed::NotLeader { leader: None });
    }
    drop(instance);
    match slot.keep_for(response, over(&node, term)).await {
        Ok(Ok(written)) if written.data.len() == count => {
            let index = written.log_id.index;
            written.data.into_iter().map(|reply| Proposed::Applied { index, reply }).collect()
        }
        Ok(Ok(written)) => {
            all(Proposed::Unknown { reason: format!("{} replies to {count} commands", written.data.len()) })
        }
        Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
            if forward.reason == ForwardReason::LeaseExpired {
                tracing::debug!("a batch was refused without a leader lease");
            }
            all(Proposed::NotLeader { leader: forward.leader_id })
        }
        Ok(Err(error)) => all(Proposed::Unknown { reason: error.to_string() }),
        Err(_) => all(Proposed::Unknown { reason: "this member's raft has stopped".to_owned() }),
    }
}

/// Returns when a term is over. The answer of a leader that nobody hears may be long in coming, and who leads next shall not
/// wait for it.
async fn over(node: &Node, term: u64) {
    let mut leadership = node.leadership.subscribe();
    drop(leadership.wait_for(|known| known.term > term).await);
}

/// Refuses the commands of a batch that need space.
async fn lead_what_is_taken_when_full(node: Arc<Node>, Batch { term, commands }: Batch, slot: Slot) -> Vec<Proposed> {
    let refused = commands.iter().map(|command| (!is_taken_when_full(command)).then_some(Proposed::NoSpace)).collect();
    let lead = async |commands| Box::pin(lead(node, Batch { term, commands }, slot)).await;
    some_of(commands, refused, lead).await
}

/// What becomes of commands some of which are refused, and the others are done.
async fn some_of(
    commands: Vec<Bytes>,
    refused: Vec<Option<Proposed>>,
    run: impl AsyncFnOnce(Vec<Bytes>) -> Vec<Proposed>,
) -> Vec<Proposed> {
    let taken =
        commands.into_iter().zip(&refused).filter_map(|(command, refused)| refused.is_none().then_some(command));
    let taken: Vec<Bytes> = taken.collect();
    let done = if taken.is_empty() { Vec::new() } else { run(taken).await };
    let mut done = done.into_iter();
    let missing = || Proposed::Unknown { reason: "it was not answered".to_owned() };
    refused.into_iter().map(|refused| refused.unwrap_or_else(|| done.next().unwrap_or_else(missing))).collect()
}

fn is_taken_when_full(command: &Bytes) -> bool {
    codec::decode::<Command>(command).is_ok_and(|command| space::is_taken_when_full(&command))
}

/// Sends commands to the leader, if that is still the one of their term, and waits until this member has applied them.
pub async fn forward(node: Arc<Node>, Batch { term, commands }: Batch, slot: Slot) -> Vec<Proposed> {
    let count = commands.len();
    let all = |outcome: Proposed| vec![outcome; count];
    let (leader, current) = node.leader_and_term();
    let peer = leader.filter(|_| current == term).and_then(|leader| node.peers.get(leader));
    let Some(peer) = peer else { return all(Proposed::NotLeader { leader: None }) };
    let deadline = Instant::now() + node.settings.request_timeout;
    let request = ProposeRequest { term, commands };
    let timeout = node.settings.request_timeout;
    let answer = peer.call::<_, ProposeResponse>(Lane::Bulk, messages::PROPOSE, &request, timeout);
    match slot.keep_for(answer, over(&node, term)).await {
        Ok(answer) if answer.outcomes.len() == count => applied_here(&node, answer.outcomes, deadline).await,
        Ok(answer) => {
            all(Proposed::Unknown { reason: format!("{} outcomes of {count} commands", answer.outcomes.len()) })
        }
        Err(error) if error.is_certainly_without_effect() => all(Proposed::NotLeader { leader: None }),
        Err(error) => all(Proposed::Unknown { reason: error.to_string() }),
    }
}

/// What the leader has applied, as this member may tell it: when it has applied it too. All of a batch wait for the
/// last of them, since they come in the same entry or the one after it.
async fn applied_here(node: &Node, mut outcomes: Vec<Proposed>, deadline: Instant) -> Vec<Proposed> {
    let index = |outcome: &Proposed| match outcome {
        Proposed::Applied { index, .. } => Some(*index),
        _ => None,
    };
    let Some(last) = outcomes.iter().filter_map(index).max() else { return outcomes };
    if let Err(reason) = wait_applied(node, last, deadline).await {
        for outcome in outcomes.iter_mut().filter(|outcome| index(outcome).is_some()) {
            *outcome = Proposed::Unknown { reason: format!("committed, but {reason}") };
        }
    }
    outcomes
}

/// Takes commands that another member forwards, if all members can decode them.
pub async fn take_forwarded(node: &Node, ProposeRequest { term, commands }: ProposeRequest) -> ProposeResponse {
    let count = commands.len();
    let Ok(refused) = commands::check_forwarded(node, &commands) else {
        return ProposeResponse { outcomes: vec![Proposed::NotLeader { leader: None }; count] };
    };
    if refused.iter().all(Option::is_none) {
        return ProposeResponse { outcomes: lead_together(node, term, commands).await };
    }
    tracing::warn!(reason = refused.iter().flatten().next(), "commands of another member are refused");
    let refused = refused.into_iter().map(|reason| reason.map(|reason| Proposed::Unsupported { reason })).collect();
    let outcomes = some_of(commands, refused, async |commands| lead_together(node, term, commands).await).await;
    ProposeResponse { outcomes }
}

async fn lead_together(node: &Node, term: u64, commands: Vec<Bytes>) -> Vec<Proposed> {
    let count = commands.len();
    let Some(outcomes) = node.queues.lead.submit_many(term, commands) else { return vec![Proposed::Overloaded; count] };
    outcomes.await.unwrap_or_else(|_| {
        let reason = format!("{} is shutting down", node.settings.member.name);
        vec![Proposed::Unknown { reason }; count]
    })
}
