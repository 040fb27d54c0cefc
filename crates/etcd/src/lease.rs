//! The lease service.

use futures::{Stream, StreamExt};
use quorate_mvcc::{Command, LeaseId, Outcome};
use quorate_store::Consistency;
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::errors;
use crate::pb::etcdserverpb::{self as pb, lease_server::Lease};
use crate::shared::Shared;

/// Minimum TTL in seconds; shorter ones are raised to it. Expiry is detected within half a second, and a lease should
/// outlive a change of the leader.
const MIN_TTL_SECONDS: i64 = 2;
/// Maximum TTL in seconds (etcd's limit).
const MAX_TTL_SECONDS: i64 = 9_000_000_000;

pub(crate) struct LeaseService(pub(crate) Shared);

impl Shared {
    /// Grants a lease. An id of 0 asks for a random one.
    pub(crate) async fn grant(&self, id: i64, ttl_seconds: i64) -> Result<pb::LeaseGrantResponse, Status> {
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(errors::LEASE_TTL_TOO_LARGE.into());
        }
        let ttl_seconds = ttl_seconds.max(MIN_TTL_SECONDS).cast_unsigned();
        loop {
            let chosen = if id == 0 { random_id() } else { id };
            let granted = self.propose(Command::LeaseGrant { id: LeaseId(chosen), ttl_seconds }).await;
            match granted {
                Ok((revision, _)) => {
                    return Ok(pb::LeaseGrantResponse {
                        header: Some(self.header(revision)),
                        id: chosen,
                        ttl: convert::wire(ttl_seconds),
                        error: String::new(),
                    });
                }
                // The random id exists already, so another one is tried.
                Err(refused) if id == 0 && refused.code() == tonic::Code::FailedPrecondition => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends a lease and deletes its keys, unless one of them is guarded.
    pub(crate) async fn revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, Status> {
        if let Some(lease) = self.store.lease_status(id, Consistency::Linearizable).await.map_err(errors::status)? {
            lease.keys.iter().try_for_each(|key| self.guard.check_key(key))?;
        }
        let (revision, _) = self.propose(Command::LeaseRevoke { id, generation: None }).await?;
        Ok(pb::LeaseRevokeResponse { header: Some(self.header(revision)) })
    }

    /// Keeps a lease alive. As in etcd, a missing lease is answered with a TTL of 0.
    async fn keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let reply = self.store.propose(Command::LeaseKeepAlive { id: LeaseId(id) }).await.map_err(errors::status)?;
        let ttl = match reply.outcome {
            Ok(Outcome::LeaseKeepAlive { ttl_seconds, .. }) => convert::wire(ttl_seconds),
            _ => 0,
        };
        Ok(pb::LeaseKeepAliveResponse { header: Some(self.header(reply.revision)), id, ttl })
    }
}

fn random_id() -> i64 {
    loop {
        let id = rand::random::<i64>() & i64::MAX;
        if id != 0 {
            return id;
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = crate::Outgoing<pb::LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        self.0.grant(request.id, request.ttl).await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.0.revoke(LeaseId(request.into_inner().id)).await.map(Response::new)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let answers = keep_alives(self.0.clone(), request.into_inner());
        Ok(Response::new(self.0.outgoing(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let lease = self.0.store.lease_status(LeaseId(request.id), Consistency::Linearizable);
        let lease = lease.await.map_err(errors::status)?;
        let mut response = pb::LeaseTimeToLiveResponse {
            header: Some(self.0.current_header()),
            id: request.id,
            ttl: -1,
            ..pb::LeaseTimeToLiveResponse::default()
        };
        if let Some(lease) = lease {
            response.ttl = convert::wire(lease.remaining.as_secs());
            response.granted_ttl = convert::wire(lease.ttl_seconds);
            if request.keys {
                response.keys = lease.keys;
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = self.0.store.leases(Consistency::Linearizable).await.map_err(errors::status)?;
        let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: Some(self.0.current_header()), leases }))
    }
}

/// Returns one response per request, in order. The stream ends with the first error.
fn keep_alives(
    shared: Shared,
    requests: Streaming<pb::LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> {
    futures::stream::unfold(Some((shared, requests)), async |running| {
        let (shared, mut requests) = running?;
        let answer = match requests.next().await? {
            Ok(request) => shared.keep_alive(request.id).await,
            Err(status) => Err(status),
        };
        let next = answer.is_ok().then_some((shared, requests));
        Some((answer, next))
    })
}
