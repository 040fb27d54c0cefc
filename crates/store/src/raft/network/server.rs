//! The server that answers the requests of peers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use openraft::storage::Snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::frames::{self, FrameError, FrameReader, MAX_FRAME_BYTES, PeerBody};
use super::link::{MAX_HTTP_FRAME_BYTES, Tracked};
use super::messages::{
    self, Claim, HashRequest, HashResponse, HelloResponse, JoinRequest, ProposeResponse, Proposed, ReadIndexRequest,
    StatusResponse,
};
use super::snapshot_stream;
use crate::platform::tokio;
use crate::platform::tokio::net::{TcpListener, TcpStream};
use crate::raft::codec;
use crate::raft::elections::voting;
use crate::raft::membership::roster::SenderStatus;
use crate::raft::membership::{changing, joining};
use crate::raft::node::{Instance, Node};
use crate::raft::requests::{proposals, reads};
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};
use crate::raft::state::snapshot::SnapshotData;
use crate::raft::types::AppendRequest;
use crate::raft::upkeep::{integrity, leases};

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
const BODY_DEADLINE: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Status and reason of a request that is not answered with 200.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(error: &dyn std::fmt::Display) -> Self {
        Refusal(StatusCode::BAD_REQUEST, error.to_string())
    }

    fn unavailable(error: &dyn std::fmt::Display) -> Self {
        Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// The body of a request.
pub trait RequestBody:
    Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + Unpin + 'static
{
}

impl<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + Unpin + 'static> RequestBody
    for B
{
}

/// Accepts the connections of peers.
pub struct PeerServer {
    node: Arc<Node>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl PeerServer {
    #[must_use]
    pub fn new(node: Arc<Node>, listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        PeerServer { node, listener, acceptor }
    }

    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, from)) => {
                    let (node, acceptor) = (self.node.clone(), self.acceptor.clone());
                    let serving = async move {
                        if let Err(error) = serve(node, acceptor, tcp).await {
                            tracing::debug!(%from, %error, "a peer connection ended");
                        }
                    };
                    let shutdown = shutdown.clone();
                    self.node.tasks.spawn(async move { shutdown.run_until_cancelled(serving).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(
    node: Arc<Node>,
    acceptor: TlsAcceptor,
    tcp: TcpStream,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tcp.set_nodelay(true)?;
    let tls = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(tcp)).await??;
    let tasks = Tracked(node.tasks.clone());
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(respond(&node, request).await) }
    });
    hyper::server::conn::http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_HTTP_FRAME_BYTES)
        .max_concurrent_streams(1024)
        .serve_connection(TokioIo::new(tls), service)
        .await?;
    Ok(())
}

/// Answers a request, from a connection or from the simulated network.
pub async fn respond<B: RequestBody>(node: &Arc<Node>, request: Request<B>) -> Response<PeerBody> {
    let answer = match check(node, request.uri().path(), request.headers()) {
        Ok(()) => answer(node, request).await,
        Err(refusal) => Err(refusal),
    };
    match answer {
        Ok(body) => Response::new(body),
        Err(Refusal(status, reason)) => {
            tracing::debug!(%status, reason, "a peer's request was refused");
            let mut response = Response::new(frames::single(reason.into()));
            *response.status_mut() = status;
            response
        }
    }
}

/// Refuses requests for another member or directory, and requests from removed members.
fn check(node: &Node, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
    let own = &node.settings.member;
    let is_meant = match path {
        // These go to an address, before the sender knows the id of the member there.
        messages::HELLO | messages::JOIN => true,
        _ => number(messages::MEMBER_HEADER) == Some(own.id),
    };
    let incarnation = number(messages::INCARNATION_HEADER);
    // A member that has lost its log must not act as the member that had it.
    let is_same = if path.starts_with("/raft/") || path == messages::CONFIRM {
        incarnation == Some(own.incarnation)
    } else {
        incarnation.is_none_or(|incarnation| incarnation == own.incarnation)
    };
    #[cfg(test)]
    let is_same = is_same || planted::is(Bug::HearsWhoWasWiped);
    if number(messages::CLUSTER_HEADER) != Some(node.settings.cluster.into()) || !is_meant || !is_same {
        let (cluster, id, incarnation) = (node.settings.cluster, own.id, own.incarnation);
        let reason =
            format!("this is member {id} of cluster {cluster:08x}, its directory has the incarnation {incarnation}");
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, reason));
    }
    let Some(sender) = text(messages::SENDER_HEADER) else { return Ok(()) };
    let Claim { member, incarnation, version } = sender.parse().map_err(|error| Refusal::bad(&error))?;
    let gone = |reason: String| Err(Refusal(StatusCode::GONE, reason));
    match node.roster().sender_status(member, incarnation, version) {
        SenderStatus::Member | SenderStatus::Unknown => Ok(()),
        #[cfg(test)]
        SenderStatus::Wiped(_) if planted::is(Bug::HearsWhoWasWiped) => Ok(()),
        SenderStatus::Removed => gone("it was removed from the quorum".to_owned()),
        SenderStatus::Wiped(member) => gone(format!(
            "the quorum knows {} with another directory; with that, it has lost its promises to the other members",
            member.name
        )),
    }
}

