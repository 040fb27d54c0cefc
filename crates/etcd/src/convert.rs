//! Conversion between etcd's messages and the store's commands. Invalid requests get etcd's errors.

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    self as mvcc, Compare, CompareOperator, CompareTarget, DeleteRequest, Event, KeyRange, KeyValue, LeaseId, Op,
    OpResponse, PutRequest, RangeRequest, RangeResponse, Sort, SortTarget, Txn, TxnResponse,
};

use crate::errors::{self, Refusal};
use crate::pb::etcdserverpb::{self as pb, ResponseHeader, request_op, response_op};
use crate::pb::mvccpb;

/// Maximum number of comparisons or operations in one list of a transaction (etcd's default).
const MAX_OPS: usize = 128;
/// Maximum nesting of transactions, which are converted and checked recursively.
const MAX_DEPTH: usize = 16;

pub(crate) fn revision(wire: i64) -> Revision {
    Revision(u64::try_from(wire).unwrap_or(0))
}

pub(crate) fn wire(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The key range of a request. An empty `end` means the single key, and an `end` of one zero byte means every key from
/// `key` on.
pub(crate) fn key_range(key: Bytes, end: Bytes) -> Result<KeyRange, Refusal> {
    match &end[..] {
        _ if key.is_empty() => Err(errors::EMPTY_KEY),
        [] => Ok(KeyRange::key(key)),
        [0] => Ok(KeyRange::from(key)),
        _ => Ok(KeyRange { start: key, end: Some(end) }),
    }
}

pub(crate) fn range(request: pb::RangeRequest) -> Result<RangeRequest, Refusal> {
    let order = pb::range_request::SortOrder::try_from(request.sort_order).map_err(|_| errors::INVALID_SORT)?;
    let target = pb::range_request::SortTarget::try_from(request.sort_target).map_err(|_| errors::INVALID_SORT)?;
    let by = match target {
        pb::range_request::SortTarget::Key => SortTarget::Key,
        pb::range_request::SortTarget::Version => SortTarget::Version,
        pb::range_request::SortTarget::Create => SortTarget::CreateRevision,
        pb::range_request::SortTarget::Mod => SortTarget::ModRevision,
        pb::range_request::SortTarget::Value => SortTarget::Value,
    };
    let sort = match (order, by) {
        // Ranges are in key order already.
        (pb::range_request::SortOrder::None | pb::range_request::SortOrder::Ascend, SortTarget::Key) => None,
        (order, by) => Some(Sort { by, descending: order == pb::range_request::SortOrder::Descend }),
    };
    Ok(RangeRequest {
        range: key_range(request.key, request.range_end)?,
        revision: revision(request.revision),
        limit: u64::try_from(request.limit).unwrap_or(0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        sort,
        min_mod_revision: revision(request.min_mod_revision),
        max_mod_revision: revision(request.max_mod_revision),
        min_create_revision: revision(request.min_create_revision),
        max_create_revision: revision(request.max_create_revision),
    })
}

pub(crate) fn put(request: pb::PutRequest) -> Result<PutRequest, Refusal> {
    if request.key.is_empty() {
        return Err(errors::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(errors::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(errors::LEASE_PROVIDED);
    }
    Ok(PutRequest {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    })
}

pub(crate) fn delete(request: pb::DeleteRangeRequest) -> Result<DeleteRequest, Refusal> {
    Ok(DeleteRequest { range: key_range(request.key, request.range_end)?, prev_kv: request.prev_kv })
}

pub(crate) fn txn(request: pb::TxnRequest) -> Result<Txn, Refusal> {
    nested_txn(request, MAX_DEPTH)
}

fn nested_txn(request: pb::TxnRequest, depth: usize) -> Result<Txn, Refusal> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > MAX_OPS || depth == 0 {
        return Err(errors::TOO_MANY_OPS);
    }
    let op = |op: pb::RequestOp| self::op(op.request.ok_or(errors::KEY_NOT_FOUND)?, depth);
    let ops = |ops: Vec<pb::RequestOp>| ops.into_iter().map(op);
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: ops(request.success).collect::<Result<_, _>>()?,
        failure: ops(request.failure).collect::<Result<_, _>>()?,
    })
}

fn op(op: request_op::Request, depth: usize) -> Result<Op, Refusal> {
    Ok(match op {
        request_op::Request::RequestRange(request) => Op::Range(range(request)?),
        request_op::Request::RequestPut(request) => Op::Put(put(request)?),
        request_op::Request::RequestDeleteRange(request) => Op::Delete(delete(request)?),
        request_op::Request::RequestTxn(request) => Op::Txn(Box::new(nested_txn(request, depth - 1)?)),
    })
}

fn compare(compare: pb::Compare) -> Result<Compare, Refusal> {
    use pb::compare::TargetUnion;
    let operator = match compare.result() {
        pb::compare::CompareResult::Equal => CompareOperator::Equal,
        pb::compare::CompareResult::Greater => CompareOperator::Greater,
        pb::compare::CompareResult::Less => CompareOperator::Less,
        pb::compare::CompareResult::NotEqual => CompareOperator::NotEqual,
    };
    let version = |version: i64| u64::try_from(version).unwrap_or(0);
    // The message names its target twice. A value of another kind than `target` counts as zero.
    let target = match (compare.target(), compare.target_union) {
        (pb::compare::CompareTarget::Version, Some(TargetUnion::Version(v))) => CompareTarget::Version(version(v)),
        (pb::compare::CompareTarget::Version, _) => CompareTarget::Version(0),
        (pb::compare::CompareTarget::Create, Some(TargetUnion::CreateRevision(r))) => {
            CompareTarget::CreateRevision(revision(r))
        }
        (pb::compare::CompareTarget::Create, _) => CompareTarget::CreateRevision(Revision::ZERO),
        (pb::compare::CompareTarget::Mod, Some(TargetUnion::ModRevision(r))) => CompareTarget::ModRevision(revision(r)),
        (pb::compare::CompareTarget::Mod, _) => CompareTarget::ModRevision(Revision::ZERO),
        (pb::compare::CompareTarget::Value, Some(TargetUnion::Value(value))) => CompareTarget::Value(value),
        (pb::compare::CompareTarget::Value, _) => CompareTarget::Value(Bytes::new()),
        (pb::compare::CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => CompareTarget::Lease(LeaseId(lease)),
        (pb::compare::CompareTarget::Lease, _) => CompareTarget::Lease(LeaseId::NONE),
    };
    Ok(Compare { range: key_range(compare.key, compare.range_end)?, target, operator })
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: wire(kv.create_revision.0),
        mod_revision: wire(kv.mod_revision.0),
        version: wire(kv.version),
        value: kv.value,
        lease: kv.lease.0,
    }
}

pub(crate) fn event(event: &Event, with_prev: bool) -> mvccpb::Event {
    let kind = match event {
        Event::Put { .. } => mvccpb::event::EventType::Put,
        Event::Delete { .. } => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv().clone())),
        prev_kv: event.prev().filter(|_| with_prev).cloned().map(key_value),
    }
}

