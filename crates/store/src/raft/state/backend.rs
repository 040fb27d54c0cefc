//! The tables of `quorate-mvcc` as column families.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_mvcc::{Backend, BackendError, Cursor, Table, WriteBatch};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, FlushOptions};
use rocksdb::{Options, ReadOptions, WriteOptions};

use crate::platform::fs;
use crate::raft::closing::CloseSignal;
use crate::raft::space::Space;

/// All memory for writes that are not flushed yet.
const WRITE_BUFFERS_BYTES: usize = 16 << 20;
const LARGE_TABLE_BUFFER_BYTES: usize = 8 << 20;
const SMALL_TABLE_BUFFER_BYTES: usize = 1 << 20;

/// Between two attempts to write to a full disk.
const SPACE_PAUSE: Duration = Duration::from_millis(200);
/// A disk that is full for longer ends this instance of the state; another is opened when there is space. RocksDB
/// itself looks every five seconds.
const SPACE_PATIENCE: Duration = Duration::from_secs(20);

/// Room that is made beforehand for a batch.
const MAX_EXPECTED_CHANGES: usize = 4096;
const MAX_EXPECTED_BYTES: usize = 1 << 20;

/// What a state database shares with others.
#[derive(Clone)]
pub struct Surroundings {
    pub cache: Cache,
    pub space: Arc<Space>,
    pub closed: Arc<CloseSignal>,
}

/// An open state database.
pub struct RocksBackend {
    db: DB,
    space: Arc<Space>,
    /// Of the last batch.
    last_changes: AtomicUsize,
    last_bytes: AtomicUsize,
    /// Dropped after `db`.
    directory: OwnedDirectory,
    _closed: Arc<CloseSignal>,
}

/// Removes the directory when the database in it is closed, if nobody needs it any more.
struct OwnedDirectory {
    path: PathBuf,
    obsolete: AtomicBool,
}

impl RocksBackend {
    /// Opens or makes the database in `path`.
    pub fn open(path: &Path, surroundings: &Surroundings) -> io::Result<Self> {
        let Surroundings { cache, space, closed } = surroundings;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(256);
        let families = Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(table, cache)));
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|error| {
            if is_no_space(&error) {
                space.exhausted(&error);
            }
            failed("open the state", &error)
        })?;
        let directory = OwnedDirectory { path: path.to_owned(), obsolete: AtomicBool::new(false) };
        let (last_changes, last_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(RocksBackend { db, space: space.clone(), last_changes, last_bytes, directory, _closed: closed.clone() })
    }

    /// Lets the directory go with the database.
    pub fn make_obsolete(&self) {
        self.directory.obsolete.store(true, Ordering::Relaxed);
    }

    /// Puts everything written so far on disk.
    pub fn flush(&self) -> io::Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = Table::ALL.map(|table| self.family(table));
        self.when_there_is_space(|db| db.flush_cfs_opt(&families, &options))
            .map_err(|error| failed("flush the state", &error))
    }

    /// Makes `path` a copy of the database at this moment, by links.
    pub fn checkpoint(&self, path: &Path) -> io::Result<()> {
        self.when_there_is_space(|db| Checkpoint::new(db)?.create_checkpoint(path))
            .map_err(|error| failed("make a checkpoint", &error))
    }

    /// Live bytes, roughly.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let sizes = Table::ALL.map(|table| {
            [rocksdb::properties::ESTIMATE_LIVE_DATA_SIZE, rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES]
                .iter()
                .map(|name| self.db.property_int_value_cf(self.family(table), *name).ok().flatten().unwrap_or(0))
                .sum::<u64>()
        });
        sizes.iter().sum()
    }

    /// Does something that writes; while the disk is full, tries again for a while, unless this member ends.
    fn when_there_is_space<T>(&self, write: impl Fn(&DB) -> Result<T, rocksdb::Error>) -> Result<T, rocksdb::Error> {
        let began = Instant::now();
        loop {
            match write(&self.db) {
                Err(error) if is_no_space(&error) && began.elapsed() < SPACE_PATIENCE && !self.space.is_closing() => {
                    self.space.exhausted(&error);
                }
                done => return done,
            }
            std::thread::sleep(SPACE_PAUSE);
        }
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("opened with a column family for each table")
    }
}

impl Drop for OwnedDirectory {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a replaced state");
        }
    }
}