async fn answer<B: RequestBody>(node: &Arc<Node>, request: Request<B>) -> Result<PeerBody, Refusal> {
    let (head, body) = request.into_parts();
    match head.uri.path() {
        messages::APPEND => append(&*instance(node)?, body),
        messages::VOTE => {
            let vote = voting::answer(&*instance(node)?, message(body).await?).await;
            single(&vote.map_err(|error| Refusal::unavailable(&error))?)
        }
        messages::PRE_VOTE => {
            let vote = instance(node)?.raft.pre_vote(message(body).await?).await;
            single(&vote.map_err(|error| Refusal::unavailable(&error))?)
        }
        messages::TRANSFER_LEADER => {
            let transfer = instance(node)?.raft.handle_transfer_leader(message(body).await?).await;
            single(&transfer.map_err(|error| Refusal::unavailable(&error))?)
        }
        messages::SNAPSHOT => snapshot(&*instance(node)?, body).await,
        messages::PROPOSE => proposed(proposals::receive_forwarded(node, message(body).await?).await, MAX_FRAME_BYTES),
        messages::READ_INDEX => {
            let ReadIndexRequest { member, vote } = message(body).await?;
            let index = reads::read_index_for(node, member, vote).await;
            single(&index.map_err(|_| Refusal::unavailable(&"shutting down, or overloaded"))?)
        }
        messages::CONFIRM => {
            node.check_in_service().map_err(|error| Refusal::unavailable(&error))?;
            single(&instance(node)?.log.vote())
        }
        messages::LEASE_TIME => single(&leases::lease_time(node, message(body).await?)),
        messages::HASH => {
            let HashRequest { revision } = message(body).await?;
            single(&HashResponse { hash: integrity::own_hash(node, revision).await })
        }
        messages::COMPARISON => {
            integrity::judge(node, &message(body).await?);
            single(&())
        }
        messages::HELLO => single(&hello(node, &head.headers)),
        messages::JOIN => {
            let body = collect(body).await?;
            let request = JoinRequest::from_parts(&head.headers, &body).map_err(|error| Refusal::bad(&error))?;
            single(&joining::admit(node, request).await)
        }
        messages::COMMANDS => single(&node.decodable.newest),
        messages::CHANGE => single(&changing::receive_forwarded(node, message(body).await?).await),
        messages::STATUS => {
            let status = node.status().map_err(|error| Refusal::unavailable(&error))?;
            single(&StatusResponse { status, leader: node.leader() })
        }
        other => Err(Refusal(StatusCode::NOT_FOUND, format!("{other} is unknown"))),
    }
}

/// Encodes the outcomes of commands. If they are too long for one message, the longest replies are left out: their
/// commands have taken effect and get the outcome `Unknown`; the other commands keep their replies.
fn proposed(mut response: ProposeResponse, max_bytes: usize) -> Result<PeerBody, Refusal> {
    let encode = |response: &ProposeResponse| codec::encode(response).map_err(|error| Refusal::unavailable(&error));
    let mut message = encode(&response)?;
    if message.len() > max_bytes {
        let mut sizes = Vec::with_capacity(response.outcomes.len());
        for (place, outcome) in response.outcomes.iter().enumerate() {
            let size_bytes = codec::encode(outcome).map_err(|error| Refusal::unavailable(&error))?.len();
            sizes.push((size_bytes, place));
        }
        sizes.sort_unstable();
        let mut longest = sizes.into_iter().rev();
        while message.len() > max_bytes
            && let Some((size_bytes, place)) = longest.next()
        {
            let reason =
                format!("it was done, but its reply of {size_bytes} bytes does not fit into a message between members");
            response.outcomes[place] = Proposed::Unknown { reason };
            message = encode(&response)?;
        }
    }
    Ok(frames::single(message))
}

