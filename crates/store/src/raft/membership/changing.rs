//! Changes of the membership: the requested ones, and the changes of voters that follow from them.
//!
//! A request is stored in the membership itself, as the member's [`Intent`]. The current leader then changes the voters
//! step by step until they match the intents; see [`balance`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use super::invitations::Invitation;
use super::roster::Roster;
use super::{balance, invitations};
use crate::changes::{Addresses, Change, ChangeError, Changed, Invite, MemberName, Token};
use crate::error::StoreError;
use crate::membership::{Intent, Member, MemberId};
use crate::platform::tokio::time::Instant;
use crate::platform::{self, tokio};
use crate::raft::elections::leadership;
use crate::raft::lifecycle::identity;
use crate::raft::network::client::{CallError, Lane};
use crate::raft::network::messages::{self, ChangeResponse};
use crate::raft::node::Node;
use crate::raft::types::{Metrics, TypeConfig};

const DEADLINE: Duration = Duration::from_secs(15);
/// Shorter than `DEADLINE`, so that the leader answers before the member that asked it gives up.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(20);
/// How long to wait for a change that needs nothing but the quorum's own progress.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Maximum number of log entries that a member may lack and still count as caught up.
const READY_LAG: u64 = 512;

type Members = ChangeMembers<MemberId, Member>;

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        ChangeError::Unavailable(error.to_string())
    }
}

/// Asks the leader to make a change, and waits up to `SETTLE_WITHIN` until it is complete.
pub async fn change(node: &Node, change: Change) -> Result<Changed, ChangeError> {
    let deadline = Instant::now() + DEADLINE;
    let mut problem = "there is no leader".to_owned();
    loop {
        if let Some(leader) = node.leader() {
            match ask(node, leader, &change).await {
                Ok(ChangeResponse::Refused(refusal)) => return Err(refusal),
                Ok(ChangeResponse::Accepted { changed, version }) => {
                    return Ok(follow(node, &change, changed, version).await);
                }
                Ok(ChangeResponse::NotLeader { .. }) => problem = format!("member {leader} does not lead, or not yet"),
                Err(error) if error.is_certainly_without_effect() => problem = error.to_string(),
                Err(error) => return Err(ChangeError::Unavailable(error.to_string())),
            }
        }
        if node.shutdown.is_cancelled() || Instant::now() > deadline {
            return Err(ChangeError::Unavailable(problem));
        }
        let mut leadership = node.leadership.subscribe();
        drop(tokio::time::timeout(RETRY, leadership.changed()).await);
    }
}

async fn ask(node: &Node, leader: MemberId, change: &Change) -> Result<ChangeResponse, CallError> {
    if leader == node.id() {
        return Ok(receive_forwarded(node, change.clone()).await);
    }
    match node.peers.get(leader) {
        Some(peer) => peer.call(Lane::Control, messages::CHANGE, change, DEADLINE).await,
        None => Ok(ChangeResponse::NotLeader { leader: None }),
    }
}

/// Makes a change if this member leads.
pub async fn receive_forwarded(node: &Node, change: Change) -> ChangeResponse {
    if !node.leadership.borrow().is_active_leader {
        return ChangeResponse::NotLeader { leader: node.leader() };
    }
    let changed = match change {
        Change::Invite(invite) => self::invite(node, invite).await,
        Change::Remove { member } => remove(node, &member).await,
        Change::Promote { member } => promote(node, &member).await,
        Change::Update { member, addresses } => update(node, &member, addresses).await,
        Change::Transfer { to } => transfer(node, to.as_ref()).await,
    };
    match changed {
        Ok(changed) => ChangeResponse::Accepted { changed, version: node.roster().version },
        Err(refusal) => ChangeResponse::Refused(refusal),
    }
}

/// Waits for a change that the leader has accepted, and returns it with the condition that it still waits for. This
/// member watches its own copy of the membership, since the leader may be the member that is removed.
async fn follow(node: &Node, change: &Change, changed: Changed, version: u64) -> Changed {
    let id = changed.member.id;
    let waits = match change {
        Change::Remove { .. } => settled(node, id, version, |roster| !roster.members.contains_key(&id)).await,
        Change::Promote { .. } => settled(node, id, version, |roster| roster.voters.contains(&id)).await,
        Change::Update { .. } => settled(node, id, version, |_| true).await,
        Change::Invite(_) | Change::Transfer { .. } => return changed,
    };
    Changed { waits, ..changed }
}

fn find(roster: &Roster, name: &MemberName) -> Option<Member> {
    let members = || roster.members.values();
    let found = match name {
        MemberName::Id(id) => roster.members.get(id),
        // A member that is being removed may share its name with its replacement; the replacement wins.
        MemberName::Text(text) => members()
            .filter(|member| member.name == *text)
            .min_by_key(|member| roster.is_to_go(member))
            .or_else(|| members().find(|member| is_id(text, member.id))),
    };
    found.cloned()
}

