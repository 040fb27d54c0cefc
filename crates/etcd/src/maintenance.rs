//! The maintenance service: status, alarms, hashes, snapshots and leadership transfer.

use std::time::Duration;

use futures::StreamExt;
use quorate_api::Revision;
use quorate_store::{MemberRole, MemberStatus, QuorumStatus};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::alarms;
use crate::convert;
use crate::errors;
use crate::pb::etcdserverpb::{self as pb, maintenance_server::Maintenance};
use crate::shared::Shared;

/// Version of the etcd API that is served.
pub(crate) const VERSION: &str = "3.5.0";
/// Maximum time to wait for a leadership transfer.
const TRANSFER_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct MaintenanceService(pub(crate) Shared);

impl MaintenanceService {
    async fn quorum(&self) -> Result<QuorumStatus, Status> {
        self.0.store.quorum_status().await.map_err(errors::status)
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = crate::Outgoing<pb::SnapshotResponse>;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let raised = alarms::raised(&self.quorum().await?);
        let alarms = alarms::answer(&request.into_inner(), raised)?;
        Ok(Response::new(pb::AlarmResponse { header: Some(self.0.current_header()), alarms }))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let quorum = self.quorum().await?;
        let mut problems: Vec<String> = alarms::raised(&quorum).iter().map(alarms::text).collect();
        let own = quorum.members.into_iter().find(|status| status.member.id == self.0.member_id());
        let own = own.ok_or(errors::MEMBER_NOT_FOUND)?;
        let leader = self.0.leadership().borrow().leader.as_ref().map_or(0, |leader| leader.id);
        if leader == 0 {
            problems.insert(0, errors::NO_LEADER.message().to_owned());
        }
        let size = convert::wire(own.database_size_bytes);
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.0.current_header()),
            version: VERSION.to_owned(),
            db_size: size,
            db_size_in_use: size,
            leader,
            raft_index: own.last_log_index,
            raft_term: own.term,
            raft_applied_index: own.applied_index,
            errors: problems,
            is_learner: own.role == MemberRole::Learner,
        }))
    }

    /// Does nothing, because the tables are compacted continuously.
    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Result<Response<pb::DefragmentResponse>, Status> {
        Ok(Response::new(pb::DefragmentResponse { header: Some(self.0.current_header()) }))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let state = self.0.store.hash_at(Revision::ZERO).await.map_err(errors::status)?;
        Ok(Response::new(pb::HashResponse { header: Some(self.0.header(state.revision)), hash: fold(state.hash) }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let at = convert::revision(request.into_inner().revision);
        let state = self.0.store.hash_at(at).await.map_err(errors::status)?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.0.current_header()),
            hash: fold(state.hash),
            compact_revision: convert::wire(state.compacted.0),
            hash_revision: convert::wire(state.revision.0),
        }))
    }

    /// Streams a backup for `quorate restore`.
    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let backup = self.0.store.backup().await.map_err(errors::status)?;
        let header = self.0.header(backup.revision());
        let mut remaining = backup.size_bytes();
        let chunks = ReceiverStream::new(backup.into_chunks()).map(move |chunk| {
            let blob = chunk.map_err(|error| Status::internal(error.to_string()))?;
            remaining = remaining.saturating_sub(blob.len() as u64);
            let version = VERSION.to_owned();
            Ok(pb::SnapshotResponse { header: Some(header), remaining_bytes: remaining, blob, version })
        });
        Ok(Response::new(self.0.outgoing(chunks)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        let mut leadership = self.0.leadership();
        if leadership.borrow().leader.as_ref().map(|leader| leader.id) != Some(self.0.member_id()) {
            return Err(errors::NOT_LEADER.into());
        }
        let quorum = self.quorum().await?;
        let is_heir = |member: &MemberStatus| member.member.id == target && member.role == MemberRole::Follower;
        if target != self.0.member_id() && !quorum.members.iter().any(is_heir) {
            return Err(errors::BAD_LEADER_TRANSFEREE.into());
        }
        self.0.store.transfer_leadership(target).await.map_err(errors::status)?;
        let moved = leadership.wait_for(|known| known.leader.as_ref().is_some_and(|leader| leader.id == target));
        match tokio::time::timeout(TRANSFER_WITHIN, moved).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(errors::STOPPED.into()),
            Err(_) => return Err(errors::TIMEOUT.into()),
        }
        Ok(Response::new(pb::MoveLeaderResponse { header: Some(self.0.current_header()) }))
    }
}

/// Folds a hash to the 32 bits of etcd's hashes.
fn fold(hash: u64) -> u32 {
    let [low, high] = [hash & u64::from(u32::MAX), hash >> 32];
    u32::try_from(low ^ high).unwrap_or(u32::MAX)
}
