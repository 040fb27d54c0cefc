//! In-memory index of the newest version of every key, without its value. It is rebuilt from the backend at start.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Cursor, Table};
use crate::kv::{KeyRange, KeyValue, LeaseId};
use crate::layout::{self, VersionHeader};

/// The newest version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub mod_revision: Revision,
    pub create_revision: Revision,
    /// 0 in a tombstone: the key is deleted, and its deletion is not compacted yet.
    pub version: u64,
    pub lease: LeaseId,
}

impl Head {
    /// The index entry of a version.
    pub(crate) fn of(kv: &KeyValue) -> Self {
        Head {
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }

    /// The version without its value.
    pub(crate) fn to_kv(self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }

    #[must_use]
    pub fn is_live(&self) -> bool {
        self.version > 0
    }
}

/// Every key that exists at the compacted revision or later, including keys deleted since. A key that is not in the
/// index has no readable version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    heads: BTreeMap<Bytes, Head>,
}

impl Index {
    /// Reads the newest version of every key.
    ///
    /// # Errors
    /// When the table cannot be read or is damaged.
    pub fn load(backend: &impl Backend) -> Result<Self, BackendError> {
        let mut heads = BTreeMap::new();
        let mut last: Vec<u8> = Vec::new();
        let mut cursor = backend.cursor(Table::Versions, &[], None);
        let mut found = cursor.seek(&[])?;
        while found {
            let (escaped, mod_revision) = layout::split_version_key(cursor.key())?;
            if heads.is_empty() || escaped != last {
                let VersionHeader { create_revision, version, lease } =
                    VersionHeader::read(cursor.key(), cursor.value())?;
                heads.insert(layout::unescape(escaped), Head { mod_revision, create_revision, version, lease });
                last.clear();
                last.extend_from_slice(escaped);
            }
            found = cursor.next()?;
        }
        Ok(Index { heads })
    }

    /// Returns the newest version of a key, which may be a tombstone.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<(&Bytes, &Head)> {
        self.heads.get_key_value(key)
    }

    pub(crate) fn insert(&mut self, key: Bytes, head: Head) {
        self.heads.insert(key, head);
    }

    /// Removes the entry of `key` if it is still the tombstone written at `revision`.
    pub(crate) fn drop_tombstone(&mut self, key: &[u8], revision: Revision) {
        if self.heads.get(key).is_some_and(|head| !head.is_live() && head.mod_revision == revision) {
            self.heads.remove(key);
        }
    }

    /// Returns the keys of a range in order, starting after `after` when it is given.
    pub fn range(&self, range: &KeyRange, after: Option<&Bytes>) -> btree_map::Range<'_, Bytes, Head> {
        let lower = match after {
            Some(key) if *key >= range.start => Bound::Excluded(key.as_ref()),
            _ => Bound::Included(range.start.as_ref()),
        };
        let upper = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_ref()));
        // An empty or inverted range is valid here, but `BTreeMap::range` panics on it.
        let is_empty = match (lower, upper) {
            (Bound::Included(a), Bound::Excluded(b)) | (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
            _ => false,
        };
        let upper = if is_empty { Bound::Excluded([].as_slice()) } else { upper };
        let lower = if is_empty { Bound::Included([].as_slice()) } else { lower };
        self.heads.range::<[u8], _>((lower, upper))
    }

    /// Returns every key that has a lease, with that lease.
    pub(crate) fn leased(&self) -> impl Iterator<Item = (&Bytes, LeaseId)> {
        self.heads.iter().filter(|(_, head)| head.lease != LeaseId::NONE).map(|(key, head)| (key, head.lease))
    }

    /// Number of keys, including tombstones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }
}
