//! Calls to a peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Builder;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::channel::{ResponseBody, Unanswered};
use super::frames::{self, MAX_FRAME_BYTES, PeerBody};
use super::link::{Link, LinkError, LinkKeeper};
use super::messages::{
    self, CLUSTER_HEADER, Claim, INCARNATION_HEADER, JoinRequest, JoinResponse, MEMBER_HEADER, SENDER_HEADER,
};
use super::tls::{PeerTlsContext, server_name};
use crate::error::StoreError;
use crate::membership::{Member, MemberId};
use crate::platform::tokio::sync::watch;
use crate::platform::tokio::time::Instant;
use crate::platform::{TaskTracker, tokio};
use crate::raft::codec;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The peer has certainly not received the call.
    #[error("{peer} is not reachable: {reason}")]
    NotSent { peer: String, reason: String },
    /// The peer may have acted on it.
    #[error("{peer} did not answer: {reason}")]
    Lost { peer: String, reason: String },
    /// The peer refused the call before acting on it.
    #[error("{peer} refused: {reason}")]
    Refused { peer: String, reason: String },
}

impl CallError {
    /// Returns whether the call has certainly had no effect.
    #[must_use]
    pub fn is_certainly_without_effect(&self) -> bool {
        !matches!(self, CallError::Lost { .. })
    }
}

/// One of the two connections to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Short messages that must not wait behind long ones.
    Control,
    Bulk,
}

/// A peer and the connections to it.
#[derive(Clone)]
pub struct PeerClient {
    pub peer: Arc<Member>,
    shared: Arc<PeersShared>,
    control: Link,
    bulk: Link,
}

/// The identity that this member presents to its peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerSender {
    pub cluster: u32,
    pub member: MemberId,
    pub incarnation: u64,
}

struct PeersShared {
    sender: PeerSender,
    /// Version of the newest membership in this member's log that includes it, or zero.
    membership_index: AtomicU64,
    /// Reason that a peer gave for refusing this member as removed.
    removed: watch::Sender<Option<String>>,
}

impl PeersShared {
    /// Notes that this member was removed; only the first reason is kept.
    fn note_removed(&self, reason: String) {
        self.removed.send_if_modified(|removed| {
            let is_news = removed.is_none();
            removed.get_or_insert(reason);
            is_news
        });
    }
}

struct Kept {
    client: PeerClient,
    stop: CancellationToken,
}

/// The connections to all peers of this member. They follow the membership.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<PeersShared>,
    clients: Arc<RwLock<BTreeMap<MemberId, Kept>>>,
    via: Arc<BTreeMap<String, String>>,
    tls: PeerTlsContext,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Peers {
    /// Returns an empty set of peers. Connections run in `tasks` until `shutdown`. The addresses in `via`, by name,
    /// override those in the membership.
    #[must_use]
    pub fn new(
        sender: PeerSender,
        via: BTreeMap<String, String>,
        tls: PeerTlsContext,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (removed, _) = watch::channel(None);
        let shared = PeersShared { sender, membership_index: AtomicU64::new(0), removed };
        Peers { shared: Arc::new(shared), clients: Arc::default(), via: Arc::new(via), tls, tasks, shutdown }
    }

    /// Keeps connections to exactly these members, except to this member itself.
    pub fn follow<'a>(&self, members: impl IntoIterator<Item = &'a Member>) {
        let mut clients = self.clients.write();
        let mut gone = std::mem::take(&mut *clients);
        for member in members.into_iter().filter(|member| member.id != self.shared.sender.member) {
            match gone.remove(&member.id) {
                Some(kept) if *kept.client.peer == *member => {
                    clients.insert(member.id, kept);
                }
                // The connections depend only on the address and the name, so they can stay.
                Some(mut kept) if kept.client.peer.peer == member.peer && kept.client.peer.name == member.name => {
                    kept.client.peer = Arc::new(member.clone());
                    clients.insert(member.id, kept);
                }
                changed => {
                    if let Some(kept) = changed {
                        kept.stop.cancel();
                    }
                    if let Some(kept) = self.keep(member) {
                        clients.insert(member.id, kept);
                    }
                }
            }
        }
        for kept in gone.into_values() {
            kept.stop.cancel();
        }
    }

    /// Adds a peer, unless it is one already.
    pub fn add(&self, member: &Member) {
        let mut clients = self.clients.write();
        if member.id != self.shared.sender.member
            && !clients.contains_key(&member.id)
            && let Some(kept) = self.keep(member)
        {
            clients.insert(member.id, kept);
        }
    }

    fn keep(&self, member: &Member) -> Option<Kept> {
        let stop = self.shutdown.child_token();
        match self.connect(member, &stop) {
            Ok(client) => Some(Kept { client, stop }),
            Err(error) => {
                tracing::error!(member = member.name, %error, "a member cannot be reached");
                None
            }
        }
    }

    /// Connects to a member without making it a peer. The connections end with `stop`.
    ///
    /// # Errors
    /// When its address is not `host:port`.
    pub fn connect(&self, member: &Member, stop: &CancellationToken) -> Result<PeerClient, StoreError> {
        let address = self.via.get(&member.name).unwrap_or(&member.peer);
        let name = server_name(address)?;
        let keep = || {
            let (keeper, link) = LinkKeeper::new(
                member.name.clone(),
                address.clone(),
                name.clone(),
                self.tls.connector.clone(),
                self.tasks.clone(),
            );
            self.tasks.spawn(keeper.run(stop.clone()));
            link
        };
        let (control, bulk) = (keep(), keep());
        Ok(PeerClient { peer: Arc::new(member.clone()), shared: self.shared.clone(), control, bulk })
    }

    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<PeerClient> {
        self.clients.read().get(&id).map(|kept| kept.client.clone())
    }

    pub fn iter(&self) -> impl Iterator<Item = PeerClient> + use<> {
        let clients: Vec<_> = self.clients.read().values().map(|kept| kept.client.clone()).collect();
        clients.into_iter()
    }

    /// Sets the version of this member's membership, which requests to peers carry from now on.
    pub fn set_membership_index(&self, index: u64) {
        self.shared.membership_index.store(index, Ordering::Relaxed);
    }

    /// Notes that this member was removed from the quorum.
    pub fn note_removed(&self, reason: String) {
        self.shared.note_removed(reason);
    }

    /// Waits until this member is known to be removed; returns the reason.
    pub async fn removed(&self) -> String {
        let mut removed = self.shared.removed.subscribe();
        let known = removed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match known {
            Ok(reason) => reason.unwrap_or_default(),
            // Unreachable: `self` keeps the sender open.
            Err(_) => std::future::pending().await,
        }
    }
}

