//! Layout of the rows. All numbers are big endian, so that rows sort by number.
//!
//! | table | key | value |
//! |---|---|---|
//! | `mvcc` | escaped key ∥ `00 00` ∥ complement of the revision (8) | 0 ∥ create revision (8) ∥ version (8) ∥ lease (8) ∥ value, or 1: a tombstone |
//! | `events` | revision (8) ∥ sub-revision (4) | 0 put or 1 delete ∥ revision of the previous version, 0 for none (8) ∥ key |
//! | `lease` | id, offset so that negative ones sort first (8) | TTL in seconds (8) ∥ generation (8) |
//! | `meta` | `mvcc.revision`, `mvcc.compacted` | revision (8) |
//! | `meta` | `mvcc.commands` | version (4) |
//!
//! In an escaped key each `00` is followed by `ff`, so that the rows of different keys never interleave. A key is
//! written at most once in a revision, so its version rows need no sub-revision.

use bytes::{Buf, Bytes};
use quorate_api::Revision;

use crate::backend::{BackendError, Table};
use crate::command::CommandVersion;
use crate::kv::{KeyValue, LeaseId};

/// The newest revision.
pub const META_REVISION: &[u8] = b"mvcc.revision";
/// The compacted revision.
pub const META_COMPACTED: &[u8] = b"mvcc.compacted";
/// The command version that the quorum has agreed on, as a big-endian `u32`.
pub const META_COMMANDS: &[u8] = b"mvcc.commands";

const PUT: u8 = 0;
const DELETE: u8 = 1;
/// Size of the header before the value in a version's row.
const VERSION_HEADER_BYTES: usize = 25;
/// Size of the suffix after the escaped key in the key of a version's row.
const VERSION_SUFFIX_BYTES: usize = 10;

/// Appends the escaped key, which is a lower bound of the rows of this key and of every greater key.
pub fn escape(key: &[u8], out: &mut Vec<u8>) {
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|&b| b == 0) {
        out.extend_from_slice(&rest[..=zero]);
        out.push(0xff);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
}

/// Replaces `out` by the key of a version's row. The newest version sorts first, so a seek to this key finds the newest
/// version that is not newer than `revision`.
pub fn version_key(key: &[u8], revision: Revision, out: &mut Vec<u8>) {
    out.clear();
    escape(key, out);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(!revision.0).to_be_bytes());
}

/// Splits the key of a version's row into the escaped key and the revision.
///
/// # Errors
/// When the row key is too short or has no separator.
pub fn split_version_key(row: &[u8]) -> Result<(&[u8], Revision), BackendError> {
    let at = row
        .len()
        .checked_sub(VERSION_SUFFIX_BYTES)
        .filter(|&at| row[at..at + 2] == [0, 0])
        .ok_or_else(|| corrupt(Table::Versions, row, "key without a revision"))?;
    let mut revision = &row[at + 2..];
    Ok((&row[..at], Revision(!revision.get_u64())))
}

/// Undoes [`escape`].
#[must_use]
pub fn unescape(escaped: &[u8]) -> Bytes {
    if !escaped.contains(&0) {
        return Bytes::copy_from_slice(escaped);
    }
    let mut key = Vec::with_capacity(escaped.len());
    let mut after_zero = false;
    for &byte in escaped {
        if !(after_zero && byte == 0xff) {
            key.push(byte);
        }
        after_zero = byte == 0;
    }
    key.into()
}

/// Replaces `out` by the row of a version. Version 0 is a tombstone.
pub fn version_value(kv: &KeyValue, out: &mut Vec<u8>) {
    out.clear();
    if kv.version == 0 {
        out.push(DELETE);
        return;
    }
    out.reserve(VERSION_HEADER_BYTES + kv.value.len());
    out.push(PUT);
    out.extend_from_slice(&kv.create_revision.0.to_be_bytes());
    out.extend_from_slice(&kv.version.to_be_bytes());
    out.extend_from_slice(&kv.lease.0.to_be_bytes());
    out.extend_from_slice(&kv.value);
}

/// Header of a version's row: everything but the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionHeader {
    pub create_revision: Revision,
    /// 0 in a tombstone.
    pub version: u64,
    pub lease: LeaseId,
}

