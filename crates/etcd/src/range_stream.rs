//! Responses to a range in parts. Each part is read after the client has taken the earlier ones, so that a long range
//! costs little memory on either side.

use std::iter::Peekable;
use std::vec;

use futures::Stream;
use quorate_mvcc::{KeyValue, RangeRequest};
use quorate_store::{Consistency, HeldBudget};
use tonic::Status;

use crate::answers::{weight, weight_of};
use crate::convert;
use crate::errors;
use crate::pages::{PAGE_BYTES, Unread};
use crate::pb::etcdserverpb::{self as pb, ResponseHeader};
use crate::shared::Shared;

/// Size of a part, in bytes, exceeded by at most one key. Clients accept messages of a few MiB.
const PART_BYTES: usize = PAGE_BYTES;
/// Memory held for a client that does not read, in bytes: the part being sent, the next part, and a page.
const WAITING_BYTES: usize = 3 * PART_BYTES;

type Part = Result<pb::RangeStreamResponse, Status>;

/// Returns the parts of the response to a range, and the budget that they hold. As in etcd, every part has keys, and
/// the last one has everything else.
///
/// # Errors
/// The errors of a range. Later errors end the stream.
pub(crate) async fn parts(
    shared: &Shared,
    mut request: RangeRequest,
    consistency: Consistency,
) -> Result<(impl Stream<Item = Part> + use<>, Option<HeldBudget>), Status> {
    let (parts, held) = if request.is_in_key_order() && !request.count_only {
        // The count gives the revision of the whole response and its number of keys.
        let source = shared.source(consistency).await?;
        let counted = RangeRequest { count_only: true, ..request.clone() };
        let whole = source.read(counted, &mut shared.answers.reservation()).await?;
        if request.revision.is_zero() {
            request.revision = whole.revision;
        }
        let limit = request.limit;
        let mut unread = Unread::new(&source, request, whole.count);
        let first = unread.next_page().map_err(errors::status)?;
        let size_bytes = if unread.is_empty() { weight_of(&first) } else { WAITING_BYTES };
        let parts = Parts {
            header: shared.header(whole.revision),
            count: whole.count,
            more: limit > 0 && limit < whole.count,
            read: first.into_iter().peekable(),
            unread: Some(unread),
        };
        (parts, shared.answers.hold(size_bytes)?)
    } else {
        let (found, held) = shared.range(request, consistency).await?;
        let parts = Parts {
            header: shared.header(found.revision),
            count: found.count,
            more: found.more,
            read: found.kvs.into_iter().peekable(),
            unread: None,
        };
        (parts, held)
    };
    Ok((futures::stream::unfold(Some(parts), |parts| std::future::ready(step(parts))), held))
}

/// Returns the next part and the remaining parts. The stream ends after the last part or an error.
fn step(parts: Option<Parts>) -> Option<(Part, Option<Parts>)> {
    let mut parts = parts?;
    match parts.next() {
        Ok((part, is_last)) => {
            Some((Ok(pb::RangeStreamResponse { range_response: Some(part) }), (!is_last).then_some(parts)))
        }
        Err(status) => Some((Err(status), None)),
    }
}

struct Parts {
    header: ResponseHeader,
    count: u64,
    more: bool,
    read: Peekable<vec::IntoIter<KeyValue>>,
    unread: Option<Unread>,
}

impl Parts {
    /// Returns the next part and whether it is the last.
    fn next(&mut self) -> Result<(pb::RangeResponse, bool), Status> {
        if self.read.peek().is_none()
            && let Some(unread) = &mut self.unread
        {
            self.read = unread.next_page().map_err(errors::status)?.into_iter().peekable();
        }
        let (mut kvs, mut size_bytes) = (Vec::new(), 0);
        while size_bytes < PART_BYTES
            && let Some(kv) = self.read.next()
        {
            size_bytes += weight(&kv);
            kvs.push(convert::key_value(kv));
        }
        let is_last = self.read.peek().is_none() && self.unread.as_ref().is_none_or(Unread::is_empty);
        let mut part = pb::RangeResponse { kvs, ..pb::RangeResponse::default() };
        if is_last {
            (part.header, part.count, part.more) = (Some(self.header), convert::wire(self.count), self.more);
        }
        Ok((part, is_last))
    }
}