impl PeerClient {
    /// Sends one message and returns the answer, within `timeout`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        lane: Lane,
        path: &'static str,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, CallError> {
        let deadline = Instant::now() + timeout;
        let body = codec::encode(request).map_err(|error| self.not_sent(&error))?;
        let response = self.send(lane, path, frames::single(body), deadline).await?;
        self.answer(response, deadline).await
    }

    /// Asks to join, or forwards such a request, within `timeout`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn join(&self, request: &JoinRequest, timeout: Duration) -> Result<JoinResponse, CallError> {
        let deadline = Instant::now() + timeout;
        let body = codec::encode(request).map_err(|error| self.not_sent(&error))?;
        let head = self.head(messages::JOIN).header(messages::COMMANDS_HEADER, request.commands.0);
        let response = self.send_request(Lane::Control, head, frames::single(body), deadline).await?;
        self.answer(response, deadline).await
    }

    /// Sends a body of any length. Returns when the head of the response has arrived.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send(
        &self,
        lane: Lane,
        path: &'static str,
        body: PeerBody,
        deadline: Instant,
    ) -> Result<Response<ResponseBody>, CallError> {
        self.send_request(lane, self.head(path), body, deadline).await
    }

    /// Returns the head of a request, with the headers of every request.
    fn head(&self, path: &'static str) -> Builder {
        let PeerSender { cluster, member, incarnation } = self.shared.sender;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{path}", self.peer.peer))
            .header(CLUSTER_HEADER, cluster)
            .header(MEMBER_HEADER, self.peer.id);
        if self.peer.incarnation != 0 {
            request = request.header(INCARNATION_HEADER, self.peer.incarnation);
        }
        if member != 0 {
            let version = self.shared.membership_index.load(Ordering::Relaxed);
            request = request.header(SENDER_HEADER, Claim { member, incarnation, version }.to_string());
        }
        request
    }

    async fn send_request(
        &self,
        lane: Lane,
        head: Builder,
        body: PeerBody,
        deadline: Instant,
    ) -> Result<Response<ResponseBody>, CallError> {
        let request = head.body(body).map_err(|error| self.not_sent(&error))?;
        let mut channel = self.link(lane).sender(deadline).await.map_err(|error| self.not_sent(&error))?;
        let response = match tokio::time::timeout_at(deadline, channel.send(request)).await {
            Err(_) => return Err(self.lost(&"timeout")),
            Ok(Ok(response)) => response,
            Ok(Err(Unanswered { was_sent, reason })) => {
                return Err(if was_sent { self.lost(&reason) } else { self.not_sent(&reason) });
            }
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let text = self.collect(response, deadline).await.map(|text| String::from_utf8_lossy(&text).into_owned());
        let text = text.unwrap_or_default();
        if status == StatusCode::GONE {
            self.shared.note_removed(text.clone());
        }
        Err(CallError::Refused { peer: self.peer.name.clone(), reason: format!("{status} {text}") })
    }

    /// Reads the message of a response.
    ///
    /// # Errors
    /// `Lost`, since the peer has acted on the request.
    pub async fn answer<A: DeserializeOwned>(
        &self,
        response: Response<ResponseBody>,
        deadline: Instant,
    ) -> Result<A, CallError> {
        let body = self.collect(response, deadline).await?;
        codec::decode(&body).map_err(|error| self.lost(&error))
    }

    /// Returns the connection of a lane.
    #[must_use]
    pub fn link(&self, lane: Lane) -> &Link {
        match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        }
    }

    async fn collect(&self, response: Response<ResponseBody>, deadline: Instant) -> Result<Bytes, CallError> {
        let body = Limited::new(response.into_body(), MAX_FRAME_BYTES).collect();
        match tokio::time::timeout_at(deadline, body).await {
            Err(_) => Err(self.lost(&"timeout")),
            Ok(Err(error)) => Err(self.lost(&error)),
            Ok(Ok(body)) => Ok(body.to_bytes()),
        }
    }

    fn not_sent(&self, reason: &dyn std::fmt::Display) -> CallError {
        CallError::NotSent { peer: self.peer.name.clone(), reason: reason.to_string() }
    }

    fn lost(&self, reason: &dyn std::fmt::Display) -> CallError {
        CallError::Lost { peer: self.peer.name.clone(), reason: reason.to_string() }
    }
}

impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        StoreError::NoLeader(error.to_string())
    }
}
