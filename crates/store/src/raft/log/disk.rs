//! Where the log lies in RocksDB: entries by index in one column family, the few other facts in another.

use std::io;
use std::ops::Range;
use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options};
use rocksdb::{ReadOptions, WriteBatch, WriteOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::raft::closing::CloseSignal;
use crate::raft::codec;
use crate::raft::types::{Entry, LogId, Vote};

const ENTRIES: &str = "entries";
const META: &str = "meta";

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

const WRITE_BUFFER_BYTES: usize = 8 << 20;
const WRITE_BUFFERS: i32 = 2;

/// The open database. Its last owner closes it, and tells `closed`.
pub struct LogDisk {
    db: DB,
    /// Dropped after `db`.
    _closed: CloseSignal,
}

/// What the disk knew when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub size_bytes: u64,
}

impl LogDisk {
    /// Opens or makes the database.
    ///
    /// A torn record at the end of the WAL is what a crash leaves of a write that nobody was told of. Damage anywhere
    /// else would silently drop acknowledged entries with RocksDB's default; here it is an error.
    pub fn open(path: &Path, cache: &Cache, closed: CloseSignal) -> io::Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_paranoid_checks(true);
        options.set_max_background_jobs(2);
        options.set_max_total_wal_size(4 * WRITE_BUFFER_BYTES as u64);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(64);
        options.set_wal_bytes_per_sync(0);
        let families = [ENTRIES, META].map(|name| ColumnFamilyDescriptor::new(name, family_options(cache)));
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|error| failed("open the log", &error))?;
        Ok(LogDisk { db, _closed: closed })
    }

    pub fn recover(&self) -> io::Result<Recovered> {
        let purged: Option<LogId> = self.meta(PURGED)?;
        let mut entries = self.db.raw_iterator_cf(self.family(ENTRIES));
        entries.seek_to_first();
        let first = entries.key().map(decode_index).transpose()?;
        entries.seek_to_last();
        let last: Option<Entry> = entries.value().map(decode).transpose()?;
        entries.status().map_err(|error| failed("read the log", &error))?;
        let expected = purged.map_or(0, |id| id.index + 1);
        if let Some(first) = first
            && first != expected
        {
            let problem = format!("the log begins at {first} instead of {expected}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Recovered {
            vote: self.meta(VOTE)?,
            committed: self.meta(COMMITTED)?,
            last: last.map(|entry| entry.log_id).or(purged),
            purged,
            size_bytes: self.size_bytes()?,
        })
    }

    /// Live bytes, roughly.
    pub fn size_bytes(&self) -> io::Result<u64> {
        let property = |name| {
            let value = self.db.property_int_value_cf(self.family(ENTRIES), name);
            value.map(Option::unwrap_or_default).map_err(|error| failed("measure the log", &error))
        };
        Ok(property(rocksdb::properties::ESTIMATE_LIVE_DATA_SIZE)?
            + property(rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES)?)
    }

    /// Entries in `range`, as far as they are there, ending early when `limit_bytes` of encoded entries are reached.
    pub fn entries(&self, range: Range<u64>, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.start.to_be_bytes());
        options.set_iterate_upper_bound(range.end.to_be_bytes());
        let mut cursor = self.db.raw_iterator_cf_opt(self.family(ENTRIES), options);
        cursor.seek_to_first();
        let mut found = Vec::new();
        let mut bytes = 0;
        while let (Some(key), Some(value)) = (cursor.key(), cursor.value()) {
            let index = decode_index(key)?;
            let expected = found.last().map(|entry: &Entry| entry.log_id.index + 1);
            if expected.is_some_and(|expected| expected != index) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a hole in the log before {index}")));
            }
            found.push(decode(value)?);
            bytes += value.len();
            if bytes >= limit_bytes {
                break;
            }
            cursor.next();
        }
        cursor.status().map_err(|error| failed("read the log", &error))?;
        Ok(found)
    }

    /// Writes a batch; with `sync`, returns when it and all before it are durable.
    pub fn write(&self, batch: LogBatch<'_>, sync: bool) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch.batch, &options).map_err(|error| failed("write the log", &error))
    }

    /// Drops files that hold nothing but purged entries.
    pub fn drop_files_before(&self, index: u64) -> io::Result<()> {
        let dropped = self.db.delete_file_in_range_cf(self.family(ENTRIES), 0u64.to_be_bytes(), index.to_be_bytes());
        dropped.map_err(|error| failed("drop purged log files", &error))
    }

    fn meta<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let value = self.db.get_pinned_cf(self.family(META), key).map_err(|error| failed("read the log", &error))?;
        value.map(|value| decode(&value)).transpose()
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with this column family")
    }
}

/// Changes that become durable together.
pub struct LogBatch<'a> {
    disk: &'a LogDisk,
    batch: WriteBatch,
    scratch: Vec<u8>,
}

impl<'a> LogBatch<'a> {
    pub fn new(disk: &'a LogDisk) -> Self {
        LogBatch { disk, batch: WriteBatch::default(), scratch: Vec::new() }
    }

    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.scratch.clear();
        codec::encode_into(entry, &mut self.scratch).map_err(io::Error::other)?;
        self.batch.put_cf(self.disk.family(ENTRIES), entry.log_id.index.to_be_bytes(), &self.scratch);
        Ok(())
    }

    /// Removes everything from `first` on.
    pub fn truncate_from(&mut self, first: u64) {
        let end = [0xff; 9];
        self.batch.delete_range_cf(self.disk.family(ENTRIES), &first.to_be_bytes()[..], &end[..]);
    }

    /// Removes everything up to and including `upto`, and remembers that it did.
    pub fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.put_meta(PURGED, &upto)?;
        let end = upto.index + 1;
        self.batch.delete_range_cf(self.disk.family(ENTRIES), 0u64.to_be_bytes(), end.to_be_bytes());
        Ok(())
    }

    pub fn vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put_meta(VOTE, vote)
    }

    pub fn committed(&mut self, committed: &Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.put_meta(COMMITTED, id),
            None => {
                self.batch.delete_cf(self.disk.family(META), COMMITTED);
                Ok(())
            }
        }
    }

    fn put_meta<T: Serialize>(&mut self, key: &[u8], value: &T) -> io::Result<()> {
        let value = codec::encode(value).map_err(io::Error::other)?;
        self.batch.put_cf(self.disk.family(META), key, value);
        Ok(())
    }
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options
}

fn decode_index(key: &[u8]) -> io::Result<u64> {
    let key = <[u8; 8]>::try_from(key).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a log key of {} bytes instead of 8", key.len()))
    })?;
    Ok(u64::from_be_bytes(key))
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> io::Result<T> {
    codec::decode(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn failed(what: &str, error: &rocksdb::Error) -> io::Error {
    io::Error::other(format!("cannot {what}: {error}"))
}
