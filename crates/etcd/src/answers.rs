//! How much of all answers may wait for their clients.
//!
//! A unary answer is put together in memory, and stays there until its client has read it. Of thousands that ask for much
//! and read slowly each would have one: beyond a common budget reads are refused. A large one at a time may go beside it,
//! so that a single answer may be as long as it likes. An answer gives back what it takes with its last byte: its room
//! goes along with the bytes, out of the handler and through the body into what HTTP/2 has yet to send.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use quorate_mvcc::{KeyValue, Op, OpResponse, Txn, TxnResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tonic::Status;
use tonic::body::Body;

use crate::errors::{self, Refusal};

/// Answers up to this size are free: the number of streams of a connection bounds them.
const FREE_BYTES: usize = 16 << 10;
/// Reads at a time of which nobody knows how much they will find.
const TURNS: usize = 4;

/// The budget.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Of answers to reads, in bytes.
    reads: Arc<Semaphore>,
    /// For the one that finds no room.
    alone: Arc<Semaphore>,
    /// Of answers to writes, in bytes. What is done cannot be refused any more: it takes what is left.
    writes: Arc<Semaphore>,
    /// What an answer has at least that goes alone.
    large_bytes: usize,
    /// Of reads of which nobody knows how much they will find.
    turns: Semaphore,
}

impl Answers {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Answers {
            reads: Arc::new(Semaphore::new(budget_bytes)),
            alone: Arc::new(Semaphore::new(1)),
            writes: Arc::new(Semaphore::new(budget_bytes)),
            large_bytes: budget_bytes / 4,
            turns: Semaphore::new(TURNS),
        }
    }

    /// For an answer that grows.
    pub(crate) fn share(&self) -> Share<'_> {
        Share { answers: self, size_bytes: 0, held: None, is_alone: false }
    }

    /// Takes room for an answer to a read; `None` when it needs none.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn hold(&self, size_bytes: usize) -> Result<Option<Held>, Refusal> {
        let mut share = self.share();
        share.grow(size_bytes)?;
        Ok(share.held())
    }

    /// Takes room for the answer to a transaction; only one that has changed nothing can still be refused.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn hold_txn(&self, response: &TxnResponse) -> Result<Option<Held>, Refusal> {
        let size_bytes = txn_weight(response);
        if size_bytes <= FREE_BYTES || is_read(response) {
            return self.hold(size_bytes);
        }
        loop {
            let left = size_bytes.min(self.writes.available_permits());
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            // Another may have been faster.
            if let Ok(permit) = self.writes.clone().try_acquire_many_owned(left) {
                return Ok(Some(Held::of(permit)));
            }
        }
    }

    /// Refuses a transaction whose answer might find no room when it is done.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn admit(&self, txn: &Txn) -> Result<(), Refusal> {
        let is_full = self.writes.available_permits() == 0;
        if is_full && has_values(txn) { Err(errors::TOO_MANY_REQUESTS) } else { Ok(()) }
    }

    /// The turn of a read of which nobody knows how much it will find.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }
}

/// An answer's part of the budget.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    answers: &'a Answers,
    size_bytes: usize,
    /// All of the size, once that is not free any more.
    held: Option<OwnedSemaphorePermit>,
    is_alone: bool,
}

impl Share<'_> {
    /// Takes room for more.
    ///
    /// # Errors
    /// When there is none. What has been taken is given back with the share.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.size_bytes += bytes;
        if self.is_alone || self.size_bytes <= FREE_BYTES {
            return Ok(());
        }
        let missing = self.size_bytes - self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let reads = &self.answers.reads;
        let more = u32::try_from(missing).ok().and_then(|missing| reads.clone().try_acquire_many_owned(missing).ok());
        if let Some(more) = more {
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
            return Ok(());
        }
        if self.size_bytes < self.answers.large_bytes {
            return Err(errors::TOO_MANY_REQUESTS);
        }
        let alone = self.answers.alone.clone().try_acquire_owned().map_err(|_| errors::TOO_MANY_REQUESTS)?;
        (self.held, self.is_alone) = (Some(alone), true);
        Ok(())
    }

    /// Gives everything back: the answer is begun again.
    pub(crate) fn reset(&mut self) {
        *self = self.answers.share();
    }

    /// What the answer takes along; `None` when it is free.
    pub(crate) fn held(self) -> Option<Held> {
        self.held.map(Held::of)
    }
}

