//! Calls to a peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::channel::{ResponseBody, Unanswered};
use super::frames::{self, MAX_FRAME_BYTES, PeerBody};
use super::link::{Link, LinkError, LinkKeeper};
use super::messages::{CLUSTER_HEADER, MEMBER_HEADER};
use super::tls::{PeerTlsContext, server_name};
use crate::error::StoreError;
use crate::membership::{Member, MemberId};
use crate::platform::TaskTracker;
use crate::platform::tokio;
use crate::platform::tokio::time::Instant;
use crate::raft::codec;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The peer has certainly not seen the call.
    #[error("{peer} is not reachable: {reason}")]
    NotSent { peer: String, reason: String },
    /// The peer may have acted on it.
    #[error("{peer} did not answer: {reason}")]
    Lost { peer: String, reason: String },
    /// The peer refused it before it looked at it.
    #[error("{peer} refused: {reason}")]
    Refused { peer: String, reason: String },
}

impl CallError {
    /// Whether the call has certainly had no effect.
    #[must_use]
    pub fn is_certainly_without_effect(&self) -> bool {
        !matches!(self, CallError::Lost { .. })
    }
}

/// Which of a peer's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Short messages that must not wait behind long ones.
    Control,
    Bulk,
}

/// A peer and the connections to it.
#[derive(Clone)]
pub struct PeerClient {
    pub peer: Member,
    cluster: u32,
    control: Link,
    bulk: Link,
}

/// All peers of this member.
#[derive(Clone)]
pub struct Peers {
    clients: Arc<BTreeMap<MemberId, PeerClient>>,
}

impl Peers {
    /// Starts keeping connections to `peers`; the tasks run in `tasks` until `shutdown`.
    ///
    /// # Errors
    /// When an address is not `host:port`.
    pub fn connect(
        peers: impl IntoIterator<Item = Member>,
        cluster: u32,
        tls: &PeerTlsContext,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let mut clients = BTreeMap::new();
        for peer in peers {
            let name = server_name(&peer.peer)?;
            let keep = || {
                let (keeper, link) = LinkKeeper::new(peer.clone(), name.clone(), tls.connector.clone(), tasks.clone());
                tasks.spawn(keeper.run(shutdown.clone()));
                link
            };
            let (control, bulk) = (keep(), keep());
            clients.insert(peer.id, PeerClient { peer, cluster, control, bulk });
        }
        Ok(Peers { clients: Arc::new(clients) })
    }

    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<&PeerClient> {
        self.clients.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &PeerClient> {
        self.clients.values()
    }
}

impl PeerClient {
    /// One message there, one back, within `timeout`.
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

    /// Sends a body of any length; the response is there when its head is.
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
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{path}", self.peer.peer))
            .header(CLUSTER_HEADER, self.cluster)
            .header(MEMBER_HEADER, self.peer.id)
            .body(body)
            .map_err(|error| self.not_sent(&error))?;
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
        Err(CallError::Refused {
            peer: self.peer.name.clone(),
            reason: format!("{status} {}", text.unwrap_or_default()),
        })
    }

    /// The one message of a response.
    ///
    /// # Errors
    /// `Lost`: the request has been acted on.
    pub async fn answer<A: DeserializeOwned>(
        &self,
        response: Response<ResponseBody>,
        deadline: Instant,
    ) -> Result<A, CallError> {
        let body = self.collect(response, deadline).await?;
        codec::decode(&body).map_err(|error| self.lost(&error))
    }

    /// The connection of a lane.
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
