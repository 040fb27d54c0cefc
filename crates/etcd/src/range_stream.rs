//! A range in parts, each read when those before it have been taken: what is long costs neither side much memory.

use std::iter::Peekable;
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use quorate_mvcc::{KeyValue, RangeRequest};
use quorate_store::Consistency;
use tonic::Status;

use crate::convert;
use crate::pb::etcdserverpb::{self as pb, ResponseHeader};
use crate::shared::Shared;

/// A part's size, give or take a key: clients take messages of a few MiB.
const PART_BYTES: usize = 1 << 20;
/// Keys that are read first, before it is known how large they are, and at most at a time.
const FIRST_KEYS: u64 = 100;
const MAX_KEYS: u64 = 10_000;

/// The parts of an answer to a range: keys in each, and all else in the last, as etcd has it.
///
/// # Errors
/// Those of a range. Later ones end the stream.
pub(crate) async fn parts(
    shared: &Shared,
    mut request: RangeRequest,
    consistency: Consistency,
) -> Result<impl Stream<Item = Result<pb::RangeStreamResponse, Status>> + use<>, Status> {
    let parts = if is_in_order(&request) {
        // What the whole is like, and of which revision; the keys come later.
        let whole = shared.range(RangeRequest { count_only: true, ..request.clone() }, consistency).await?;
        if request.revision.is_zero() {
            request.revision = whole.revision;
        }
        let left = if request.limit == 0 { whole.count } else { request.limit.min(whole.count) };
        Parts {
            header: shared.header(whole.revision),
            count: whole.count,
            more: left < whole.count,
            read: Vec::new().into_iter().peekable(),
            unread: Some(Unread { shared: shared.clone(), request, left, at_once: FIRST_KEYS }),
        }
    } else {
        // Nobody knows the first before all have been seen.
        let found = shared.range(request, consistency).await?;
        Parts {
            header: shared.header(found.revision),
            count: found.count,
            more: found.more,
            read: found.kvs.into_iter().peekable(),
            unread: None,
        }
    };
    Ok(futures::stream::unfold(Some(parts), |parts| std::future::ready(step(parts))))
}

/// The next answer, and what comes after it; the last and a failure are the end.
fn step(parts: Option<Parts>) -> Option<(Result<pb::RangeStreamResponse, Status>, Option<Parts>)> {
    let mut parts = parts?;
    match parts.next() {
        Ok((part, is_last)) => {
            Some((Ok(pb::RangeStreamResponse { range_response: Some(part) }), (!is_last).then_some(parts)))
        }
        Err(status) => Some((Err(status), None)),
    }
}

/// Whether the keys come in the order in which they are stored, and all of them.
fn is_in_order(request: &RangeRequest) -> bool {
    let bounds =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    request.sort.is_none() && !request.count_only && bounds.iter().all(|bound| bound.is_zero())
}

struct Parts {
    header: ResponseHeader,
    count: u64,
    more: bool,
    read: Peekable<vec::IntoIter<KeyValue>>,
    unread: Option<Unread>,
}

/// What is still to be read, at the revision of the first part.
struct Unread {
    shared: Shared,
    request: RangeRequest,
    left: u64,
    at_once: u64,
}

impl Parts {
    /// The next part, and whether it is the last.
    fn next(&mut self) -> Result<(pb::RangeResponse, bool), Status> {
        if self.read.peek().is_none()
            && let Some(unread) = &mut self.unread
        {
            self.read = unread.next()?.into_iter().peekable();
        }
        let (mut kvs, mut size_bytes) = (Vec::new(), 0);
        while size_bytes < PART_BYTES
            && let Some(kv) = self.read.next()
        {
            size_bytes += size_of(&kv);
            kvs.push(convert::key_value(kv));
        }
        let is_last = self.read.peek().is_none() && self.unread.as_ref().is_none_or(|unread| unread.left == 0);
        let mut part = pb::RangeResponse { kvs, ..pb::RangeResponse::default() };
        if is_last {
            (part.header, part.count, part.more) = (Some(self.header), convert::wire(self.count), self.more);
        }
        Ok((part, is_last))
    }
}

impl Unread {
    fn next(&mut self) -> Result<Vec<KeyValue>, Status> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let next = RangeRequest { limit: self.left.min(self.at_once), ..self.request.clone() };
        let kvs = self.shared.read_here(&next)?.kvs;
        // The revision stands still: as many keys are there as were counted.
        self.left = if kvs.is_empty() { 0 } else { self.left.saturating_sub(kvs.len() as u64) };
        if let Some(last) = kvs.last() {
            self.request.range.start = after(&last.key);
            let average = kvs.iter().map(size_of).sum::<usize>() / kvs.len();
            self.at_once = (PART_BYTES / average.max(1)).max(1) as u64;
            self.at_once = self.at_once.min(MAX_KEYS);
        }
        Ok(kvs)
    }
}

fn size_of(kv: &KeyValue) -> usize {
    /// Numbers and lengths.
    const REST: usize = 40;
    kv.key.len() + kv.value.len() + REST
}

/// The least key after another.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}
