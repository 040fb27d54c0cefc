//! Memory budget of the responses that wait for their clients.
//!
//! A unary response is built in memory and stays there until its client has read it. Thousands of slow clients with
//! large responses would exhaust the memory, so reads beyond a common budget are refused. One large response at a time
//! may exceed the budget, so that a single response can have any size. A response releases its reservation with its
//! last byte: the reservation moves with the bytes from the handler through the body into the send buffer of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use quorate_mvcc::{KeyValue, Op, OpResponse, Txn, TxnResponse};
use quorate_store::{ByteBudget, HeldBudget, Reservation};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;
use tonic::body::Body;

use crate::errors::{self, Refusal};

/// Maximum size of a response that needs no reservation. The number of streams per connection bounds these.
const FREE_BYTES: usize = 16 << 10;
/// Maximum number of concurrent reads whose response size is not known in advance.
const TURNS: usize = 4;

/// The budget for responses.
#[derive(Debug)]
pub(crate) struct Answers {
    reads: ByteBudget,
    /// A committed write must be answered, so its response takes whatever is left.
    writes: ByteBudget,
    /// Permits for reads whose response size is not known in advance.
    turns: Semaphore,
}

impl Answers {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Answers {
            reads: ByteBudget::new(budget_bytes, FREE_BYTES).exceeded_by_one(budget_bytes / 4),
            writes: ByteBudget::new(budget_bytes, FREE_BYTES),
            turns: Semaphore::new(TURNS),
        }
    }

    /// Starts a reservation for a response that grows.
    pub(crate) fn reservation(&self) -> Reservation {
        self.reads.reservation()
    }

    /// Reserves budget for the response to a read. Returns `None` when the response needs no reservation.
    ///
    /// # Errors
    /// When the budget is exhausted.
    pub(crate) fn hold(&self, size_bytes: usize) -> Result<Option<HeldBudget>, Refusal> {
        Ok(self.reads.hold(size_bytes)?)
    }

    /// Reserves budget for the response to an applied transaction, which is refused only if it changed nothing.
    ///
    /// # Errors
    /// When the budget is exhausted.
    pub(crate) fn hold_txn(&self, response: &TxnResponse) -> Result<Option<HeldBudget>, Refusal> {
        let size_bytes = txn_weight(response);
        if is_read(response) { self.hold(size_bytes) } else { Ok(self.writes.hold_remainder(size_bytes)) }
    }

    /// Refuses a transaction whose response may have values, while no budget for writes is left.
    ///
    /// # Errors
    /// When the budget is exhausted.
    pub(crate) fn admit(&self, txn: &Txn) -> Result<(), Refusal> {
        let is_full = self.writes.available_bytes() == 0;
        if is_full && has_values(txn) { Err(errors::TOO_MANY_REQUESTS) } else { Ok(()) }
    }

    /// Waits for the turn of a read whose response size is not known in advance.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // This semaphore is never closed, so this is never `None`.
        self.turns.acquire().await.ok()
    }
}

/// Builds a response that carries its reservation.
pub(crate) fn answer<T>(message: T, held: Option<HeldBudget>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    if let Some(held) = held {
        response.extensions_mut().insert(held);
    }
    response
}

/// Moves the reservation of a response to its body.
pub(crate) fn attach_to_body(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<HeldBudget>() {
        Some(held) => response.map(|body| Body::new(HeldBody { body, held: Some(held) })),
        None => response,
    }
}

