//! The members of the quorum, and membership changes.
//!
//! Changes take the same path as those of `qctl quorum`. Two facts have no place in etcd's responses: a new member
//! joins with `quorate server --join CLUSTER.ID@PEERS`, where its id is the token's secret; and a member gains or loses
//! its vote only when the number of voters can be odd afterwards.

use quorate_store::{Addresses, Change, Changed, Invite, Member, MemberName};
use tonic::{Request, Response, Status};

use crate::errors;
use crate::pb::etcdserverpb::{self as pb, cluster_server::Cluster};
use crate::shared::Shared;

pub(crate) struct ClusterService(pub(crate) Shared);

impl ClusterService {
    /// Returns all members. As in etcd, an invited member that has not joined yet has no name.
    async fn members(&self) -> Result<Vec<pb::Member>, Status> {
        let quorum = self.0.store.quorum_status().await.map_err(errors::status)?;
        let members = quorum.members.into_iter().map(|status| member(status.member, !status.voter));
        let invited = quorum.invited.into_iter().map(|invited| member(Member { name: String::new(), ..invited }, true));
        Ok(members.chain(invited).collect())
    }

    async fn change(&self, change: Change) -> Result<(Changed, Vec<pb::Member>), Status> {
        let changed = self.0.store.change(change).await.map_err(errors::change)?;
        if let Some(waits) = &changed.waits {
            tracing::info!(waits, "a membership change through the etcd API is pending");
        }
        // The change may not be applied on this member yet.
        self.0.store.read_barrier().await.map_err(errors::status)?;
        Ok((changed, self.members().await?))
    }
}

fn member(member: Member, is_learner: bool) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: vec![format!("https://{}", member.peer)],
        client_ur_ls: Some(member.etcd).filter(|url| !url.is_empty()).into_iter().collect(),
        is_learner,
    }
}

/// Parses the peer URL of a request. A member has exactly one.
fn peer(urls: &[String]) -> Result<String, Status> {
    let [url] = urls else { return Err(errors::MEMBER_BAD_URLS.into()) };
    let address = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    address.map(|address| address.trim_end_matches('/').to_owned()).ok_or_else(|| errors::MEMBER_BAD_URLS.into())
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

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let invite = Invite {
            peer: peer(&request.peer_ur_ls)?,
            learner: request.is_learner,
            token_is_id: true,
            ..Invite::default()
        };
        let (changed, members) = self.change(Change::Invite(invite)).await?;
        let header = Some(self.0.current_header());
        // A new member has no vote yet, even if the request asked for a voter.
        let added = member(changed.member, true);
        Ok(Response::new(pb::MemberAddResponse { header, member: Some(added), members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = request.into_inner().id;
        let (_, members) = self.change(Change::Remove { member: MemberName::Id(id) }).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: Some(self.0.current_header()), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let addresses = Addresses { peer: Some(peer(&request.peer_ur_ls)?), ..Addresses::default() };
        let (_, members) = self.change(Change::Update { member: MemberName::Id(request.id), addresses }).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: Some(self.0.current_header()), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = request.into_inner().id;
        let (_, members) = self.change(Change::Promote { member: MemberName::Id(id) }).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: Some(self.0.current_header()), members }))
    }
}