pub(crate) fn range_response(header: ResponseHeader, response: RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: wire(response.count),
    }
}

/// The response to a transaction. As in etcd, the headers of its operations have only the revision.
pub(crate) fn txn_response(header: ResponseHeader, response: mvcc::TxnResponse) -> pb::TxnResponse {
    let inner = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
    let TxnResponse { succeeded, responses } = response;
    let responses = responses.into_iter().map(|op| pb::ResponseOp { response: Some(op_response(inner, op)) });
    pb::TxnResponse { header: Some(header), succeeded, responses: responses.collect() }
}

fn op_response(header: ResponseHeader, response: OpResponse) -> response_op::Response {
    match response {
        OpResponse::Range(response) => response_op::Response::ResponseRange(range_response(header, response)),
        OpResponse::Put { prev } => response_op::Response::ResponsePut(put_response(header, prev)),
        OpResponse::Delete { deleted, prev } => {
            response_op::Response::ResponseDeleteRange(delete_response(header, deleted, prev))
        }
        OpResponse::Txn(response) => response_op::Response::ResponseTxn(txn_response(header, response)),
    }
}

pub(crate) fn put_response(header: ResponseHeader, prev: Option<KeyValue>) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: prev.map(key_value) }
}

pub(crate) fn delete_response(header: ResponseHeader, deleted: u64, prev: Vec<KeyValue>) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: wire(deleted),
        prev_kvs: prev.into_iter().map(key_value).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_ranges() {
        let range =
            |key: &'static [u8], end: &'static [u8]| key_range(Bytes::from_static(key), Bytes::from_static(end));
        assert_eq!(range(b"a", b""), Ok(KeyRange::key("a")));
        assert_eq!(range(b"a", b"\0"), Ok(KeyRange::from("a")));
        assert_eq!(range(b"a", b"c").map(|r| r.end), Ok(Some(Bytes::from_static(b"c"))));
        assert_eq!(range(b"", b"c"), Err(errors::EMPTY_KEY));
    }

    #[test]
    fn oversized_transactions_are_refused() {
        let mut request = pb::TxnRequest::default();
        for _ in 0..=MAX_DEPTH {
            let inner = request_op::Request::RequestTxn(request);
            request = pb::TxnRequest { success: vec![pb::RequestOp { request: Some(inner) }], ..Default::default() };
        }
        assert_eq!(txn(request), Err(errors::TOO_MANY_OPS));
        let many = vec![pb::Compare { key: "a".into(), ..Default::default() }; MAX_OPS + 1];
        assert_eq!(txn(pb::TxnRequest { compare: many, ..Default::default() }), Err(errors::TOO_MANY_OPS));
        let empty = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
        assert_eq!(txn(empty), Err(errors::KEY_NOT_FOUND), "etcd's error for an empty operation");
    }

    #[test]
    fn a_sort_target_other_than_the_key_sorts_even_without_an_order() {
        let request = |order, target| pb::RangeRequest {
            key: "a".into(),
            sort_order: order,
            sort_target: target,
            ..Default::default()
        };
        assert_eq!(range(request(0, 0)).map(|r| r.sort), Ok(None));
        let by_mod = Sort { by: SortTarget::ModRevision, descending: false };
        assert_eq!(range(request(0, 3)).map(|r| r.sort), Ok(Some(by_mod)));
        assert_eq!(range(request(2, 3)).map(|r| r.sort), Ok(Some(Sort { descending: true, ..by_mod })));
        assert_eq!(range(request(0, 9)), Err(errors::INVALID_SORT));
    }
}