/// A body whose frames keep the reservation alive after they leave it. HTTP/2 buffers the whole body long before the
/// client reads it.
struct HeldBody {
    body: Body,
    /// Released before the trailers, so that a client that has read them can send its next request.
    held: Option<HeldBudget>,
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => {
                self.held = None;
                return Poll::Ready(end);
            }
        };
        let frame = match frame.into_data() {
            Ok(data) => Frame::data(match &self.held {
                Some(held) => held.attach(data),
                None => data,
            }),
            Err(trailers) => {
                self.held = None;
                trailers
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Approximate size of a version in a response, in bytes: key, value and overhead.
pub(crate) fn weight(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len() + size_of::<KeyValue>()
}

pub(crate) fn weight_of(kvs: &[KeyValue]) -> usize {
    kvs.iter().map(weight).sum()
}

fn txn_weight(response: &TxnResponse) -> usize {
    let of = |response: &OpResponse| match response {
        OpResponse::Range(found) => weight_of(&found.kvs),
        OpResponse::Put { prev } => prev.as_ref().map_or(0, weight),
        OpResponse::Delete { prev, .. } => weight_of(prev),
        OpResponse::Txn(response) => txn_weight(response),
    };
    response.responses.iter().map(of).sum()
}

/// Whether the transaction changed nothing.
fn is_read(response: &TxnResponse) -> bool {
    response.responses.iter().all(|response| match response {
        OpResponse::Range(_) | OpResponse::Delete { deleted: 0, .. } => true,
        OpResponse::Put { .. } | OpResponse::Delete { .. } => false,
        OpResponse::Txn(response) => is_read(response),
    })
}

/// Whether the response may contain values.
fn has_values(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(request) => !request.count_only,
        Op::Put(put) => put.prev_kv,
        Op::Delete(delete) => delete.prev_kv,
        Op::Txn(txn) => has_values(txn),
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use quorate_mvcc::{KeyRange, PutRequest, RangeRequest, RangeResponse};

    use super::*;

    const BUDGET_BYTES: usize = 8 * FREE_BYTES;

    fn held(taken: Result<Option<HeldBudget>, Refusal>) -> HeldBudget {
        taken.expect("budget is left").expect("a reservation is needed")
    }

    #[test]
    fn committed_writes_are_answered_and_new_ones_refused_without_budget() {
        let answers = Answers::new(BUDGET_BYTES);
        let kv = |size_bytes| KeyValue { value: vec![0_u8; size_bytes].into(), ..KeyValue::default() };
        let range =
            |size_bytes| OpResponse::Range(RangeResponse { kvs: vec![kv(size_bytes)], ..RangeResponse::default() });
        let response = |responses| TxnResponse { succeeded: true, responses };
        let written = |size_bytes| response(vec![OpResponse::Put { prev: Some(kv(size_bytes)) }]);
        let read = |size_bytes| response(vec![OpResponse::Txn(response(vec![range(size_bytes)]))]);
        assert!(answers.hold_txn(&written(1)).is_ok_and(|held| held.is_none()));
        let put = |prev_kv| Txn {
            success: vec![Op::Put(PutRequest { key: "a".into(), prev_kv, ..PutRequest::default() })],
            ..Txn::default()
        };
        let get = Op::Range(RangeRequest::new(KeyRange::key("a")));
        let get = Op::Txn(Box::new(Txn { success: vec![get], ..Txn::default() }));
        let get = Txn { failure: vec![get], ..put(false) };
        let _held = [held(answers.hold_txn(&written(5 * FREE_BYTES))), held(answers.hold_txn(&written(1 << 20)))];
        for (txn, is_admitted) in [(put(false), true), (put(true), false), (get, false)] {
            assert_eq!(answers.admit(&txn).is_ok(), is_admitted, "{txn:?}");
        }
        held(answers.hold_txn(&written(1 << 20)));
        let _read = [held(answers.hold_txn(&read(BUDGET_BYTES / 2))), held(answers.hold_txn(&read(1 << 20)))];
        assert_eq!(answers.hold_txn(&read(1 << 20)).err(), Some(errors::TOO_MANY_REQUESTS));
    }

    #[tokio::test]
    async fn a_reservation_is_held_until_the_last_byte_is_dropped() {
        let answers = Answers::new(BUDGET_BYTES);
        let mut response = Response::new(Body::new(axum::body::Body::from(vec![1_u8; 100])));
        response.extensions_mut().insert(held(answers.hold(2 * FREE_BYTES)));
        let mut body = axum::body::Body::new(attach_to_body(response).into_body()).into_data_stream();
        let data = body.next().await.expect("data").expect("it is read");
        drop(body);
        let rest = data.slice(99..);
        drop(data);
        assert_eq!((answers.reads.available_bytes(), &rest[..]), (6 * FREE_BYTES, &[1][..]));
        drop(rest);
        assert_eq!(answers.reads.available_bytes(), 8 * FREE_BYTES);
    }
}
