//! Long ranges: read a page at a time, at one revision, and only as far as there is room for the answer.

use std::sync::Arc;

use quorate_api::Revision;
use quorate_mvcc::{
    CommandError, KeyValue, RangePage, RangeRequest, RangeResponse, ReadPlan, ReadTxn, SortTarget, TxnResponse,
    next_key,
};
use quorate_store::{Reader, StoreError};
use tokio::task::block_in_place;
use tonic::Status;

use crate::answers::{Answers, Held, Share, weight_of};
use crate::errors::{self, Refusal};

/// What is read at a time, give or take a key. Most ranges have less.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// What cannot be read in pages is read without waiting for a turn when it has surely no more than so many keys, and so
/// many of their values are read.
const FEW_KEYS: u64 = 4096;
const FEW_VALUES: u64 = 16;
/// How often a transaction is read anew because a compaction has overtaken its revision.
const PLANS: usize = 4;

/// What was found, and the room that it takes along to the client.
pub(crate) type Found = (RangeResponse, Option<Held>);

/// A state to read from, and the room for what is found.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) reader: Reader,
    pub(crate) answers: Arc<Answers>,
}

/// Why a range was not read to its end.
pub(crate) enum Stopped {
    NoRoom(Refusal),
    Failed(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Stopped::Failed(error)
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::NoRoom(refusal) => refusal.into(),
            Stopped::Failed(error) => errors::status(error),
        }
    }
}

impl Source {
    /// Reads a range. What is found takes its room of `share`.
    ///
    /// # Errors
    /// Those of a range; `TOO_MANY_REQUESTS` when there is no room for the answer.
    pub(crate) async fn read(&self, request: RangeRequest, share: &mut Share<'_>) -> Result<RangeResponse, Stopped> {
        if request.range.single().is_some() {
            return weighed(self.reader.range(&request)?, share);
        }
        if request.count_only {
            return Ok(self.read_here(&request)?);
        }
        if request.is_in_key_order() {
            match block_in_place(|| self.in_pages(&request, share)) {
                // It was begun at the newest revision, and a compaction has overtaken that.
                Err(Stopped::Failed(StoreError::Command(CommandError::Compacted { .. })))
                    if request.revision.is_zero() =>
                {
                    share.reset();
                }
                done => return done,
            }
        }
        self.at_once(&request, share).await
    }

    /// Answers a transaction that only reads, at one revision, each of its ranges as [`Source::read`] does.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub(crate) async fn read_txn(
        &self,
        txn: &ReadTxn,
        share: &mut Share<'_>,
    ) -> Result<(Revision, TxnResponse), Stopped> {
        let mut plans = 0;
        loop {
            let plan = block_in_place(|| self.reader.plan(txn))?;
            plans += 1;
            match self.read_planned(&plan, share).await {
                Ok(found) => return Ok((plan.revision, txn.respond(&plan, found))),
                Err(Stopped::Failed(StoreError::Command(refused)))
                    if plans < PLANS && plan.is_overtaken_by(&refused) =>
                {
                    share.reset();
                }
                Err(stopped) => return Err(stopped),
            }
        }
    }

    async fn read_planned(&self, plan: &ReadPlan, share: &mut Share<'_>) -> Result<Vec<RangeResponse>, Stopped> {
        let mut found = Vec::with_capacity(plan.ranges.len());
        for range in &plan.ranges {
            found.push(self.read(range.clone(), share).await?);
        }
        Ok(found)
    }

    fn read_here(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        block_in_place(|| self.reader.range(request))
    }

    fn read_page(&self, request: &RangeRequest) -> Result<RangePage, StoreError> {
        block_in_place(|| self.reader.range_page(request, PAGE_BYTES))
    }

    /// Reads what comes in the order of the keys.
    fn in_pages(&self, request: &RangeRequest, share: &mut Share<'_>) -> Result<RangeResponse, Stopped> {
        let RangePage { kvs, more, revision } = self.read_page(request)?;
        share.grow(weight_of(&kvs)).map_err(Stopped::NoRoom)?;
        let mut found = RangeResponse { count: kvs.len() as u64, kvs, more: false, revision };
        if more {
            self.read_on(request, &mut found, share)?;
        }
        Ok(found)
    }

    /// Reads what comes behind the first page, which becomes the whole.
    fn read_on(&self, request: &RangeRequest, found: &mut RangeResponse, share: &mut Share<'_>) -> Result<(), Stopped> {
        let mut request = request.clone();
        if request.revision.is_zero() {
            request.revision = found.revision;
        }
        let counted = RangeRequest { count_only: true, ..request.clone() };
        found.count = self.read_here(&counted)?.count;
        let mut unread = Unread::new(self, request, found.count);
        unread.pass(&found.kvs);
        while !unread.is_empty() {
            let page = unread.next_page()?;
            share.grow(weight_of(&page)).map_err(Stopped::NoRoom)?;
            found.kvs.extend(page);
        }
        found.more = found.count > found.kvs.len() as u64;
        Ok(())
    }

    /// Reads of what nobody knows the first before all have been seen, and what cannot be read in pages: a few at a time,
    /// but for what is little.
    async fn at_once(&self, request: &RangeRequest, share: &mut Share<'_>) -> Result<RangeResponse, Stopped> {
        let little = block_in_place(|| {
            let count = self.read_here(&RangeRequest { count_only: true, ..request.clone() })?.count;
            if is_little(request, count) { self.read_here(request).map(Some) } else { Ok(None) }
        });
        if let Some(found) = little? {
            return weighed(found, share);
        }
        let _turn = self.answers.turn().await;
        weighed(self.read_here(request)?, share)
    }
}

fn weighed(found: RangeResponse, share: &mut Share<'_>) -> Result<RangeResponse, Stopped> {
    share.grow(weight_of(&found.kvs)).map_err(Stopped::NoRoom)?;
    Ok(found)
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
    source: Source,
    request: RangeRequest,
    left: u64,
}

impl Unread {
    /// All that is wanted of a range that has so many keys at the revision of the request.
    pub(crate) fn new(source: &Source, request: RangeRequest, count: u64) -> Self {
        let left = if request.limit == 0 { count } else { request.limit.min(count) };
        Unread { source: source.clone(), request, left }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next page; empty when there is none.
    ///
    /// # Errors
    /// As [`quorate_store::StateReader::range_page`]; `Compacted` too when a compaction has overtaken the revision.
    pub(crate) fn next_page(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.request.limit = self.left;
        let kvs = self.source.read_page(&self.request)?.kvs;
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
