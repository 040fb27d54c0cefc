//! Long ranges: read a page at a time, at one revision, and only as far as there is room for the answer.

use quorate_mvcc::{CommandError, KeyValue, RangePage, RangeRequest, RangeResponse, SortTarget, next_key};
use quorate_store::StoreError;
use tokio::task::block_in_place;
use tonic::Status;

use crate::answers::{Held, Share, weight_of};
use crate::errors::{self, Refusal};
use crate::shared::Shared;

/// What is read at a time, give or take a key. Most ranges have less.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// What cannot be read in pages is read without waiting for a turn when it has surely no more than so many keys, and so
/// many of their values are read.
const FEW_KEYS: u64 = 4096;
const FEW_VALUES: u64 = 16;

/// What was found, and the room that it takes along to the client.
pub(crate) type Found = (RangeResponse, Option<Held>);

/// Reads a range of this member's own state.
///
/// # Errors
/// Those of a range; `TOO_MANY_REQUESTS` when there is no room for the answer.
pub(crate) async fn read(shared: &Shared, request: RangeRequest) -> Result<Found, Status> {
    if request.count_only {
        return Ok((shared.read_here(&request).map_err(errors::status)?, None));
    }
    if request.is_in_key_order()
        && let Some(found) = block_in_place(|| in_pages(shared, &request))?
    {
        return Ok(found);
    }
    at_once(shared, &request).await
}

/// Reads what comes in the order of the keys. `None` when it was begun at the newest revision, and a compaction has
/// overtaken it.
fn in_pages(shared: &Shared, request: &RangeRequest) -> Result<Option<Found>, Status> {
    let RangePage { kvs, more, revision } = shared.read_page(request).map_err(errors::status)?;
    let mut share = shared.answers.share();
    share.grow(weight_of(&kvs))?;
    let mut found = RangeResponse { count: kvs.len() as u64, kvs, more: false, revision };
    if !more {
        return Ok(Some((found, share.held())));
    }
    match read_on(shared, request, &mut found, &mut share) {
        Ok(()) => Ok(Some((found, share.held()))),
        Err(Stopped::NoRoom(refusal)) => Err(refusal.into()),
        Err(Stopped::Failed(StoreError::Command(CommandError::Compacted { .. }))) if request.revision.is_zero() => {
            Ok(None)
        }
        Err(Stopped::Failed(error)) => Err(errors::status(error)),
    }
}

/// Why a range was not read to its end.
enum Stopped {
    NoRoom(Refusal),
    Failed(StoreError),
}

/// Reads what comes behind the first page, which becomes the whole.
fn read_on(
    shared: &Shared,
    request: &RangeRequest,
    found: &mut RangeResponse,
    share: &mut Share<'_>,
) -> Result<(), Stopped> {
    let mut request = request.clone();
    if request.revision.is_zero() {
        request.revision = found.revision;
    }
    let counted = RangeRequest { count_only: true, ..request.clone() };
    found.count = shared.read_here(&counted).map_err(Stopped::Failed)?.count;
    let mut unread = Unread::new(shared, request, found.count);
    unread.pass(&found.kvs);
    while !unread.is_empty() {
        let page = unread.next_page().map_err(Stopped::Failed)?;
        share.grow(weight_of(&page)).map_err(Stopped::NoRoom)?;
        found.kvs.extend(page);
    }
    found.more = found.count > found.kvs.len() as u64;
    Ok(())
}

/// Reads of what nobody knows the first before all have been seen, and what cannot be read in pages: a few at a time,
/// but for what is little.
async fn at_once(shared: &Shared, request: &RangeRequest) -> Result<Found, Status> {
    let little = block_in_place(|| {
        let count = shared.read_here(&RangeRequest { count_only: true, ..request.clone() })?.count;
        if is_little(request, count) { shared.read_here(request).map(Some) } else { Ok(None) }
    });
    if let Some(found) = little.map_err(errors::status)? {
        return weighed(shared, found);
    }
    let _turn = shared.answers.turn().await;
    weighed(shared, shared.read_here(request).map_err(errors::status)?)
}

fn weighed(shared: &Shared, found: RangeResponse) -> Result<Found, Status> {
    let held = shared.answers.hold(weight_of(&found.kvs))?;
    Ok((found, held))
}

/// Whether little is read for a request of a range that has so many keys.
fn is_little(request: &RangeRequest, count: u64) -> bool {
    let values = match request.sort {
        Some(sort) if sort.by == SortTarget::Value => count,
        _ if request.keys_only => 0,
        // Sorted by what the index knows: only the values of what is answered are read.
        Some(_) if request.limit > 0 => request.limit.min(count),
        _ => count,
    };
    count <= FEW_KEYS && values <= FEW_VALUES
}

/// What is still to be read of a range, in the order of its keys and at one revision.
pub(crate) struct Unread {
    shared: Shared,
    request: RangeRequest,
    left: u64,
}

impl Unread {
    /// All that is wanted of a range that has so many keys at the revision of the request.
    pub(crate) fn new(shared: &Shared, request: RangeRequest, count: u64) -> Self {
        let left = if request.limit == 0 { count } else { request.limit.min(count) };
        Unread { shared: shared.clone(), request, left }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next page; empty when there is none.
    ///
    /// # Errors
    /// As [`quorate_store::Store::read_page`]; `Compacted` too when a compaction has overtaken the revision.
    pub(crate) fn next_page(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.request.limit = self.left;
        let kvs = self.shared.read_page(&self.request)?.kvs;
        self.pass(&kvs);
        Ok(kvs)
    }

    /// Leaves out the first keys. The revision stands still: as many are there as were counted.
    fn pass(&mut self, kvs: &[KeyValue]) {
        let Some(last) = kvs.last() else {
            self.left = 0;
            return;
        };
        self.left = self.left.saturating_sub(kvs.len() as u64);
        self.request.range.start = next_key(&last.key);
    }
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{KeyRange, Sort};

    use super::*;

    #[test]
    fn little_is_what_has_few_keys_and_needs_few_values() {
        let by = |by| Some(Sort { by, descending: false });
        let (created, value) = (by(SortTarget::CreateRevision), by(SortTarget::Value));
        // (order, limit, keys only, keys in the range)
        for (sort, limit, keys_only, count, expected) in [
            (created, 1, false, 4000, true),
            (created, 1, false, 5000, false),
            (created, 0, false, 16, true),
            (created, 0, false, 17, false),
            (created, 0, true, 4000, true),
            (value, 1, true, 17, false),
            (None, 1, false, 17, false),
            (None, 0, true, 4000, true),
        ] {
            let request = RangeRequest { sort, keys_only, ..RangeRequest::new(KeyRange::from("a")).limit(limit) };
            assert_eq!(is_little(&request, count), expected, "{request:?} of {count}");
        }
    }
}
