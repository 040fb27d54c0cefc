//! Reads and writes of keys.

use quorate_api::Revision;
use quorate_mvcc::{Command, Op, OpResponse, Txn};
use quorate_store::Consistency;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::errors;
use crate::pb::etcdserverpb::{self as pb, kv_server::Kv};
use crate::range_stream;
use crate::shared::Shared;

pub(crate) struct KvService(pub(crate) Shared);

/// As etcd's default of `--max-request-bytes`.
const MAX_WRITE_BYTES: usize = 3 << 19;

fn no_larger_than_etcd_takes<M: prost::Message>(write: M) -> Result<M, Status> {
    if write.encoded_len() > MAX_WRITE_BYTES { Err(errors::REQUEST_TOO_LARGE.into()) } else { Ok(write) }
}

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream = crate::Outgoing<pb::RangeStreamResponse>;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        let consistency = if request.serializable { Consistency::Local } else { Consistency::Linearizable };
        let found = self.0.range(convert::range(request)?, consistency).await?;
        Ok(Response::new(convert::range_response(self.0.header(found.revision), found)))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        let consistency = if request.serializable { Consistency::Local } else { Consistency::Linearizable };
        let parts = range_stream::parts(&self.0, convert::range(request)?, consistency).await?;
        Ok(Response::new(self.0.outgoing(parts)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let put = Op::Put(convert::put(no_larger_than_etcd_takes(request.into_inner())?)?);
        match self.single(put).await? {
            (revision, OpResponse::Put { prev }) => {
                Ok(Response::new(convert::put_response(self.0.header(revision), prev)))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let delete = Op::Delete(convert::delete(no_larger_than_etcd_takes(request.into_inner())?)?);
        match self.single(delete).await? {
            (revision, OpResponse::Delete { deleted, prev }) => {
                Ok(Response::new(convert::delete_response(self.0.header(revision), deleted, prev)))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let (revision, response) = self.0.txn(convert::txn(no_larger_than_etcd_takes(request.into_inner())?)?).await?;
        Ok(Response::new(convert::txn_response(self.0.header(revision), response)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let request = request.into_inner();
        let command = Command::Compact { revision: convert::revision(request.revision) };
        let (revision, _) = self.0.propose(command).await?;
        if request.physical {
            self.0.store.compaction_settled().await.map_err(crate::errors::status)?;
        }
        Ok(Response::new(pb::CompactionResponse { header: Some(self.0.header(revision)) }))
    }
}

impl KvService {
    async fn single(&self, op: Op) -> Result<(Revision, OpResponse), Status> {
        let (revision, mut response) = self.0.txn(Txn { success: vec![op], ..Txn::default() }).await?;
        match response.responses.pop() {
            Some(answer) => Ok((revision, answer)),
            None => Err(Status::internal("an operation was not answered")),
        }
    }
}

fn unexpected(answer: &(Revision, OpResponse)) -> Status {
    Status::internal(format!("an operation was answered with {:?}", answer.1))
}
