//! Elections. The first key in the queue of a name is the leader's, and its value is the leader's proclamation.

use bytes::Bytes;
use futures::Stream;
use quorate_api::Revision;
use quorate_mvcc::{KeyRange, LeaseId, Txn};
use tonic::{Request, Response, Status};

use crate::answers::answer;
use crate::convert;
use crate::errors;
use crate::pb::v3electionpb::{self as pb, election_server::Election};
use crate::queue::{self, Place};
use crate::shared::Shared;

pub(crate) struct ElectionService(pub(crate) Shared);

fn no_leader() -> Status {
    Status::unknown("election: no leader")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn leader_key(leader: Option<pb::LeaderKey>) -> Result<pb::LeaderKey, Status> {
    let leader = leader.ok_or_else(|| Status::invalid_argument("\"leader\" field must be provided"))?;
    if leader.key.is_empty() { Err(errors::EMPTY_KEY.into()) } else { Ok(leader) }
}

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = crate::Outgoing<pb::LeaderResponse>;

    async fn campaign(&self, request: Request<pb::CampaignRequest>) -> Result<Response<pb::CampaignResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(errors::EMPTY_KEY.into());
        }
        let place = Place::take(&self.0, &request.name, request.lease, request.value).await?;
        let (revision, place) = place.wait().await?;
        let leader = pb::LeaderKey {
            name: request.name,
            key: place.key.clone(),
            rev: convert::wire(place.created.0),
            lease: place.lease.0,
        };
        Ok(Response::new(pb::CampaignResponse { header: Some(self.0.header(revision)), leader: Some(leader) }))
    }

    async fn proclaim(&self, request: Request<pb::ProclaimRequest>) -> Result<Response<pb::ProclaimResponse>, Status> {
        let request = request.into_inner();
        let leader = leader_key(request.leader)?;
        let proclaim = Txn {
            compare: vec![queue::created_at(&leader.key, convert::revision(leader.rev))],
            success: vec![queue::put(&leader.key, request.value, LeaseId(leader.lease))],
            failure: Vec::new(),
        };
        let (revision, response) = self.0.txn(proclaim).await?;
        if !response.succeeded {
            return Err(not_leader());
        }
        Ok(Response::new(pb::ProclaimResponse { header: Some(self.0.header(revision)) }))
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Result<Response<pb::LeaderResponse>, Status> {
        let (revision, first, held) = queue::first(&self.0, &request.into_inner().name).await?;
        let first = first.ok_or_else(no_leader)?;
        let header = Some(self.0.header(revision));
        Ok(answer(pb::LeaderResponse { header, kv: Some(convert::key_value(first)) }, held))
    }

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let answers = observe(&self.0, request.into_inner().name)?;
        Ok(Response::new(self.0.outgoing(answers)))
    }

    async fn resign(&self, request: Request<pb::ResignRequest>) -> Result<Response<pb::ResignResponse>, Status> {
        let leader = leader_key(request.into_inner().leader)?;
        let revision = queue::leave(&self.0, &leader.key, convert::revision(leader.rev)).await?;
        Ok(Response::new(pb::ResignResponse { header: Some(self.0.header(revision)) }))
    }
}

/// Returns a stream of the current leader and of every change of the leader or its value. It ends with the first error.
fn observe(
    shared: &Shared,
    name: Bytes,
) -> Result<impl Stream<Item = Result<pb::LeaderResponse, Status>> + use<>, Status> {
    // The watch begins before the first read, so that no change is missed in between.
    let watch = shared.store.watch(KeyRange::prefix(queue::prefix(&name)), Revision::ZERO);
    let watch = watch.map_err(|error| Status::unavailable(error.to_string()))?;
    let observed = Observed { shared: shared.clone(), name, watch, last: None, is_first: true };
    Ok(futures::stream::unfold(Some(observed), async |observed| {
        let mut observed = observed?;
        let answer = observed.next().await?;
        let rest = answer.is_ok().then_some(observed);
        Some((answer, rest))
    }))
}

struct Observed {
    shared: Shared,
    name: Bytes,
    watch: quorate_store::Watch,
    last: Option<(Bytes, i64)>,
    is_first: bool,
}

impl Observed {
    async fn next(&mut self) -> Option<Result<pb::LeaderResponse, Status>> {
        loop {
            if !std::mem::take(&mut self.is_first) {
                match self.watch.next().await? {
                    Ok(batch) if batch.events.is_empty() => continue,
                    Ok(_) => {}
                    Err(error) => return Some(Err(Status::unavailable(error.to_string()))),
                }
            }
            match queue::first(&self.shared, &self.name).await {
                Err(status) => return Some(Err(status)),
                Ok((_, None, _)) => {}
                Ok((revision, Some(leader), _)) => {
                    let seen = (leader.key.clone(), convert::wire(leader.mod_revision.0));
                    if self.last.as_ref() != Some(&seen) {
                        self.last = Some(seen);
                        let header = Some(self.shared.header(revision));
                        return Some(Ok(pb::LeaderResponse { header, kv: Some(convert::key_value(leader)) }));
                    }
                }
            }
        }
    }
}
