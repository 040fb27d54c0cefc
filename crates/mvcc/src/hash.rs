//! Hash of the state at a revision, to compare members.

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::Backend;
use crate::kv::{KeyRange, KeyValue, next_key};
use crate::state::{ReadError, State};

/// Number of keys that are hashed between two calls of `go_on`.
const PAGE_KEYS: usize = 1024;

impl<B: Backend> State<B> {
    /// Hashes the revision and every key that exists at it: key, value, revisions, version and lease, read from the
    /// tables. Zero stands for the newest revision. Returns the revision with the hash.
    ///
    /// The hash is equal on all members, regardless of compaction and of the deletion's progress. It leaves out state
    /// without a revision, which may differ between members at equal revisions: leases without keys, generations, and
    /// the compacted revision. It reads all values, which is costly on a large store.
    ///
    /// # Errors
    /// As [`State::range`].
    pub fn hash_at(&self, revision: Revision) -> Result<(Revision, u64), ReadError> {
        let hashed = self.hash_in_parts(revision, || true)?;
        hashed.ok_or_else(|| self.missing().into())
    }

    /// Like [`State::hash_at`], in small parts. `go_on` is called after each part and may block. Returns `None` when it
    /// returns false.
    ///
    /// # Errors
    /// As [`State::hash_at`], and `Compacted` when a compaction overtakes the revision.
    pub fn hash_in_parts(
        &self,
        revision: Revision,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<(Revision, u64)>, ReadError> {
        let at = if revision.is_zero() { self.revision() } else { revision };
        let mut hasher = Hasher::default();
        hasher.number(at.0);
        let mut start = Bytes::new();
        loop {
            let rest = KeyRange::from(start);
            let (page, more) = self.read_at(at, |view, at, _| view.page(&rest, at, PAGE_KEYS, usize::MAX, false))?;
            for kv in &page {
                hasher.key_value(kv);
            }
            match page.last() {
                Some(last) if more => start = next_key(&last.key),
                _ => return Ok(Some((at, hasher.finish()))),
            }
            if !go_on() {
                return Ok(None);
            }
        }
    }
}

/// A fast, non-cryptographic hash that is the same in every version and on every platform. It multiplies and rotates
/// eight bytes at a time.
struct Hasher(u64);

impl Default for Hasher {
    fn default() -> Self {
        Hasher(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher {
    fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29) ^ (self.0 >> 32);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_le_bytes(last));
    }

    fn key_value(&mut self, kv: &KeyValue) {
        self.bytes(&kv.key);
        self.bytes(&kv.value);
        self.number(kv.create_revision.0);
        self.number(kv.mod_revision.0);
        self.number(kv.version);
        self.number(kv.lease.0.cast_unsigned());
    }

    fn finish(mut self) -> u64 {
        self.number(0);
        self.number(0);
        self.0
    }
}
