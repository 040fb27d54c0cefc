//! The transport as openraft's network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::ResponseBody;
use super::client::{CallError, Lane, PeerClient, Peers};
use super::frames::{self, FrameReader};
use super::{messages, snapshot_stream};
use crate::membership::{Member, MemberId};
use crate::platform::tokio;
use crate::platform::tokio::sync::Semaphore;
use crate::platform::tokio::time::Instant;
use crate::raft::requests::announced::Announced;
use crate::raft::state::snapshot::SnapshotData;
use crate::raft::types::{
    AppendRequest, AppendResponse, AppendResult, RpcError, Snapshot, SnapshotResponse, TransferRequest,
    TransferResponse, TypeConfig, Vote, VoteRequest, VoteResponse,
};

/// Maximum number of append requests in flight to one follower. Two keep the connection busy; more would make batches
/// smaller.
const APPENDS_IN_FLIGHT: usize = 2;
/// How long a follower may owe an answer, up to twice that, before its stream is given up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// Maximum duration of a snapshot's transfer. The receiver notices earlier when no parts arrive.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(600);

/// Makes [`PeerNetwork`]s.
pub struct NetworkFactory {
    peers: Peers,
    announced: Arc<Announced>,
}

impl NetworkFactory {
    #[must_use]
    pub fn new(peers: Peers, announced: Arc<Announced>) -> Self {
        NetworkFactory { peers, announced }
    }