impl Backend for RocksBackend {
    type Batch = RocksBatch;
    type Cursor<'a> = RocksCursor<'a>;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let row = self.db.get_cf(self.family(table), key).map_err(|error| read_failed(table, &error))?;
        Ok(row.map(Bytes::from))
    }

    fn cursor(&self, table: Table, lower: &[u8], upper: Option<&[u8]>) -> RocksCursor<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        RocksCursor { rows: self.db.raw_iterator_cf_opt(self.family(table), options), table }
    }

    fn batch(&self) -> RocksBatch {
        // The next will be about as long as the last one.
        let (changes, bytes) = (self.last_changes.load(Ordering::Relaxed), self.last_bytes.load(Ordering::Relaxed));
        RocksBatch { changes: Vec::with_capacity(changes), bytes: Vec::with_capacity(bytes) }
    }

    fn write(&self, batch: RocksBatch) -> Result<(), BackendError> {
        self.last_changes.store(batch.changes.len().min(MAX_EXPECTED_CHANGES), Ordering::Relaxed);
        self.last_bytes.store(batch.bytes.len().min(MAX_EXPECTED_BYTES), Ordering::Relaxed);
        let write = |db: &DB| {
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            db.write_opt(self.rows(&batch), &options)
        };
        self.when_there_is_space(write).map_err(|error| BackendError::Write(error.to_string()))
    }
}

impl RocksBackend {
    /// A batch as RocksDB takes it.
    fn rows(&self, batch: &RocksBatch) -> rocksdb::WriteBatch {
        // A row's lengths, table and kind take some bytes more.
        let mut rows = rocksdb::WriteBatch::with_capacity_bytes(batch.bytes.len() + 16 * batch.changes.len() + 64);
        let mut rest = &batch.bytes[..];
        let mut take = |length: usize| {
            let (taken, after) = rest.split_at(length);
            rest = after;
            taken
        };
        for change in &batch.changes {
            let family = self.family(change.table);
            let (first, second) = (take(change.first), take(change.second));
            match change.kind {
                Kind::Put => rows.put_cf(family, first, second),
                Kind::Delete => rows.delete_cf(family, first),
                Kind::DeleteRange => rows.delete_range_cf(family, first, second),
            }
        }
        rows
    }
}

/// Changes to be written together. RocksDB's own batch needs the open database to name a column family, and a batch
/// may not borrow it; so they are kept as they came, their bytes one behind the other.
#[derive(Default)]
pub struct RocksBatch {
    changes: Vec<Change>,
    bytes: Vec<u8>,
}

struct Change {
    kind: Kind,
    table: Table,
    /// Lengths of the key and the value, or of the two ends of a range.
    first: usize,
    second: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

impl RocksBatch {
    fn push(&mut self, kind: Kind, table: Table, first: &[u8], second: &[u8]) {
        self.changes.push(Change { kind, table, first: first.len(), second: second.len() });
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
    }
}

impl WriteBatch for RocksBatch {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.push(Kind::Put, table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.push(Kind::Delete, table, key, &[]);
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) {
        self.push(Kind::DeleteRange, table, from, to);
    }
}

/// A cursor on RocksDB's iterator.
pub struct RocksCursor<'a> {
    rows: DBRawIterator<'a>,
    table: Table,
}

impl RocksCursor<'_> {
    fn is_on_a_row(&self) -> Result<bool, BackendError> {
        if self.rows.valid() {
            return Ok(true);
        }
        self.rows.status().map(|()| false).map_err(|error| read_failed(self.table, &error))
    }
}

impl Cursor for RocksCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, BackendError> {
        self.rows.seek(key);
        self.is_on_a_row()
    }

    fn next(&mut self) -> Result<bool, BackendError> {
        self.rows.next();
        self.is_on_a_row()
    }

    fn key(&self) -> &[u8] {
        self.rows.key().expect("the cursor stands on a row")
    }

    fn value(&self) -> &[u8] {
        self.rows.value().expect("the cursor stands on a row")
    }
}

fn table_options(table: Table, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_max_write_buffer_number(2);
    options.set_write_buffer_size(match table {
        Table::Versions | Table::Events => LARGE_TABLE_BUFFER_BYTES,
        Table::Leases | Table::Meta => SMALL_TABLE_BUFFER_BYTES,
    });
    options
}

/// RocksDB passes on what the system said.
fn is_no_space(error: &rocksdb::Error) -> bool {
    let message = error.to_string();
    message.contains("No space left on device") || message.contains("Disk quota exceeded")
}

fn read_failed(table: Table, error: &rocksdb::Error) -> BackendError {
    BackendError::Failed { table, message: error.to_string() }
}

fn failed(what: &str, error: &rocksdb::Error) -> io::Error {
    io::Error::other(format!("cannot {what}: {error}"))
}