impl VersionHeader {
    /// Reads the header of a version's row.
    ///
    /// # Errors
    /// When the row is not a version.
    pub fn read(row_key: &[u8], row: &[u8]) -> Result<Self, BackendError> {
        if row.first() == Some(&DELETE) {
            return Ok(VersionHeader { create_revision: Revision::ZERO, version: 0, lease: LeaseId::NONE });
        }
        if row.first() != Some(&PUT) || row.len() < VERSION_HEADER_BYTES {
            return Err(corrupt(Table::Versions, row_key, "not a version"));
        }
        let mut rest = &row[1..];
        Ok(VersionHeader {
            create_revision: Revision(rest.get_u64()),
            version: rest.get_u64(),
            lease: LeaseId(rest.get_i64()),
        })
    }

    /// Copies the value out of a version's row.
    ///
    /// # Errors
    /// When the row is not a version.
    pub fn value(row_key: &[u8], row: &[u8]) -> Result<Bytes, BackendError> {
        let header = VersionHeader::read(row_key, row)?;
        Ok(if header.version == 0 { Bytes::new() } else { Bytes::copy_from_slice(&row[VERSION_HEADER_BYTES..]) })
    }

    /// Builds the whole version. The value shares the memory of `row`.
    #[must_use]
    pub fn with(self, key: Bytes, mod_revision: Revision, row: &Bytes) -> KeyValue {
        let value = if self.version == 0 { Bytes::new() } else { row.slice(VERSION_HEADER_BYTES..) };
        KeyValue {
            key,
            value,
            create_revision: self.create_revision,
            mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// The key of an event's row.
#[must_use]
pub fn event_key(revision: Revision, sub: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[8..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// Replaces `out` by the row of an event.
pub fn event_value(is_delete: bool, previous: Revision, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(if is_delete { DELETE } else { PUT });
    out.extend_from_slice(&previous.0.to_be_bytes());
    out.extend_from_slice(key);
}

/// A row of `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRow<'a> {
    pub revision: Revision,
    pub sub: u32,
    pub is_delete: bool,
    /// The `mod_revision` of the previous version, or zero when the key did not exist.
    pub previous: Revision,
    pub key: &'a [u8],
}

impl<'a> EventRow<'a> {
    /// Reads a row of `events`.
    ///
    /// # Errors
    /// When the row is not an event.
    pub fn read(row_key: &[u8], row: &'a [u8]) -> Result<Self, BackendError> {
        if row_key.len() != 12 || row.len() < 9 || row[0] > DELETE {
            return Err(corrupt(Table::Events, row_key, "not a change"));
        }
        let mut position = row_key;
        let mut rest = row;
        let revision = Revision(position.get_u64());
        let sub = position.get_u32();
        let is_delete = rest.get_u8() == DELETE;
        let previous = Revision(rest.get_u64());
        Ok(EventRow { revision, sub, is_delete, previous, key: rest })
    }
}

/// The key of a lease's row.
#[must_use]
pub fn lease_key(id: LeaseId) -> [u8; 8] {
    (id.0 ^ i64::MIN).to_be_bytes()
}

/// The row of a lease.
#[must_use]
pub fn lease_value(ttl_seconds: u64, generation: u64) -> [u8; 16] {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&ttl_seconds.to_be_bytes());
    row[8..].copy_from_slice(&generation.to_be_bytes());
    row
}

/// Reads the id, the TTL in seconds and the generation of a lease.
///
/// # Errors
/// When the row is not a lease.
pub fn read_lease(row_key: &[u8], row: &[u8]) -> Result<(LeaseId, u64, u64), BackendError> {
    if row_key.len() != 8 || row.len() != 16 {
        return Err(corrupt(Table::Leases, row_key, "not a lease"));
    }
    let (mut id, mut rest) = (row_key, row);
    Ok((LeaseId(id.get_i64() ^ i64::MIN), rest.get_u64(), rest.get_u64()))
}

/// Reads a revision from `meta`.
///
/// # Errors
/// When the row is not 8 bytes long.
pub fn read_meta(row_key: &[u8], row: &[u8]) -> Result<Revision, BackendError> {
    let bytes: [u8; 8] = row.try_into().map_err(|_| corrupt(Table::Meta, row_key, "not a revision"))?;
    Ok(Revision(u64::from_be_bytes(bytes)))
}

/// Reads the command version from `meta`.
///
/// # Errors
/// When the row is not 4 bytes long.
pub fn read_command_version(row: &[u8]) -> Result<CommandVersion, BackendError> {
    let bytes: [u8; 4] = row.try_into().map_err(|_| corrupt(Table::Meta, META_COMMANDS, "not a version"))?;
    Ok(CommandVersion(u32::from_be_bytes(bytes)))
}

pub(crate) fn corrupt(table: Table, key: &[u8], what: &'static str) -> BackendError {
    BackendError::Corrupt { table, key: key.to_vec(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_by_key_and_then_newest_first() {
        let keys: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"\0\xff", b"a", b"a\0", b"a\0b", b"ab", b"\xff"];
        let mut rows = Vec::new();
        for key in keys {
            for revision in [u64::MAX, 300, 2, 1, 0] {
                let mut row = Vec::new();
                version_key(key, Revision(revision), &mut row);
                let (escaped, read) = split_version_key(&row).expect("a row that was just written");
                assert_eq!((unescape(escaped).as_ref(), read), (key, Revision(revision)));
                rows.push(row);
            }
        }
        assert!(rows.is_sorted_by(|a, b| a < b), "{rows:02x?}");
        // Without the suffix, an escaped key sorts before the rows of its key and after those of every smaller key.
        for (i, key) in keys.iter().enumerate() {
            let mut bound = Vec::new();
            escape(key, &mut bound);
            assert!(rows[..i * 5].iter().all(|row| row < &bound), "{key:02x?}");
            assert!(rows[i * 5..].iter().all(|row| row > &bound), "{key:02x?}");
        }
    }

    #[test]
    fn a_version_row_round_trips() {
        let kv = KeyValue {
            key: "k".into(),
            value: "some value".into(),
            create_revision: Revision(3),
            mod_revision: Revision(9),
            version: 4,
            lease: LeaseId(-5),
        };
        let tombstone = KeyValue { key: "k".into(), mod_revision: Revision(10), ..KeyValue::default() };
        for kv in [kv, tombstone] {
            let mut row = Vec::new();
            version_value(&kv, &mut row);
            let header = VersionHeader::read(b"", &row).expect("a row that was just written");
            assert_eq!(VersionHeader::value(b"", &row).expect("a row that was just written"), kv.value);
            assert_eq!(header.with(kv.key.clone(), kv.mod_revision, &row.into()), kv);
        }
    }

    #[test]
    fn event_and_lease_rows_round_trip() {
        let (mut row, key) = (Vec::new(), event_key(Revision(7), 2));
        event_value(true, Revision(5), b"some key", &mut row);
        let expected =
            EventRow { revision: Revision(7), sub: 2, is_delete: true, previous: Revision(5), key: b"some key" };
        assert_eq!(EventRow::read(&key, &row), Ok(expected));
        for id in [i64::MIN, -1, 1, i64::MAX] {
            let read = read_lease(&lease_key(LeaseId(id)), &lease_value(60, 3));
            assert_eq!(read, Ok((LeaseId(id), 60, 3)));
        }
        assert!(lease_key(LeaseId(-1)) < lease_key(LeaseId(1)));
    }

    #[test]
    fn a_damaged_row_is_an_error() {
        assert!(split_version_key(b"").is_err());
        assert!(split_version_key(b"abcdefghijkl").is_err());
        assert!(VersionHeader::read(b"", b"").is_err());
        assert!(VersionHeader::read(b"", &[PUT; 24]).is_err());
        assert!(VersionHeader::read(b"", &[7; 25]).is_err());
        assert!(EventRow::read(&[0; 11], &[0; 9]).is_err());
        assert!(EventRow::read(&[0; 12], &[0; 8]).is_err());
        assert!(EventRow::read(&[0; 12], &[2; 9]).is_err());
        assert!(read_lease(&[0; 8], &[0; 15]).is_err());
        assert!(read_meta(META_REVISION, &[0; 7]).is_err());
    }
}