fn known(roster: &Roster, name: &MemberName) -> Result<Member, ChangeError> {
    find(roster, name).ok_or_else(|| ChangeError::NotFound(name.to_string()))
}

/// Returns the change that replaces a member's record with this one.
fn set(member: &Member) -> Members {
    ChangeMembers::SetNodes([(member.id, member.clone())].into())
}

fn is_id(text: &str, id: MemberId) -> bool {
    text == id.to_string() || text.trim_start_matches("0x") == format!("{id:x}")
}

/// Checks that a new member's name and peer address are not those of a member that stays.
///
/// # Errors
/// `Exists` or `PeerInUse`.
pub fn check_new(roster: &Roster, new: &Member) -> Result<(), ChangeError> {
    let stays = |member: &&Member| !roster.is_to_go(member) && new.replaces != Some(member.id);
    for member in roster.members.values().filter(stays) {
        if !new.name.is_empty() && member.name == new.name {
            return Err(ChangeError::Exists(format!("there is a member {} already", new.name)));
        }
        if member.peer == new.peer {
            return Err(ChangeError::PeerInUse(format!("{} has the peer address {} already", member.name, new.peer)));
        }
    }
    Ok(())
}

fn check_peer(peer: &str) -> Result<(), ChangeError> {
    let port = peer.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(ChangeError::Invalid(format!("the peer address {peer:?} is not host:port"))),
    }
}

async fn invite(node: &Node, invite: Invite) -> Result<Changed, ChangeError> {
    check_peer(&invite.peer)?;
    let _alone = node.changing.lock().await;
    let mut roster = Roster::clone(&*node.roster());
    let replaced = invite.replaces.map(MemberName::Text).map(|name| known(&roster, &name)).transpose()?;
    let replaces = replaced.map(|member| member.id);
    let id = identity::random_number();
    let intent = if invite.learner { Intent::Learner } else { Intent::Voter };
    let Invite { name, peer, api, etcd, .. } = invite;
    let member = Member { id, name, peer, api, etcd, incarnation: 0, intent, replaces };
    check_new(&roster, &member)?;
    // An earlier invitation for this name or address is replaced; its token ends.
    for (key, before) in invitations::list(node).await? {
        let is_same =
            before.member.peer == member.peer || (!member.name.is_empty() && before.member.name == member.name);
        if is_same && invite.token_is_id {
            return Err(ChangeError::PeerInUse(format!("{} was asked to join already", member.peer)));
        }
        if is_same {
            invitations::withdraw(node, key).await?;
        }
    }
    let secret = if invite.token_is_id { format!("{id:x}") } else { format!("{:032x}", platform::random::<u128>()) };
    invitations::store(node, &secret, &Invitation { member: member.clone(), taken_by: None }).await?;
    let stays = |member: &&Member| !roster.is_to_go(member) && replaces != Some(member.id);
    let mut peers: Vec<_> = roster.members.values().filter(stays).map(|member| member.peer.clone()).collect();
    if peers.is_empty() {
        // The only member is being replaced, so only it can answer.
        peers = roster.members.values().map(|member| member.peer.clone()).collect();
    }
    let token = Token { cluster: node.settings.cluster, secret, peers };
    roster.members.insert(id, member.clone());
    Ok(Changed { waits: balance::waits(&roster, id), member, token: Some(token.to_string()) })
}

async fn remove(node: &Node, name: &MemberName) -> Result<Changed, ChangeError> {
    let _alone = node.changing.lock().await;
    let roster = node.roster();
    let Some(member) = find(&roster, name) else { return withdraw(node, name).await };
    let member = Member { intent: Intent::Leaving, ..member };
    let how =
        if roster.voters.contains(&member.id) { set(&member) } else { ChangeMembers::RemoveNodes([member.id].into()) };
    write(node, how).await?;
    Ok(Changed::of(member))
}

/// Withdraws the invitation of a member that has not joined yet.
async fn withdraw(node: &Node, name: &MemberName) -> Result<Changed, ChangeError> {
    let (key, member) = invited(node, name).await?;
    invitations::withdraw(node, key).await?;
    Ok(Changed::of(member))
}

/// Returns the key and the member of an invitation that nobody has used yet.
async fn invited(node: &Node, name: &MemberName) -> Result<(Bytes, Member), ChangeError> {
    let is_meant = |member: &Member| match name {
        MemberName::Id(id) => member.id == *id,
        MemberName::Text(text) => member.name == *text || is_id(text, member.id),
    };
    let mut invited = invitations::list(node).await?.into_iter().map(|(key, invitation)| (key, invitation.member));
    invited.find(|(_, member)| is_meant(member)).ok_or_else(|| ChangeError::NotFound(name.to_string()))
}