    fn network(&self, target: MemberId, member: &Member, lane: Lane) -> PeerNetwork {
        // openraft may know a new member before the roster has it.
        self.peers.add(member);
        PeerNetwork { peers: self.peers.clone(), target, lane, announced: self.announced.clone() }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: MemberId, member: &Member) -> PeerNetwork {
        self.network(target, member, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, member: &Member) -> PeerNetwork {
        self.network(target, member, Lane::Control)
    }
}

/// openraft's network to one peer.
pub struct PeerNetwork {
    /// Looked up for each request, since the address of a member may change.
    peers: Peers,
    target: MemberId,
    /// The connection for append requests.
    lane: Lane,
    announced: Arc<Announced>,
}

impl PeerNetwork {
    fn peer(&self) -> Result<PeerClient, Unreachable<TypeConfig>> {
        let gone = || Unreachable::from_string(format!("{} is no member any more", self.target));
        self.peers.get(self.target).ok_or_else(gone)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(&mut self, request: AppendRequest, option: RPCOption) -> Result<AppendResponse, RpcError> {
        let once = Box::pin(futures::stream::once(async move { request }));
        let mut results = self.stream_append(once, option).await?;
        match results.next().await {
            Some(result) => result.map(Into::into),
            None => Err(RpcError::Network(NetworkError::from_string("no answer"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // The first request is taken before anything can fail, because openraft backs off only where it produces
            // requests. A stream that failed without taking one would be restarted in a busy loop for as long as the
            // peer is down.
            let mut input = input;
            let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
            let input = futures::stream::iter([first]).chain(input);
            let peer = self.peer()?;
            let slots = Arc::new(Semaphore::new(APPENDS_IN_FLIGHT));
            // The connection's task owns the request body and with it `input`, which must be dropped with the results:
            // openraft begins the next stream only when this one has dropped its state.
            let stop = CancellationToken::new();
            let requests =
                requests(input, slots.clone(), self.announced.clone()).take_until(stop.clone().cancelled_owned());
            let guard = stop.drop_guard();
            let sending =
                peer.send(self.lane, messages::APPEND, frames::stream(requests), Instant::now() + ANSWER_DEADLINE);
            let response = sending.await.map_err(rpc_error)?;
            let state = Results { reader: FrameReader::new(response.into_body()), slots, _guard: guard };
            Ok(futures::stream::unfold(Some(state), Results::next).boxed())
        })
    }

    async fn vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        let peer = self.peer()?;
        peer.call(Lane::Control, messages::VOTE, &request, option.hard_ttl()).await.map_err(rpc_error)
    }

    async fn pre_vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        let peer = self.peer()?;
        peer.call(Lane::Control, messages::PRE_VOTE, &request, option.hard_ttl()).await.map_err(rpc_error)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig>> {
        let peer = self.peer()?;
        let SnapshotData::Directory(dir) = snapshot.snapshot else {
            return Err(StreamingError::Closed(ReplicationClosed::new("a snapshot without a directory")));
        };
        let parts = snapshot_stream::send(vote, snapshot.meta, dir);
        let deadline = Instant::now() + SNAPSHOT_DEADLINE;
        let exchange = async {
            let response = peer.send(Lane::Bulk, messages::SNAPSHOT, frames::stream(parts), deadline).await?;
            peer.answer(response, deadline).await
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = exchange => answer.map_err(|error| rpc_error(error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferResponse, RpcError> {
        let peer = self.peer()?;
        peer.call(Lane::Control, messages::TRANSFER_LEADER, &request, option.hard_ttl()).await.map_err(rpc_error)
    }
}

/// Returns the append requests as frames; each one waits for a slot.
fn requests<S>(
    input: S,
    slots: Arc<Semaphore>,
    announced: Arc<Announced>,
) -> impl Stream<Item = Result<bytes::Bytes, frames::FrameError>> + Send + 'static
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    futures::stream::unfold((input, slots, announced), async |(mut input, slots, announced)| {
        // The answer frees the slot.
        slots.acquire().await.ok()?.forget();
        let request = input.next().await?;
        announced.note(request.leader_commit.as_ref().map(|id| id.index));
        Some((frames::frame(&request), (input, slots, announced)))
    })
}

/// The answers of a stream of append requests.
struct Results {
    reader: FrameReader<ResponseBody>,
    slots: Arc<Semaphore>,
    _guard: DropGuard,
}

impl Results {
    async fn next(state: Option<Self>) -> Option<(Result<AppendResult, RpcError>, Option<Self>)> {
        let mut state = state?;
        match state.await_next().await {
            Ok(None) => None,
            Ok(Some(result)) => {
                state.slots.add_permits(1);
                let next = result.is_ok().then_some(state);
                Some((Ok(result), next))
            }
            Err(error) => Some((Err(error), None)),
        }
    }

    async fn await_next(&mut self) -> Result<Option<AppendResult>, RpcError> {
        let lost = |reason: String| RpcError::Network(NetworkError::from_string(reason));
        let mut next = std::pin::pin!(self.reader.next());
        let mut owing = false;
        loop {
            match tokio::time::timeout(ANSWER_DEADLINE, next.as_mut()).await {
                Ok(result) => return result.map_err(|error| lost(error.to_string())),
                Err(_) => {
                    // One slot is held while the next request is awaited; any other one belongs to an unanswered
                    // request. The stream has failed if there was one during the whole deadline.
                    let owes = self.slots.available_permits() < APPENDS_IN_FLIGHT - 1;
                    if owing && owes {
                        return Err(lost("no answer to an append request".to_owned()));
                    }
                    owing = owes;
                }
            }
        }
    }
}

fn rpc_error(error: CallError) -> RpcError {
    match error {
        CallError::NotSent { .. } | CallError::Refused { .. } => {
            RpcError::Unreachable(Unreachable::new(&io::Error::other(error)))
        }
        CallError::Lost { .. } => RpcError::Network(NetworkError::new(&io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::platform::{TaskTracker, tokio};
    use crate::raft::network::client::PeerSender;
    use crate::raft::network::tls::PeerTlsContext;
    use crate::raft::tests::cluster::certificates;

    #[tokio::test]
    async fn a_stream_takes_a_request_before_it_can_fail() {
        let tls = PeerTlsContext::load(&certificates()).expect("certificates");
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let peers = Peers::new(PeerSender::default(), BTreeMap::new(), tls, tasks, shutdown);
        let mut network = PeerNetwork { peers, target: 7, lane: Lane::Bulk, announced: Arc::default() };
        let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
        let request = AppendRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let input = Box::pin(futures::stream::once(async move {
            asked.send(()).expect("the test listens");
            request
        }));
        let result = network.stream_append(input, RPCOption::new(Duration::from_secs(1))).await;
        assert!(matches!(result, Err(RpcError::Unreachable(_))));
        assert!(was_asked.try_recv().is_ok(), "openraft backs off where it produces requests");
    }
}
