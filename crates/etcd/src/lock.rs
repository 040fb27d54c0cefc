//! Locks. The first key in the queue of a name holds the lock until the key is deleted or its lease ends.

use bytes::Bytes;
use quorate_mvcc::{DeleteRequest, KeyRange, Op, Txn};
use tonic::{Request, Response, Status};

use crate::errors;
use crate::pb::v3lockpb::{self as pb, lock_server::Lock};
use crate::queue::Place;
use crate::shared::Shared;

pub(crate) struct LockService(pub(crate) Shared);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(errors::EMPTY_KEY.into());
        }
        let place = Place::take(&self.0, &request.name, request.lease, Bytes::new()).await?;
        let (revision, place) = place.wait().await?;
        Ok(Response::new(pb::LockResponse { header: Some(self.0.header(revision)), key: place.key.clone() }))
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Result<Response<pb::UnlockResponse>, Status> {
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(errors::EMPTY_KEY.into());
        }
        let delete = Op::Delete(DeleteRequest { range: KeyRange::key(key), prev_kv: false });
        let (revision, _) = self.0.txn(Txn { success: vec![delete], ..Txn::default() }).await?;
        Ok(Response::new(pb::UnlockResponse { header: Some(self.0.header(revision)) }))
    }
}
