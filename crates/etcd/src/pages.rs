//! Long ranges, which are read in pages at one revision and only while the response budget lasts.

use std::sync::Arc;

use quorate_api::Revision;
use quorate_mvcc::{
    CommandError, KeyValue, RangePage, RangeRequest, RangeResponse, ReadPlan, ReadTxn, SortTarget, TxnResponse,
    next_key,
};
use quorate_store::{BudgetExhausted, HeldBudget, Reader, Reservation, StoreError};
use tokio::task::block_in_place;
use tonic::Status;

use crate::answers::{Answers, weight_of};
use crate::errors::{self, Refusal};

/// Size of a page in bytes, exceeded by at most one key. Most ranges are smaller.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// Maximum number of keys in a range that is read without a turn although it cannot be read in pages.
const FEW_KEYS: u64 = 4096;
/// Maximum number of values that are read for such a range.
const FEW_VALUES: u64 = 16;
/// Maximum number of plans for a transaction when compactions keep overtaking its revision.
const PLANS: usize = 4;

/// The response to a range, and its reservation.
pub(crate) type Found = (RangeResponse, Option<HeldBudget>);

/// A state to read from, and the budget for responses.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) reader: Reader,
    pub(crate) answers: Arc<Answers>,
}

/// Reason why a range was not read to its end.
pub(crate) enum Stopped {
    BudgetExhausted(BudgetExhausted),
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
            Stopped::BudgetExhausted(exhausted) => Refusal::from(exhausted).into(),
            Stopped::Failed(error) => errors::status(error),
        }
    }
}

impl Source {
    /// Reads a range, and reserves the size of the response in `reservation`.
    ///
    /// # Errors
    /// The errors of a range, and `TOO_MANY_REQUESTS` when the budget is exhausted.
    pub(crate) async fn read(
        &self,
        request: RangeRequest,
        reservation: &mut Reservation,
    ) -> Result<RangeResponse, Stopped> {
        if request.range.single().is_some() {
            return weighed(self.reader.range(&request)?, reservation);
        }
        if request.count_only {
            return Ok(self.read_here(&request)?);
        }
        if request.is_in_key_order() {
            match block_in_place(|| self.read_paged(&request, reservation)) {
                // A compaction has overtaken the newest revision, at which the read began.
                Err(Stopped::Failed(StoreError::Command(CommandError::Compacted { .. })))
                    if request.revision.is_zero() =>
                {
                    reservation.reset();
                }
                done => return done,
            }
        }
        self.read_unpaged(&request, reservation).await
    }

    /// Answers a transaction that only reads, at one revision, each of its ranges as [`Source::read`] does.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub(crate) async fn read_txn(
        &self,
        txn: &ReadTxn,
        reservation: &mut Reservation,
    ) -> Result<(Revision, TxnResponse), Stopped> {
        let mut plans = 0;
        loop {
            let plan = block_in_place(|| self.reader.plan(txn))?;
            plans += 1;
            match self.read_planned(&plan, reservation).await {
                Ok(found) => return Ok((plan.revision, txn.respond(&plan, found))),
                Err(Stopped::Failed(StoreError::Command(refused)))
                    if plans < PLANS && plan.is_overtaken_by(&refused) =>
                {
                    reservation.reset();
                }
                Err(stopped) => return Err(stopped),
            }
        }
    }

    async fn read_planned(
        &self,
        plan: &ReadPlan,
        reservation: &mut Reservation,
    ) -> Result<Vec<RangeResponse>, Stopped> {
        let mut found = Vec::with_capacity(plan.ranges.len());
        for range in &plan.ranges {
            found.push(self.read(range.clone(), reservation).await?);
        }
        Ok(found)
    }

    fn read_here(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        block_in_place(|| self.reader.range(request))
    }

    fn read_page(&self, request: &RangeRequest) -> Result<RangePage, StoreError> {
        block_in_place(|| self.reader.range_page(request, PAGE_BYTES))
    }

    /// Reads a range in key order, page by page.
    fn read_paged(&self, request: &RangeRequest, reservation: &mut Reservation) -> Result<RangeResponse, Stopped> {
        let RangePage { kvs, more, revision } = self.read_page(request)?;
        reservation.grow(weight_of(&kvs)).map_err(Stopped::BudgetExhausted)?;
        let mut found = RangeResponse { count: kvs.len() as u64, kvs, more: false, revision };
        if more {
            self.read_rest(request, &mut found, reservation)?;
        }
        Ok(found)
    }

    /// Reads the remaining pages and appends them to the first one.
    fn read_rest(
        &self,
        request: &RangeRequest,
        found: &mut RangeResponse,
        reservation: &mut Reservation,
    ) -> Result<(), Stopped> {
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
            reservation.grow(weight_of(&page)).map_err(Stopped::BudgetExhausted)?;
            found.kvs.extend(page);
        }
        found.more = found.count > found.kvs.len() as u64;
        Ok(())
    }

    /// Reads a range that is sorted or filtered, and therefore cannot be read in pages. Small ranges are read
    /// immediately; others wait for a turn.
    async fn read_unpaged(
        &self,
        request: &RangeRequest,
        reservation: &mut Reservation,
    ) -> Result<RangeResponse, Stopped> {
        let small = block_in_place(|| {
            let count = self.read_here(&RangeRequest { count_only: true, ..request.clone() })?.count;
            if is_small(request, count) { self.read_here(request).map(Some) } else { Ok(None) }
        });
        if let Some(found) = small? {
            return weighed(found, reservation);
        }
        let _turn = self.answers.turn().await;
        weighed(self.read_here(request)?, reservation)
    }
}

fn weighed(found: RangeResponse, reservation: &mut Reservation) -> Result<RangeResponse, Stopped> {
    reservation.grow(weight_of(&found.kvs)).map_err(Stopped::BudgetExhausted)?;
    Ok(found)
}

/// Whether a request reads few keys and few values of a range that has `count` keys.
fn is_small(request: &RangeRequest, count: u64) -> bool {
    let values = match request.sort {
        Some(sort) if sort.by == SortTarget::Value => count,
        _ if request.keys_only => 0,
        // The index has the sort keys, so only the returned values are read.
        Some(_) if request.limit > 0 => request.limit.min(count),
        _ => count,
    };
    count <= FEW_KEYS && values <= FEW_VALUES
}

/// The unread rest of a range, in key order and at one revision.
pub(crate) struct Unread {
    source: Source,
    request: RangeRequest,
    left: u64,
}

impl Unread {
    /// Creates the rest for a request, up to its limit. `count` is the number of keys at the request's revision.
    pub(crate) fn new(source: &Source, request: RangeRequest, count: u64) -> Self {
        let left = if request.limit == 0 { count } else { request.limit.min(count) };
        Unread { source: source.clone(), request, left }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Reads the next page, which is empty at the end.
    ///
    /// # Errors
    /// As [`quorate_store::StateReader::range_page`], and `Compacted` when a compaction has overtaken the revision.
    pub(crate) fn next_page(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.request.limit = self.left;
        let kvs = self.source.read_page(&self.request)?.kvs;
        self.pass(&kvs);
        Ok(kvs)
    }

    /// Skips keys that have been read. The revision is fixed, so the count stays valid.
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
    fn small_reads_have_few_keys_and_few_values() {
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
            assert_eq!(is_small(&request, count), expected, "{request:?} of {count}");
        }
    }
}
