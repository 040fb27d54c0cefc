//! Reads and writes of keys.

use quorate_api::Revision;
use quorate_mvcc::{Command, Op, OpResponse, ReadTxn, Txn, TxnResponse};
use quorate_store::{Consistency, HeldBudget};
use tonic::{Request, Response, Status};

use crate::answers::answer;
use crate::convert;
use crate::errors;
use crate::pb::etcdserverpb::{self as pb, kv_server::Kv, request_op};
use crate::range_stream;
use crate::shared::Shared;

pub(crate) struct KvService(pub(crate) Shared);

/// Maximum size of a write request, in bytes: etcd's default of `--max-request-bytes`.
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
        let (found, held) = self.0.range(convert::range(request)?, consistency).await?;
        Ok(answer(convert::range_response(self.0.header(found.revision), found), held))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        let consistency = if request.serializable { Consistency::Local } else { Consistency::Linearizable };
        let (parts, held) = range_stream::parts(&self.0, convert::range(request)?, consistency).await?;
        Ok(answer(self.0.outgoing(parts), held))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let put = Op::Put(convert::put(no_larger_than_etcd_takes(request.into_inner())?)?);
        match self.single(put).await? {
            (revision, OpResponse::Put { prev }, held) => {
                Ok(answer(convert::put_response(self.0.header(revision), prev), held))
            }
            (_, other, _) => Err(unexpected(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let delete = Op::Delete(convert::delete(no_larger_than_etcd_takes(request.into_inner())?)?);
        match self.single(delete).await? {
            (revision, OpResponse::Delete { deleted, prev }, held) => {
                Ok(answer(convert::delete_response(self.0.header(revision), deleted, prev), held))
            }
            (_, other, _) => Err(unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let request = no_larger_than_etcd_takes(request.into_inner())?;
        let is_serializable = is_serializable(&request);
        let txn = convert::txn(request)?;
        let (revision, response, held) = match ReadTxn::of(&txn) {
            Some(read) => self.read(&read, is_serializable).await?,
            None => self.commit(txn).await?,
        };
        Ok(answer(convert::txn_response(self.0.header(revision), response), held))
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

/// Whether every operation of a transaction is a serializable range, so that this member may answer from its own state.
/// A transaction without operations is not serializable.
fn is_serializable(request: &pb::TxnRequest) -> bool {
    let ops = || request.success.iter().chain(&request.failure);
    let is_serializable = |op: &pb::RequestOp| match &op.request {
        Some(request_op::Request::RequestRange(range)) => range.serializable,
        _ => false,
    };
    ops().next().is_some() && ops().all(is_serializable)
}

impl KvService {
    /// Answers a read-only transaction, without a log entry.
    async fn read(
        &self,
        txn: &ReadTxn,
        is_serializable: bool,
    ) -> Result<(Revision, TxnResponse, Option<HeldBudget>), Status> {
        let consistency = if is_serializable { Consistency::Local } else { Consistency::Linearizable };
        let source = self.0.source(consistency).await?;
        let mut reservation = source.answers.reservation();
        let (revision, response) = source.read_txn(txn, &mut reservation).await?;
        Ok((revision, response, reservation.into_held()))
    }

    /// Commits a transaction and reserves budget for its response.
    async fn commit(&self, txn: Txn) -> Result<(Revision, TxnResponse, Option<HeldBudget>), Status> {
        self.0.answers.admit(&txn)?;
        let (revision, response) = self.0.txn(txn).await?;
        let held = self.0.answers.hold_txn(&response)?;
        Ok((revision, response, held))
    }

    async fn single(&self, op: Op) -> Result<(Revision, OpResponse, Option<HeldBudget>), Status> {
        let (revision, mut response, held) = self.commit(Txn { success: vec![op], ..Txn::default() }).await?;
        match response.responses.pop() {
            Some(answer) => Ok((revision, answer, held)),
            None => Err(Status::internal("an operation was not answered")),
        }
    }
}

fn unexpected(answer: &OpResponse) -> Status {
    Status::internal(format!("an operation was answered with {answer:?}"))
}
