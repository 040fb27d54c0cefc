//! [`View`]: how versions are found, by readers among what is published, by the writer with what is still in its batch.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Cursor, Table};
use crate::index::Head;
use crate::kv::KeyValue;
use crate::layout::{self, VersionHeader};
use crate::state::State;

/// The versions that a batch has written so far, by key. Looked up only, never walked.
#[derive(Default)]
pub(crate) struct Pending {
    newest: HashMap<Bytes, KeyValue>,
    /// Of keys that were written more than once, the oldest first.
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

    /// The newest version that `is_wanted`.
    fn find(&self, key: &[u8], is_wanted: impl Fn(&KeyValue) -> bool) -> Option<&KeyValue> {
        let newest = self.newest.get(key)?;
        if is_wanted(newest) {
            return Some(newest);
        }
        self.older.get(key)?.iter().rfind(|kv| is_wanted(kv))
    }
}

/// From this many values on, walking the table beats looking each one up.
const WALK_FROM: usize = 16;
/// Rows to step over before seeking.
const STEPS_BEFORE_SEEK: usize = 3;

pub(crate) struct View<'a, B> {
    pub(crate) state: &'a State<B>,
    pub(crate) pending: Option<&'a Pending>,
}

impl<B: Backend> View<'_, B> {
    fn pending(&self, key: &[u8], is_wanted: impl Fn(&KeyValue) -> bool) -> Option<&KeyValue> {
        self.pending.and_then(|pending| pending.find(key, is_wanted))
    }

    /// The version that `mod_revision` wrote; `None` when it is not there any more.
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

    /// The newest version of a live head; it is an error when it is not there.
    pub(crate) fn newest(&self, key: &Bytes, head: &Head) -> Result<KeyValue, BackendError> {
        self.version(key, head.mod_revision)?
            .ok_or_else(|| layout::corrupt(Table::Versions, key, "the newest version is missing"))
    }

    /// The version of a key at a revision; `None` when it did not exist then.
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

    /// Fills in the values of versions, which are in key order. A version that is not there any more is left without a
    /// value and reported by `false`.
    pub(crate) fn fill_values(&self, kvs: &mut [KeyValue]) -> Result<bool, BackendError> {
        Ok(self.fill_some_values(kvs, usize::MAX)?.is_some())
    }

    /// [`View::fill_values`] of the first of them, up to the one with which keys and values reach so many bytes. Returns
    /// how many those are; `None` when one is not there any more.
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
                // Of one that is not the newest it is known already.
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