async fn promote(node: &Node, name: &MemberName) -> Result<Changed, ChangeError> {
    let _alone = node.changing.lock().await;
    let roster = node.roster();
    let Some(member) = find(&roster, name) else {
        let (_, Member { name, peer, .. }) = invited(node, name).await?;
        return Err(ChangeError::NotReady(if name.is_empty() { peer } else { name }));
    };
    let votes = roster.voters.contains(&member.id);
    if votes && member.intent == Intent::Voter {
        return Err(ChangeError::NotLearner(member.name));
    }
    if !votes && !is_ready(node, &node.instance()?.metrics(), member.id) {
        return Err(ChangeError::NotReady(member.name));
    }
    let member = Member { intent: Intent::Voter, ..member };
    write(node, set(&member)).await?;
    Ok(Changed::of(member))
}

async fn update(node: &Node, name: &MemberName, addresses: Addresses) -> Result<Changed, ChangeError> {
    let _alone = node.changing.lock().await;
    let roster = node.roster();
    let mut member = known(&roster, name)?;
    if let Some(peer) = addresses.peer {
        check_peer(&peer)?;
        if let Some(other) = roster.members.values().find(|other| other.peer == peer && other.id != member.id) {
            return Err(ChangeError::PeerInUse(format!("{} has the peer address {peer} already", other.name)));
        }
        let is_asked = |invited: &Member| invited.peer == peer && invited.id != member.id;
        if invitations::list(node).await?.iter().any(|(_, invitation)| is_asked(&invitation.member)) {
            return Err(ChangeError::PeerInUse(format!("{peer} was asked to join already")));
        }
        member.peer = peer;
    }
    member.api = addresses.api.unwrap_or(member.api);
    member.etcd = addresses.etcd.unwrap_or(member.etcd);
    write(node, set(&member)).await?;
    Ok(Changed::of(member))
}

async fn transfer(node: &Node, to: Option<&MemberName>) -> Result<Changed, ChangeError> {
    let roster = node.roster();
    let instance = node.instance()?;
    let heir = match to {
        Some(name) => known(&roster, name)?,
        None => leadership::heir(node, &instance.metrics())
            .and_then(|id| node.member(id))
            .ok_or_else(|| ChangeError::Unhealthy("there is no other voter that answers".to_owned()))?,
    };
    if !roster.voters.contains(&heir.id) {
        return Err(ChangeError::Invalid(format!("{} has no vote and cannot lead", heir.name)));
    }
    if heir.id == node.id() {
        return Ok(Changed::of(heir));
    }
    // A leader that hands over accepts no writes until the other member leads, so that member must have caught up.
    if !is_ready(node, &instance.metrics(), heir.id) {
        return Err(ChangeError::Unhealthy(format!("{} does not answer, or has not caught up", heir.name)));
    }
    let triggered = instance.raft.trigger().transfer_leader(heir.id).await;
    triggered.map_err(|error| ChangeError::Unavailable(error.to_string()))?;
    let mut leadership = node.leadership.subscribe();
    let moved = leadership.wait_for(|known| known.leader.as_ref().is_some_and(|leader| leader.id == heir.id));
    match tokio::time::timeout(SETTLE_WITHIN, moved).await {
        Ok(Ok(_)) => Ok(Changed::of(heir)),
        _ => Err(ChangeError::Unavailable(format!("{} has not taken over in time", heir.name))),
    }
}

/// Waits until the change of member `id` is done, but not when it depends on other members joining or leaving. Returns
/// the condition that it still waits for. The change is in the membership since `version`.
async fn settled(node: &Node, id: MemberId, version: u64, is_done: impl Fn(&Roster) -> bool) -> Option<String> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    loop {
        let roster = node.roster();
        if roster.version >= version {
            if is_done(&roster) {
                return None;
            }
            if let Some(waits) = balance::waits(&roster, id) {
                return Some(waits);
            }
        }
        let name = |id| node.member(id).map_or_else(|| "it".to_owned(), |member| member.name);
        if node.is_removed() {
            // A removed member receives no further membership, so this one cannot see the change.
            let (own, name) = (name(node.id()), name(id));
            let is_itself = id == node.id();
            return (!is_itself).then(|| format!("{own} itself is out of service; ask another member about {name}"));
        }
        if Instant::now() > deadline {
            return Some(format!("the quorum is still changing; {} follows when enough members answer", name(id)));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Commits a change of the membership. The caller holds [`Node::changing`].
///
/// # Errors
/// `NoLeader` when it was not proposed, `OutcomeUnknown` when it may or may not take effect.
pub async fn write(node: &Node, members: Members) -> Result<(), StoreError> {
    let deadline = Instant::now() + WRITE_WITHIN;
    loop {
        let instance = node.instance()?;
        let changing = instance.raft.change_membership(members.clone(), false);
        let problem = match tokio::time::timeout_at(deadline, changing).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) if is_retriable(&error) => error.to_string(),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                return Err(StoreError::NoLeader("this member does not lead any more".to_owned()));
            }
            Ok(Err(error)) => return Err(StoreError::OutcomeUnknown(error.to_string())),
            Err(_) => return Err(StoreError::OutcomeUnknown("the change was not committed in time".to_owned())),
        };
        if Instant::now() + RETRY > deadline {
            return Err(StoreError::NoLeader(problem));
        }
        tokio::time::sleep(RETRY).await;
    }
    // The caller reads the roster next and must see the change.
    let metrics = node.instance()?.raft.server_metrics();
    node.store_roster(|| Roster::reported(&metrics.borrow_watched()));
    Ok(())
}