fn hello(node: &Node, headers: &HeaderMap) -> HelloResponse {
    let roster = node.roster();
    // `check` has compared the sender's incarnation already.
    let sender = headers.get(messages::SENDER_HEADER).and_then(|value| value.to_str().ok()?.parse::<Claim>().ok());
    let knows_sender = sender.map(|sender| roster.members.contains_key(&sender.member)).filter(|_| roster.is_formed());
    HelloResponse { id: node.id(), incarnation: node.settings.member.incarnation, knows_sender }
}

fn instance(node: &Node) -> Result<Arc<Instance>, Refusal> {
    node.instance().map_err(|error| Refusal::unavailable(&error))
}

/// Appends a stream of requests; the results are sent while requests still arrive.
fn append<B: RequestBody>(instance: &Instance, body: B) -> Result<PeerBody, Refusal> {
    let requests = futures::stream::unfold(FrameReader::new(body), async |mut reader| {
        match reader.next::<AppendRequest>().await {
            Ok(Some(request)) => Some((request, reader)),
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, "a stream of append requests broke off");
                None
            }
        }
    });
    let results = instance.raft.stream_append(requests).map(|result| match result {
        Ok(result) => frames::frame(&result),
        Err(fatal) => Err(FrameError::Connection(fatal.to_string())),
    });
    Ok(frames::stream(results))
}

async fn snapshot<B: RequestBody>(instance: &Instance, body: B) -> Result<PeerBody, Refusal> {
    let parent = instance.state.snapshots_path();
    let received = snapshot_stream::receive(&mut FrameReader::new(body), &parent).await;
    let (vote, meta, dir) = received.map_err(|error| Refusal::bad(&error))?;
    tracing::info!(last_log_id = ?meta.last_log_id, "received a snapshot");
    let snapshot = Snapshot { meta, snapshot: SnapshotData::Directory(Arc::new(dir)) };
    let taken = instance.receive_snapshot(vote, snapshot).await;
    single(&taken.map_err(|error| Refusal::unavailable(&error))?)
}

async fn message<T: DeserializeOwned>(body: impl RequestBody) -> Result<T, Refusal> {
    codec::decode(&collect(body).await?).map_err(|error| Refusal::bad(&error))
}

async fn collect(body: impl RequestBody) -> Result<Bytes, Refusal> {
    let body = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_FRAME_BYTES).collect()).await;
    let body = body
        .map_err(|_| Refusal(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time".to_owned()))?
        .map_err(|error| Refusal::bad(&error))?;
    Ok(body.to_bytes())
}

fn single<T: Serialize>(message: &T) -> Result<PeerBody, Refusal> {
    let message = codec::encode(message).map_err(|error| Refusal::unavailable(&error))?;
    Ok(frames::single(message))
}

#[cfg(test)]
mod tests {
    use quorate_api::Revision;
    use quorate_mvcc::{KeyValue, OpResponse, Outcome, RangeResponse, Reply, TxnResponse};

    use super::*;
    use crate::platform::tokio;

    fn read(value_bytes: usize) -> Proposed {
        let kv = KeyValue { value: vec![7; value_bytes].into(), ..KeyValue::default() };
        let found = OpResponse::Range(RangeResponse { kvs: vec![kv], ..RangeResponse::default() });
        let outcome = Ok(Outcome::Txn(TxnResponse { succeeded: true, responses: vec![found] }));
        Proposed::Applied { index: 1, reply: Reply { revision: Revision(2), outcome } }
    }

    #[tokio::test]
    async fn only_replies_that_do_not_fit_are_left_out() {
        const MAX_BYTES: usize = 10_000;
        let outcomes = vec![read(10), read(9000), read(20_000), read(500), read(8000)];
        let body = proposed(ProposeResponse { outcomes }, MAX_BYTES).map_err(|refusal| refusal.1).expect("an answer");
        let message = Limited::new(body, MAX_BYTES).collect().await.expect("it fits").to_bytes();
        let response: ProposeResponse = codec::decode(&message).expect("a response");
        let is_answered = |outcome: &Proposed| matches!(outcome, Proposed::Applied { .. });
        let answered: Vec<_> = response.outcomes.iter().map(is_answered).collect();
        assert_eq!(answered, [true, false, false, true, true]);
        assert!(matches!(&response.outcomes[2], Proposed::Unknown { reason } if reason.contains("does not fit")));
    }
}
