//! Who is in the quorum.

use quorate_store::MemberRole;
use tonic::{Request, Response, Status};

use crate::errors;
use crate::pb::etcdserverpb::{self as pb, cluster_server::Cluster};
use crate::shared::Shared;

pub(crate) struct ClusterService(pub(crate) Shared);

impl ClusterService {
    async fn members(&self) -> Result<Vec<pb::Member>, Status> {
        let quorum = self.0.store.quorum_status().await.map_err(errors::status)?;
        let members = quorum.members.into_iter().map(|status| pb::Member {
            id: status.member.id,
            name: status.member.name,
            peer_ur_ls: vec![format!("https://{}", status.member.peer)],
            client_ur_ls: Some(status.member.etcd).filter(|url| !url.is_empty()).into_iter().collect(),
            is_learner: status.role == MemberRole::Learner,
        });
        Ok(members.collect())
    }
}

/// Why the quorum cannot be changed here yet.
fn fixed() -> Status {
    Status::unimplemented("the members of this quorum are those that it was formed with")
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.store.read_barrier().await.map_err(errors::status)?;
        }
        let members = self.members().await?;
        Ok(Response::new(pb::MemberListResponse { header: Some(self.0.current_header()), members }))
    }

    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(fixed())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(fixed())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(fixed())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(fixed())
    }
}