/// Returns whether an error means that nothing was proposed and that a retry may succeed.
fn is_retriable(error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> bool {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            matches!(error, ChangeMembershipError::InProgress(_))
        }
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            forward.reason == ForwardReason::LeaseExpired
        }
        _ => false,
    }
}

/// Returns whether a member answers and lacks at most `READY_LAG` entries of this leader's log.
fn is_ready(node: &Node, metrics: &Metrics, id: MemberId) -> bool {
    let matched = metrics.replication.as_ref().and_then(|progress| progress.get(&id).copied()).flatten();
    let last = metrics.last_log_index.unwrap_or(0);
    answers(node, id) && matched.is_some_and(|matched| matched.index + READY_LAG >= last)
}

fn answers(node: &Node, id: MemberId) -> bool {
    id == node.id() || node.peers.get(id).is_some_and(|peer| peer.link(Lane::Control).is_up())
}

/// Changes the voters to those that [`balance`] chooses, while this member leads.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(LOOK_EVERY);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
        if !node.leadership.borrow().is_active_leader {
            continue;
        }
        match shutdown.run_until_cancelled(step(&node)).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::info!(%error, "the membership was not changed; will retry"),
        }
    }
}

async fn step(node: &Node) -> Result<(), StoreError> {
    // A change is being made; the next step comes after it.
    let Ok(_alone) = node.changing.try_lock() else { return Ok(()) };
    let roster = node.roster();
    if roster.is_joint {
        // An earlier leader began a change of voters; this completes it.
        return write(node, ChangeMembers::AddVoterIds(BTreeSet::new())).await;
    }
    let idle = balance::idle_leavers(&roster);
    if !idle.is_empty() {
        return write(node, ChangeMembers::RemoveNodes(idle)).await;
    }
    let metrics = node.instance()?.metrics();
    let Some(voters) = balance::voters(&roster, |id| is_ready(node, &metrics, id)) else { return Ok(()) };
    // Without a majority that answers, the new voters could not commit the change, and it would never end.
    let able = voters.iter().filter(|id| answers(node, **id)).count();
    if able <= voters.len() / 2 {
        return Ok(());
    }
    let names = |ids: &BTreeSet<MemberId>| -> Vec<String> {
        ids.iter().filter_map(|id| Some(roster.members.get(id)?.name.clone())).collect()
    };
    if !voters.contains(&node.id()) {
        return give_up_leadership(node, &metrics, &voters).await;
    }
    tracing::info!(from = ?names(&roster.voters), to = ?names(&voters), "changing the voters");
    write(node, ChangeMembers::ReplaceAllVoters(voters)).await
}

/// Transfers leadership before this member loses its vote, so that writes continue.
async fn give_up_leadership(node: &Node, metrics: &Metrics, voters: &BTreeSet<MemberId>) -> Result<(), StoreError> {
    let roster = node.roster();
    let heir = leadership::heir(node, metrics).filter(|heir| voters.contains(heir));
    let Some(heir) = heir.filter(|heir| roster.voters.contains(heir)) else {
        // No other current voter stays. A leader without a vote steps down when the change is committed.
        return write(node, ChangeMembers::ReplaceAllVoters(voters.clone())).await;
    };
    let instance = node.instance()?;
    let triggered = instance.raft.trigger().transfer_leader(heir).await;
    triggered.map_err(|error| StoreError::NoLeader(error.to_string()))?;
    let mut leadership = node.leadership.subscribe();
    let moved = leadership.wait_for(|known| known.leader.as_ref().is_some_and(|leader| leader.id != node.id()));
    drop(tokio::time::timeout(SETTLE_WITHIN, moved).await);
    Ok(())
}
