//! Ranges: the newest or historical versions of keys, filtered, sorted and limited.

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError};
use crate::command::{CommandError, RangeRequest, RangeResponse, Sort, SortTarget};
use crate::index::Head;
use crate::kv::{KeyRange, KeyValue, next_key};
use crate::state::{ReadError, State};
use crate::view::View;

/// The first keys of a range, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    pub kvs: Vec<KeyValue>,
    /// Whether more keys may follow.
    pub more: bool,
    /// The newest revision at the time of the read, even when the request asked for an older one.
    pub revision: Revision,
}

/// Maximum number of keys visited while the index lock is held (about 100 µs), and maximum number of keys in a page.
const CHUNK_KEYS: usize = 4096;
/// Number of keys that a page looks up before it reads their values. Lookups of keys after the one that fills the page
/// are wasted.
const BATCH_KEYS: usize = 256;

/// Checks that a requested revision lies between the compacted revision and the newest one.
pub(crate) fn check_revision(requested: Revision, compacted: Revision, current: Revision) -> Result<(), CommandError> {
    if requested.is_zero() {
        return Ok(());
    }
    if requested > current {
        return Err(CommandError::FutureRevision { requested, current });
    }
    if requested < compacted {
        return Err(CommandError::Compacted { requested, compacted });
    }
    Ok(())
}

impl<B: Backend> State<B> {
    /// Reads a range at one published revision. Runs concurrently with the writer.
    ///
    /// # Errors
    /// `Refused` with `Compacted` or `FutureRevision`; `Backend` when the tables cannot be read.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        self.read_at(request.revision, |view, at, newest| view.range(request, at, newest))
    }

    /// Reads the first page of a range, in key order. The page ends with the key at which keys and values reach
    /// `page_bytes`. The request's sort order and filters are ignored.
    ///
    /// # Errors
    /// As [`State::range`].
    pub fn range_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, ReadError> {
        let wanted = limit_of(request).min(CHUNK_KEYS);
        self.read_at(request.revision, |view, at, newest| {
            let page = view.page(&request.range, at, wanted, page_bytes, request.keys_only)?;
            Ok(page.map(|(kvs, more)| RangePage { kvs, more, revision: newest }))
        })
    }

    /// Runs a read at a published revision. `read` returns `None` when a version is missing. In that case, or when a
    /// compaction has overtaken the read, it runs a second time while the deletion of old versions is locked out.
    pub(crate) fn read_at<T>(
        &self,
        requested: Revision,
        read: impl Fn(&View<'_, B>, Revision, Revision) -> Result<Option<T>, BackendError>,
    ) -> Result<T, ReadError> {
        let view = View { state: self, pending: None };
        let attempt = || {
            let (newest, compacted) = self.position();
            check_revision(requested, compacted, newest).map_err(ReadError::Refused)?;
            let at = if requested.is_zero() { newest } else { requested };
            Ok::<_, ReadError>((read(&view, at, newest)?, at))
        };
        if let (Some(found), at) = attempt()?
            && self.compacted() <= at
        {
            return Ok(found);
        }
        let _no_deletion = self.compaction.lock();
        match attempt()? {
            (Some(found), _) => Ok(found),
            (None, _) => Err(self.missing().into()),
        }
    }
}