/// Room that is held until the last of its clones goes.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Held {
    fn of(permit: OwnedSemaphorePermit) -> Self {
        Held { _permit: Arc::new(permit) }
    }

    /// Bytes that hold it.
    fn attach(&self, data: Bytes) -> Bytes {
        Bytes::from_owner(HeldBytes { data, _held: self.clone() })
    }
}

struct HeldBytes {
    data: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// An answer that takes its room along.
pub(crate) fn answer<T>(message: T, held: Option<Held>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    if let Some(held) = held {
        response.extensions_mut().insert(held);
    }
    response
}

/// Hands the room of an answer on to its bytes.
pub(crate) fn hand_on(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Held>() {
        Some(held) => response.map(|body| Body::new(HeldBody { body, held: Some(held) })),
        None => response,
    }
}

/// A body of which what has been sent on still holds the room: HTTP/2 takes it whole, long before the client does.
struct HeldBody {
    body: Body,
    /// Until the trailers: who has read those may ask again.
    held: Option<Held>,
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

/// What a version takes in an answer: its bytes, and what is around them.
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

/// Whether nothing was changed.
fn is_read(response: &TxnResponse) -> bool {
    response.responses.iter().all(|response| match response {
        OpResponse::Range(_) | OpResponse::Delete { deleted: 0, .. } => true,
        OpResponse::Put { .. } | OpResponse::Delete { .. } => false,
        OpResponse::Txn(response) => is_read(response),
    })
}

/// Whether the answer may have values in it.
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

    fn held(taken: Result<Option<Held>, Refusal>) -> Held {
        taken.expect("there is room").expect("it is not free")
    }

    #[test]
    fn reads_beyond_the_budget_are_refused_but_for_one() {
        let answers = Answers::new(BUDGET_BYTES);
        let first = held(answers.hold(5 * FREE_BYTES));
        assert!(answers.hold(FREE_BYTES).is_ok_and(|held| held.is_none()), "small ones are free");
        let _second = held(answers.hold(3 * FREE_BYTES));
        let third = held(answers.hold(100 * BUDGET_BYTES));
        assert_eq!(answers.hold(FREE_BYTES + 1).err(), Some(errors::TOO_MANY_REQUESTS));
        let clone = first.clone();
        drop(first);
        assert_eq!(answers.hold(100 * BUDGET_BYTES).err(), Some(errors::TOO_MANY_REQUESTS));
        drop(clone);
        let _fourth = held(answers.hold(5 * FREE_BYTES));
        drop(third);
        let _fifth = held(answers.hold(100 * BUDGET_BYTES));
    }

    #[test]
    fn a_share_grows_and_gives_back_what_it_has_when_it_goes_alone() {
        let answers = Answers::new(BUDGET_BYTES);
        let mut share = answers.share();
        for _ in 0..8 {
            share.grow(FREE_BYTES).expect("there is room");
        }
        assert_eq!(answers.reads.available_permits(), 0);
        share.grow(FREE_BYTES).expect("it goes alone");
        assert_eq!(answers.reads.available_permits(), BUDGET_BYTES);
        let mut other = answers.share();
        other.grow(BUDGET_BYTES).expect("there is room");
        other.grow(1).expect_err("another is alone");
        drop(other);
        drop(share.held());
        assert_eq!((answers.reads.available_permits(), answers.alone.available_permits()), (BUDGET_BYTES, 1));
    }

    #[test]
    fn what_is_written_is_answered_and_what_might_be_is_refused() {
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
    async fn room_is_held_until_the_last_byte_goes() {
        let answers = Answers::new(BUDGET_BYTES);
        let mut response = Response::new(Body::new(axum::body::Body::from(vec![1_u8; 100])));
        response.extensions_mut().insert(held(answers.hold(2 * FREE_BYTES)));
        let mut body = axum::body::Body::new(hand_on(response).into_body()).into_data_stream();
        let data = body.next().await.expect("data").expect("it is read");
        drop(body);
        let rest = data.slice(99..);
        drop(data);
        assert_eq!((answers.reads.available_permits(), &rest[..]), (6 * FREE_BYTES, &[1][..]));
        drop(rest);
        assert_eq!(answers.reads.available_permits(), 8 * FREE_BYTES);
    }
}
