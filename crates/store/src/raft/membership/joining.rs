//! Joining of a running quorum: a new member presents a token and gets an id that no member had before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use openraft::ChangeMembers;
use quorate_mvcc::CommandVersion;
use tokio_util::sync::CancellationToken;

use super::{changing, invitations};
use crate::changes::Token;
use crate::error::StoreError;
use crate::membership::Member;
use crate::platform::tokio::time::Instant;
use crate::platform::{TaskTracker, tokio};
use crate::raft::config::PeerTls;
use crate::raft::lifecycle::identity::{self, Origin, Owner};
use crate::raft::network::client::{CallError, PeerSender, Peers};
use crate::raft::network::messages::{JoinRequest, JoinResponse};
use crate::raft::network::tls::PeerTlsContext;
use crate::raft::node::Node;
use crate::raft::requests::{commands, reads};

const ASK_TIMEOUT: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How long to try to join. A quorum that admits no member for so long has no leader, or cannot be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// Configuration of a member that joins.
#[derive(Debug)]
pub struct JoinConfig {
    pub token: Token,
    /// Name of the member, for an invitation that has none.
    pub name: String,
    /// Port of its REST API, for an invitation that names no address.
    pub api_port: u16,
    /// Scheme and port of its etcd API, likewise.
    pub etcd: Option<(&'static str, u16)>,
    pub data_dir: PathBuf,
    pub tls: PeerTls,
    pub peer_via: BTreeMap<String, String>,
}

/// Joins the quorum and returns the new member. If `data_dir` belongs to a member already, returns that member.
///
/// # Errors
/// `JoinRefused` when the quorum refuses the token; others when no member answers, or the directory cannot be used.
pub async fn join(config: JoinConfig) -> Result<Member, StoreError> {
    let incarnation = match identity::read(&config.data_dir)? {
        Some(owner) if owner.origin != Origin::Joining => return Ok(owner.member),
        // An earlier attempt with this incarnation may have been accepted.
        Some(owner) => owner.member.incarnation,
        None => {
            let incarnation = identity::random_number();
            let member = Member { name: config.name.clone(), incarnation, ..Member::default() };
            let owner = Owner { cluster: config.token.cluster, member, origin: Origin::Joining };
            identity::write(&config.data_dir, &owner)?;
            incarnation
        }
    };
    let request = JoinRequest {
        secret: config.token.secret.clone(),
        incarnation,
        name: config.name.clone(),
        api_port: config.api_port,
        etcd: config.etcd.map(|(scheme, port)| (scheme.to_owned(), port)),
        is_forwarded: false,
        commands: CommandVersion::NEWEST,
    };
    let member = ask(&config, &request).await?;
    let owner = Owner { cluster: config.token.cluster, member: member.clone(), origin: Origin::Joined };
    identity::write(&config.data_dir, &owner)?;
    Ok(member)
}

async fn ask(config: &JoinConfig, request: &JoinRequest) -> Result<Member, StoreError> {
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let _end = shutdown.clone().drop_guard();
    let sender = PeerSender { cluster: config.token.cluster, ..PeerSender::default() };
    let tls = PeerTlsContext::load(&config.tls)?;
    let peers = Peers::new(sender, config.peer_via.clone(), tls, tasks, shutdown.clone());
    let mut asked = Vec::new();
    for address in &config.token.peers {
        let member = Member { name: address.clone(), peer: address.clone(), ..Member::default() };
        asked.push(peers.connect(&member, &shutdown)?);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut problem = String::new();
    while Instant::now() < deadline {
        for peer in &asked {
            match peer.join(request, ASK_TIMEOUT).await {
                Ok(JoinResponse::Joined(member)) => return Ok(member),
                Ok(JoinResponse::Refused(reason)) => {
                    return Err(StoreError::JoinRefused { name: request.name.clone(), reason });
                }
                Ok(JoinResponse::NotNow(reason)) => problem = reason,
                Err(error) => problem = describe(&error),
            }
            tracing::info!(problem, "not joined yet");
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Err(StoreError::NoLeader(format!("{} could not join: {problem}", request.name)))
}

/// Describes why a member did not answer a request to join. Only a member of another version cannot decode it.
fn describe(error: &CallError) -> String {
    match error {
        CallError::Refused { peer, reason } if reason.starts_with("400") => format!(
            "{peer} runs another version of Quorate, which does not understand this request to join ({reason}); upgrade it \
             first, or join with its version"
        ),
        error => error.to_string(),
    }
}

/// Answers a request to join. A member that does not lead forwards the request to its leader.
pub async fn admit(node: &Node, request: JoinRequest) -> JoinResponse {
    let Some(leader) = node.leader() else { return JoinResponse::NotNow("there is no leader".to_owned()) };
    if leader != node.id() {
        if request.is_forwarded {
            return JoinResponse::NotNow("another member leads by now".to_owned());
        }
        let request = JoinRequest { is_forwarded: true, ..request };
        let Some(peer) = node.peers.get(leader) else {
            return JoinResponse::NotNow("the leader is unknown".to_owned());
        };
        let answer = peer.join(&request, ASK_TIMEOUT).await;
        return answer.unwrap_or_else(|error| JoinResponse::NotNow(describe(&error)));
    }
    match admit_as_leader(node, &request).await {
        Ok(answer) => answer,
        Err(error) => JoinResponse::NotNow(error.to_string()),
    }
}

async fn admit_as_leader(node: &Node, request: &JoinRequest) -> Result<JoinResponse, StoreError> {
    let _alone = node.changing.lock().await;
    let term = node.leadership.borrow().term;
    // A leader that was just elected, or that leads no more, may lack a version that was agreed on before.
    let state = reads::barrier(node).await?;
    let roster = node.roster();
    if let Some(member) = roster.members.values().find(|member| member.incarnation == request.incarnation) {
        // The member was added before and the answer was lost. An uncommitted membership may still be lost.
        return Ok(if roster.committed.contains(&member.id) {
            JoinResponse::Joined(member.clone())
        } else {
            JoinResponse::NotNow("the quorum has not committed the new member yet".to_owned())
        });
    }
    let checked = commands::check_joiner(node, &state, &request.name, request.commands);
    drop(state);
    if let Err(reason) = checked {
        return Ok(JoinResponse::Refused(reason));
    }
    let member = match invitations::present(node, &request.secret, request.incarnation).await? {
        Ok(member) => complete(member, request),
        Err(reason) => return Ok(JoinResponse::Refused(reason)),
    };
    if let Err(reason) = changing::check_new(&roster, &member) {
        return Ok(JoinResponse::Refused(reason.to_string()));
    }
    // Another leader may have raised the version since the check. The same invitation admits the member later.
    if node.leadership.borrow().term != term {
        return Ok(JoinResponse::NotNow("the leader has changed".to_owned()));
    }
    changing::write(node, ChangeMembers::AddNodes([(member.id, member.clone())].into())).await?;
    tracing::info!(name = member.name, id = member.id, "a new member has joined as a learner");
    // If this fails, the lease of the invitation removes it later.
    if let Err(error) = invitations::withdraw_of(node, member.id).await {
        tracing::info!(%error, "a used invitation was not removed");
    }
    Ok(JoinResponse::Joined(member))
}

/// Fills the fields that the invitation left empty with those of the request.
fn complete(invited: Member, request: &JoinRequest) -> Member {
    let mut member = Member { incarnation: request.incarnation, ..invited };
    let host = member.peer.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
    if member.name.is_empty() {
        member.name.clone_from(&request.name);
    }
    if member.api.is_empty() {
        member.api = format!("https://{host}:{}", request.api_port);
    }
    if let Some((scheme, port)) = request.etcd.as_ref().filter(|_| member.etcd.is_empty()) {
        member.etcd = format!("{scheme}://{host}:{port}");
    }
    member
}