impl<B: Backend> View<'_, B> {
    /// Reads a range as it was at `at`, which is at most `newest`. Returns `None` when a value has been deleted since.
    pub(crate) fn range(
        &self,
        request: &RangeRequest,
        at: Revision,
        newest: Revision,
    ) -> Result<Option<RangeResponse>, BackendError> {
        let limit = limit_of(request);
        let is_filtered = request.is_filtered();
        let wanted = match (request.count_only, is_filtered || request.sort.is_some()) {
            (true, _) => 0,
            (false, true) => usize::MAX,
            (false, false) => limit,
        };
        let Walked { mut kvs, count, .. } = self.walk(&request.range, at, wanted, None)?;
        if request.count_only {
            return Ok(Some(RangeResponse { kvs, more: false, count, revision: newest }));
        }
        if is_filtered {
            kvs.retain(|kv| passes(request, kv));
        }
        let mut more = wanted != usize::MAX && count > kvs.len() as u64;
        let by_value = request.sort.is_some_and(|sort| sort.by == SortTarget::Value);
        // Values are read in key order, so they are read before sorting, unless the limit drops most of them anyway.
        let fill_early = by_value || request.sort.is_none() || kvs.len() <= limit;
        let needs_values = by_value || !request.keys_only;
        if needs_values && fill_early && !self.fill_values(&mut kvs)? {
            return Ok(None);
        }
        if let Some(sort) = request.sort {
            sort_by(&mut kvs, sort);
        }
        if kvs.len() > limit {
            kvs.truncate(limit);
            more = true;
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        } else if !fill_early {
            for kv in &mut kvs {
                if !self.fill_values(std::slice::from_mut(kv))? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(RangeResponse { kvs, more, count, revision: newest }))
    }

    /// Returns the first `wanted` keys of a range as they were at `at`, up to the key at which keys and values reach
    /// `enough_bytes`, and whether more keys may follow. Returns `None` when a value has been deleted since.
    pub(crate) fn page(
        &self,
        range: &KeyRange,
        at: Revision,
        wanted: usize,
        enough_bytes: usize,
        keys_only: bool,
    ) -> Result<Option<(Vec<KeyValue>, bool)>, BackendError> {
        if keys_only {
            let Walked { mut kvs, is_all, .. } = self.walk(range, at, wanted, Some(enough_bytes))?;
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
            return Ok(Some((kvs, !is_all)));
        }
        let (mut kvs, mut left) = (Vec::new(), enough_bytes);
        let mut rest = range.clone();
        loop {
            let batch = (wanted - kvs.len()).min(BATCH_KEYS);
            let Walked { kvs: mut found, is_all, .. } = self.walk(&rest, at, batch, Some(left))?;
            let Some(filled) = self.fill_some_values(&mut found, left)? else { return Ok(None) };
            let is_end = is_all && filled == found.len();
            found.truncate(filled);
            left = left.saturating_sub(found.iter().map(|kv| kv.key.len() + kv.value.len()).sum());
            let last = found.last().map(|kv| next_key(&kv.key));
            kvs.append(&mut found);
            match last {
                Some(start) if !is_end && left > 0 && kvs.len() < wanted => rest.start = start,
                _ => return Ok(Some((kvs, !is_end))),
            }
        }
    }

    /// Finds the first `wanted` keys that existed at `at`.
    ///
    /// Without `enough_bytes` the whole range is visited, so that the count is complete. With it, the walk ends at the
    /// last wanted key, or at the key where the historical versions, which are read with their values, reach
    /// `enough_bytes`.
    fn walk(
        &self,
        range: &KeyRange,
        at: Revision,
        wanted: usize,
        enough_bytes: Option<usize>,
    ) -> Result<Walked, BackendError> {
        let mut kvs = Vec::new();
        let (mut count, mut read_bytes) = (0, 0);
        let mut after = None;
        loop {
            let mut chunk = Chunk { kvs: &mut kvs, changed: Vec::new(), beyond: Vec::new(), count: 0 };
            after = chunk.collect(self.state, range, after.as_ref(), at, wanted, enough_bytes.is_none());
            let Chunk { changed, beyond, count: found, .. } = chunk;
            count += found;
            let mut missing = 0;
            for place in changed {
                match self.version_at(&kvs[place].key, at)? {
                    Some(kv) => {
                        count += 1;
                        read_bytes += kv.key.len() + kv.value.len();
                        kvs[place] = kv;
                    }
                    None => missing += 1,
                }
                let existed = place + 1 - missing;
                if enough_bytes.is_some_and(|enough| existed >= wanted || read_bytes >= enough) {
                    kvs.truncate(place + 1);
                    kvs.retain(|kv| kv.version > 0);
                    // `existed` also counts the unchanged keys before this changed one, so it may exceed `wanted`.
                    kvs.truncate(wanted);
                    return Ok(Walked { kvs, count, is_all: false });
                }
            }
            for key in beyond {
                count += u64::from(self.version_at(&key, at)?.is_some());
            }
            kvs.retain(|kv| kv.version > 0);
            kvs.truncate(wanted);
            if after.is_none() || (enough_bytes.is_some() && kvs.len() >= wanted) {
                let is_all = after.is_none() && count == kvs.len() as u64;
                return Ok(Walked { kvs, count, is_all });
            }
        }
    }
}

/// Result of a walk through the index.
struct Walked {
    /// The wanted versions in key order. Only historical versions have their value.
    kvs: Vec<KeyValue>,
    /// Number of existing keys that were visited.
    count: u64,
    /// Whether `kvs` is known to hold every key of the range.
    is_all: bool,
}

/// Part of a walk that runs while the index lock is held.
struct Chunk<'a> {
    /// Versions without values. The entries listed in `changed` have only their key so far.
    kvs: &'a mut Vec<KeyValue>,
    /// Positions in `kvs` of keys that were written after the revision that is read. Their versions at that revision
    /// are looked up after the lock is released.
    changed: Vec<usize>,
    /// Such keys after the wanted ones, which only have to be counted.
    beyond: Vec<Bytes>,
    count: u64,
}

impl Chunk<'_> {
    /// Returns the key to continue after, if the range has more keys.
    fn collect<B: Backend>(
        &mut self,
        state: &State<B>,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        wanted: usize,
        count_all: bool,
    ) -> Option<Bytes> {
        let shared = state.shared.read();
        if let Some(key) = range.single() {
            if let Some((key, head)) = shared.index.get(key) {
                self.add(key, head, at, wanted);
            }
            return None;
        }
        let mut heads = shared.index.range(range, after);
        for seen in 1.. {
            let (key, head) = heads.next()?;
            self.add(key, head, at, wanted);
            if seen == CHUNK_KEYS || (!count_all && self.certain() >= wanted) {
                return Some(key.clone());
            }
        }
        None
    }

    /// Number of keys in `kvs` that are known to exist at the revision.
    fn certain(&self) -> usize {
        self.kvs.len() - self.changed.len()
    }

    fn add(&mut self, key: &Bytes, head: &Head, at: Revision, wanted: usize) {
        let is_wanted = self.certain() < wanted;
        if head.mod_revision > at {
            if is_wanted {
                self.changed.push(self.kvs.len());
                self.kvs.push(KeyValue { key: key.clone(), ..KeyValue::default() });
            } else {
                self.beyond.push(key.clone());
            }
        } else if head.is_live() {
            self.count += 1;
            if is_wanted {
                self.kvs.push(head.to_kv(key));
            }
        }
    }
}

fn limit_of(request: &RangeRequest) -> usize {
    match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    }
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |revision: Revision, min: Revision, max: Revision| revision >= min && (max.is_zero() || revision <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

fn sort_by(kvs: &mut [KeyValue], sort: Sort) {
    match sort.by {
        // The versions are in key order already.
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::CreateRevision => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::ModRevision => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if sort.descending {
        kvs.reverse();
    }
}
