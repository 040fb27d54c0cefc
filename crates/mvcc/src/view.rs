//! [`View`] looks up versions of keys. Readers see the published versions; the writer also sees its unwritten batch.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Cursor, Table};
use crate::index::Head;
use crate::kv::KeyValue;
use crate::layout::{self, VersionHeader};
use crate::state::State;

/// The versions that a batch has written so far, by key. The map is never iterated, because its order is random.
#[derive(Default)]
pub(crate) struct Pending {
    newest: HashMap<Bytes, KeyValue>,
    /// Earlier versions of keys that the batch wrote more than once, oldest first.
    older: HashMap<Bytes, Vec<KeyValue>>,
}

impl Pending {
    pub(crate) fn push(&mut self, kv: KeyValue) {
        match self.newest.entry(kv.key.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(kv);
            }
            Entry::Occupied(mut newest) => {
                let older = newest.insert(kv);
                self.older.entry(older.key.clone()).or_default().push(older);
            }
        }
    }

    /// Returns the newest version that `is_wanted` accepts.
    fn find(&self, key: &[u8], is_wanted: impl Fn(&KeyValue) -> bool) -> Option<&KeyValue> {
        let newest = self.newest.get(key)?;
        if is_wanted(newest) {
            return Some(newest);
        }
        self.older.get(key)?.iter().rfind(|kv| is_wanted(kv))
    }
}

/// Number of values from which a cursor over the table is faster than one lookup per value.
const WALK_FROM: usize = 16;
/// Maximum number of rows that the cursor steps over before it seeks instead.
const STEPS_BEFORE_SEEK: usize = 3;

pub(crate) struct View<'a, B> {
    pub(crate) state: &'a State<B>,
    pub(crate) pending: Option<&'a Pending>,
}

impl<B: Backend> View<'_, B> {
    fn pending(&self, key: &[u8], is_wanted: impl Fn(&KeyValue) -> bool) -> Option<&KeyValue> {
        self.pending.and_then(|pending| pending.find(key, is_wanted))
    }

    /// Returns the version written at `mod_revision`, or `None` when it has been deleted since.
    pub(crate) fn version(&self, key: &Bytes, mod_revision: Revision) -> Result<Option<KeyValue>, BackendError> {
        if let Some(kv) = self.pending(key, |kv| kv.mod_revision == mod_revision) {
            return Ok(Some(kv.clone()));
        }
        let mut row_key = Vec::with_capacity(key.len() + 16);
        layout::version_key(key, mod_revision, &mut row_key);
        match self.state.backend.get(Table::Versions, &row_key)? {
            Some(row) => Ok(Some(VersionHeader::read(&row_key, &row)?.with(key.clone(), mod_revision, &row))),
            None => Ok(None),
        }
    }

    /// Returns the version of a live index entry. A missing row is an error.
    pub(crate) fn newest(&self, key: &Bytes, head: &Head) -> Result<KeyValue, BackendError> {
        self.version(key, head.mod_revision)?
            .ok_or_else(|| layout::corrupt(Table::Versions, key, "the newest version is missing"))
    }

    /// Returns the version of a key at a revision, or `None` when the key did not exist then.
    pub(crate) fn version_at(&self, key: &Bytes, at: Revision) -> Result<Option<KeyValue>, BackendError> {
        let kv = match self.pending(key, |kv| kv.mod_revision <= at) {
            Some(kv) => Some(kv.clone()),
            None => self.stored_at(key, at)?,
        };
        Ok(kv.filter(|kv| kv.version > 0))
    }

    fn stored_at(&self, key: &Bytes, at: Revision) -> Result<Option<KeyValue>, BackendError> {
        let (mut from, mut to) = (Vec::with_capacity(key.len() + 16), Vec::with_capacity(key.len() + 16));
        layout::version_key(key, at, &mut from);
        layout::escape(key, &mut to);
        to.extend_from_slice(&[0, 1]);
        let mut cursor = self.state.backend.cursor(Table::Versions, &from, Some(&to));
        if !cursor.seek(&from)? {
            return Ok(None);
        }
        let (_, mod_revision) = layout::split_version_key(cursor.key())?;
        let header = VersionHeader::read(cursor.key(), cursor.value())?;
        let row = Bytes::copy_from_slice(cursor.value());
        Ok(Some(header.with(key.clone(), mod_revision, &row)))
    }

    /// Fills in the values of versions, which are in key order. Returns false when one of them has been deleted since.
    pub(crate) fn fill_values(&self, kvs: &mut [KeyValue]) -> Result<bool, BackendError> {
        Ok(self.fill_some_values(kvs, usize::MAX)?.is_some())
    }

    /// Like [`View::fill_values`], but stops at the version with which keys and values reach `enough_bytes`. Returns
    /// the number of versions up to and including that one, or `None` when a version has been deleted since.
    pub(crate) fn fill_some_values(
        &self,
        kvs: &mut [KeyValue],
        enough_bytes: usize,
    ) -> Result<Option<usize>, BackendError> {
        let mut bytes = 0;
        let mut is_enough = |kv: &KeyValue| {
            bytes += kv.key.len() + kv.value.len();
            bytes >= enough_bytes
        };
        let all = kvs.len();
        if all < WALK_FROM {
            for (place, kv) in kvs.iter_mut().enumerate() {
                // A historical version was read with its value already.
                if kv.value.is_empty() {
                    match self.version(&kv.key, kv.mod_revision)? {
                        Some(found) => kv.value = found.value,
                        None => return Ok(None),
                    }
                }
                if is_enough(kv) {
                    return Ok(Some(place + 1));
                }
            }
            return Ok(Some(all));
        }
        let (mut row_key, mut upper) = (Vec::new(), Vec::new());
        layout::version_key(&kvs[0].key, kvs[0].mod_revision, &mut row_key);
        layout::escape(&kvs[kvs.len() - 1].key, &mut upper);
        upper.extend_from_slice(&[0, 1]);
        let mut cursor = self.state.backend.cursor(Table::Versions, &row_key, Some(&upper));
        let mut valid = false;
        for (place, kv) in kvs.iter_mut().enumerate() {
            let found = self.pending(&kv.key, |found| found.mod_revision == kv.mod_revision);
            if !kv.value.is_empty() || found.is_some() {
                kv.value = found.map_or_else(|| kv.value.clone(), |found| found.value.clone());
                if is_enough(kv) {
                    return Ok(Some(place + 1));
                }
                continue;
            }
            layout::version_key(&kv.key, kv.mod_revision, &mut row_key);
            let mut steps = 0;
            while valid && steps < STEPS_BEFORE_SEEK && cursor.key() < row_key.as_slice() {
                valid = cursor.next()?;
                steps += 1;
            }
            if !valid || cursor.key() < row_key.as_slice() {
                valid = cursor.seek(&row_key)?;
            }
            if !valid || cursor.key() != row_key {
                return Ok(None);
            }
            kv.value = VersionHeader::value(cursor.key(), cursor.value())?;
            if is_enough(kv) {
                return Ok(Some(place + 1));
            }
        }
        Ok(Some(all))
    }
}
