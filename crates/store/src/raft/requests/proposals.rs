//! Proposes commands, on any member.
//!
//! The member that received a command sends it to the leader in a batch with the other commands in its queue. The
//! leader writes the commands in its own queue as one log entry, in the term that they were sent for or not at all. A
//! command that was certainly not proposed is retried until the deadline; one that may have been is never sent twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::impls::ProgressResponder;
use quorate_mvcc::{Command, CommandVersion, Reply};

use super::batching::{Limits, Slot, TermBatch};
use super::commands;
use crate::error::StoreError;
use crate::membership::{Leadership, MemberId};
use crate::platform::tokio;
use crate::platform::tokio::time::Instant;
use crate::raft::codec;
use crate::raft::network::client::Lane;
use crate::raft::network::messages::{self, ProposeRequest, ProposeResponse, Proposed};
use crate::raft::node::Node;
use crate::raft::types::{CommandBatch, LeaderId};
use crate::raft::upkeep::space;

/// Limits of the queue for this member's own log, and of the queue to the leader.
pub const LIMITS: Limits = Limits {
    queue: 32_768,
    queue_bytes: 64 << 20,
    batch_commands: 2048,
    batch_bytes: 1 << 20,
    in_flight: 3,
    // From this number on, commands are worth the cost of a round of their own; fewer wait for the next one.
    worth_commands: 64,
    patience: Duration::from_millis(20),
};

/// Maximum size of a command. A longer one would not fit into an entry that followers accept.
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

/// Commits an encoded command that needs command version `version`. Calls `left_open` with the term in which its
/// outcome became unknown.
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
        // A change of leadership ends the pause, also one that came since `borrow_and_update`.
        drop(tokio::time::timeout(pause, leadership.changed()).await);
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Commits a command if this member leads in `term`; no other leader commits it.
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

/// Hands a command to the leader of `term`; the leader of another term does not accept it.
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
pub async fn lead(node: Arc<Node>, TermBatch { term, commands }: TermBatch, slot: Slot) -> Vec<Proposed> {
    let count = commands.len();
    let all = |outcome: Proposed| vec![outcome; count];
    if node.space.is_full() && commands.iter().any(|command| !is_allowed_when_full(command)) {
        return lead_on_full_disk(node, TermBatch { term, commands }, slot).await;
    }
    let (leader, current) = node.leader_and_term();
    if current > term {
        // The term is over: Raft would refuse the batch.
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
    match slot.keep_for(response, lead_is_over(&node, term, node.id())).await {
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

/// Waits until another leader than `leader` of `term` is known, or a later term. A leader that is cut off may take long to
/// answer, and commands for the next leader must not wait for that. Members of older versions may elect two leaders in
/// one term, the greater one last.
async fn lead_is_over(node: &Node, term: u64, leader: MemberId) {
    let mut leadership = node.leadership.subscribe();
    let is_over = |known: &Leadership| {
        known.term > term || known.term == term && known.leader.as_ref().is_some_and(|known| known.id > leader)
    };
    drop(leadership.wait_for(is_over).await);
}

/// Refuses the commands of a batch that need disk space, and leads the others.
async fn lead_on_full_disk(node: Arc<Node>, TermBatch { term, commands }: TermBatch, slot: Slot) -> Vec<Proposed> {
    let refused =
        commands.iter().map(|command| (!is_allowed_when_full(command)).then_some(Proposed::NoSpace)).collect();
    let lead = async |commands| Box::pin(lead(node, TermBatch { term, commands }, slot)).await;
    run_accepted(commands, refused, lead).await
}

/// Runs the commands that are not refused. Returns the outcomes of all commands in their order.
async fn run_accepted(
    commands: Vec<Bytes>,
    refused: Vec<Option<Proposed>>,
    run: impl AsyncFnOnce(Vec<Bytes>) -> Vec<Proposed>,
) -> Vec<Proposed> {
    let accepted =
        commands.into_iter().zip(&refused).filter_map(|(command, refused)| refused.is_none().then_some(command));
    let accepted: Vec<Bytes> = accepted.collect();
    let done = if accepted.is_empty() { Vec::new() } else { run(accepted).await };
    let mut done = done.into_iter();
    let missing = || Proposed::Unknown { reason: "it was not answered".to_owned() };
    refused.into_iter().map(|refused| refused.unwrap_or_else(|| done.next().unwrap_or_else(missing))).collect()
}

fn is_allowed_when_full(command: &Bytes) -> bool {
    codec::decode::<Command>(command).is_ok_and(|command| space::is_allowed_when_full(&command))
}

/// Sends commands to the leader if their term is the current one, and waits until this member has applied them.
pub async fn forward(node: Arc<Node>, TermBatch { term, commands }: TermBatch, slot: Slot) -> Vec<Proposed> {
    let count = commands.len();
    let all = |outcome: Proposed| vec![outcome; count];
    let (leader, current) = node.leader_and_term();
    let peer = leader.filter(|_| current == term).and_then(|leader| Some((leader, node.peers.get(leader)?)));
    let Some((leader, peer)) = peer else { return all(Proposed::NotLeader { leader: None }) };
    let deadline = Instant::now() + node.settings.request_timeout;
    let request = ProposeRequest { term, commands };
    let timeout = node.settings.request_timeout;
    let answer = peer.call::<_, ProposeResponse>(Lane::Bulk, messages::PROPOSE, &request, timeout);
    match slot.keep_for(answer, lead_is_over(&node, term, leader)).await {
        Ok(answer) if answer.outcomes.len() == count => applied_here(&node, answer.outcomes, deadline).await,
        Ok(answer) => {
            all(Proposed::Unknown { reason: format!("{} outcomes of {count} commands", answer.outcomes.len()) })
        }
        Err(error) if error.is_certainly_without_effect() => all(Proposed::NotLeader { leader: None }),
        Err(error) => all(Proposed::Unknown { reason: error.to_string() }),
    }
}

/// Waits until this member has applied the commands that the leader has applied, so that a caller can read its own
/// write here. All commands of a batch wait for the last one, since they are in the same entry or in the next one.
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

/// Leads commands that another member forwards. Commands that not all members can decode are refused.
pub async fn receive_forwarded(node: &Node, ProposeRequest { term, commands }: ProposeRequest) -> ProposeResponse {
    let count = commands.len();
    let Ok(refused) = commands::check_forwarded(node, &commands) else {
        return ProposeResponse { outcomes: vec![Proposed::NotLeader { leader: None }; count] };
    };
    if refused.iter().all(Option::is_none) {
        return ProposeResponse { outcomes: lead_together(node, term, commands).await };
    }
    tracing::warn!(reason = refused.iter().flatten().next(), "refused commands that another member forwarded");
    let refused = refused.into_iter().map(|reason| reason.map(|reason| Proposed::Unsupported { reason })).collect();
    let outcomes = run_accepted(commands, refused, async |commands| lead_together(node, term, commands).await).await;
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
