//! [`RocksBackend`]: the tables of `quorate-mvcc` as column families of RocksDB.

mod waiting;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_mvcc::{Backend, BackendError, Cursor, Table, WriteBatch};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, DEFAULT_COLUMN_FAMILY_NAME,
    FlushOptions, Options, ReadOptions,
};
use tokio_util::sync::CancellationToken;

use self::waiting::WaitFor;
use super::fault::Fault;
use crate::platform::{exit, fs};
use crate::raft::lifecycle::closing::CloseSignal;
use crate::raft::lifecycle::damage::DamageReport;
use crate::raft::lifecycle::exit_codes::EX_IOERR;
use crate::raft::upkeep::space::Space;

/// Memory limit of all writes that are not flushed yet.
const WRITE_BUFFERS_BYTES: usize = 16 << 20;
const LARGE_TABLE_BUFFER_BYTES: usize = 8 << 20;
const SMALL_TABLE_BUFFER_BYTES: usize = 1 << 20;

/// Limits of how far compactions may be behind. The values are RocksDB's defaults.
const LEVEL_ZERO_FILES: i32 = 36;
const PENDING_COMPACTION_BYTES: usize = 256 << 30;

/// Read-ahead of a scan of the whole database.
const READ_AHEAD_BYTES: usize = 2 << 20;
/// Number of rows after which such a scan checks whether this member shuts down.
const ROWS_BETWEEN_LOOKS: u64 = 1024;

/// Maximum capacity that is allocated in advance for a batch.
const MAX_EXPECTED_CHANGES: usize = 4096;
const MAX_EXPECTED_BYTES: usize = 1 << 20;

/// The parts of the member that a state database uses and shares with other databases.
#[derive(Clone)]
pub struct BackendContext {
    pub cache: Cache,
    pub space: Arc<Space>,
    pub damage: DamageReport,
    pub closed: Arc<CloseSignal>,
    /// Cancelled when the state is closed; writes that wait then fail.
    pub waits: CancellationToken,
}

/// An open state database.
pub struct RocksBackend {
    db: DB,
    space: Arc<Space>,
    damage: DamageReport,
    /// Number of errors in the background that were handled.
    met_errors: AtomicU64,
    waits: CancellationToken,
    /// Size of the last batch, as an estimate of the next one.
    last_changes: AtomicUsize,
    last_bytes: AtomicUsize,
    /// Dropped after `db`.
    directory: OwnedDirectory,
    _closed: Arc<CloseSignal>,
}

/// Removes the directory when the database in it is closed, if the state was replaced.
struct OwnedDirectory {
    path: PathBuf,
    obsolete: AtomicBool,
}

impl RocksBackend {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, context: &BackendContext) -> io::Result<Self> {
        let BackendContext { cache, space, damage, closed, waits } = context;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(256);
        // The two writers, `apply` and the deletion of compacted revisions, take turns anyway. Without concurrent
        // writes an insertion begins where the last one ended, and most keys follow each other.
        options.set_allow_concurrent_memtable_write(false);
        let families = Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(table, cache)));
        let families = families.into_iter().chain([unused_family()]);
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|error| {
            if is_no_space(&error) {
                space.report_full(&error);
            }
            failed("open the state", &handle_error(&error, path, damage))
        })?;
        Ok(RocksBackend {
            db,
            space: space.clone(),
            damage: damage.clone(),
            met_errors: AtomicU64::new(0),
            waits: waits.clone(),
            last_changes: AtomicUsize::new(0),
            last_bytes: AtomicUsize::new(0),
            directory: OwnedDirectory { path: path.to_owned(), obsolete: AtomicBool::new(false) },
            _closed: closed.clone(),
        })
    }

    /// Makes the directory be removed when the database is closed, and ignores further damage to it.
    pub fn make_obsolete(&self) {
        self.damage.set_in_use(false);
        self.directory.obsolete.store(true, Ordering::Relaxed);
    }

    /// Flushes everything written so far to disk.
    pub fn flush(&self) -> io::Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = Table::ALL.map(|table| self.family(table));
        self.flush_when_possible(WaitFor::Anything, || self.db.flush_cfs_opt(&families, &options))
            .map_err(|reason| failed("flush the state", &reason))
    }

    /// Creates a copy of the current database in `path`, made of hard links.
    pub fn checkpoint(&self, path: &Path) -> io::Result<()> {
        self.copy_to(path, WaitFor::Anything)
    }

    /// Does the same as [`RocksBackend::checkpoint`], but does not wait for space, and only briefly for RocksDB.
    pub fn try_checkpoint(&self, path: &Path) -> io::Result<()> {
        self.copy_to(path, WaitFor::Turn)
    }

    fn copy_to(&self, path: &Path, wait: WaitFor) -> io::Result<()> {
        self.flush_when_possible(wait, || Checkpoint::new(&self.db)?.create_checkpoint(path))
            .map_err(|reason| failed("make a checkpoint", &reason))
    }

    /// Reads every row, so that a damaged block is found before the database is copied or installed. Blocks.
    pub fn verify(&self) -> io::Result<()> {
        let failed = |reason: &str| failed("read all of the state", reason);
        for table in Table::ALL {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            options.set_readahead_size(READ_AHEAD_BYTES);
            #[expect(deprecated, reason = "rows hidden by the deletion of a range are copied as well")]
            options.set_ignore_range_deletions(true);
            let mut rows = self.db.raw_iterator_cf_opt(self.family(table), options);
            rows.seek_to_first();
            let mut count: u64 = 0;
            while rows.valid() {
                count += 1;
                if count.is_multiple_of(ROWS_BETWEEN_LOOKS) && self.space.is_closing() {
                    return Err(failed("this member is shutting down"));
                }
                rows.next();
            }
            rows.status().map_err(|error| failed(&self.handle_error(&error)))?;
        }
        Ok(())
    }

    /// Returns whether a flush or a compaction in the background has failed since
    /// [`RocksBackend::meet_background_errors`].
    #[must_use]
    pub fn has_background_errors(&self) -> bool {
        self.background_errors() != self.met_errors.load(Ordering::Relaxed)
    }

    /// Handles errors in the background, which RocksDB otherwise reports only to the next writer. Blocks.
    pub fn meet_background_errors(&self) {
        self.met_errors.store(self.background_errors(), Ordering::Relaxed);
        if let Err(error) = self.probe() {
            let error = self.handle_error(&error);
            tracing::debug!(%error, "RocksDB failed in the background");
        }
    }

    /// Returns the number of errors in the background so far.
    fn background_errors(&self) -> u64 {
        match self.db.property_int_value(rocksdb::properties::BACKGROUND_ERRORS) {
            Ok(count) => count.unwrap_or(0),
            Err(error) => {
                tracing::warn!(%error, "errors in the background cannot be counted");
                0
            }
        }
    }

    fn handle_error(&self, error: &rocksdb::Error) -> String {
        handle_error(error, &self.directory.path, &self.damage)
    }

    fn read_failed(&self, table: Table, error: &rocksdb::Error) -> BackendError {
        BackendError::Failed { table, message: self.handle_error(error) }
    }

    /// Returns the approximate size of the live data.
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
        let row = self.db.get_cf(self.family(table), key).map_err(|error| self.read_failed(table, &error))?;
        Ok(row.map(Bytes::from))
    }

    fn cursor(&self, table: Table, lower: &[u8], upper: Option<&[u8]>) -> RocksCursor<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        RocksCursor { rows: self.db.raw_iterator_cf_opt(self.family(table), options), backend: self, table }
    }

    fn batch(&self) -> RocksBatch {
        // The next batch will probably be about as long as the last one.
        let (changes, bytes) = (self.last_changes.load(Ordering::Relaxed), self.last_bytes.load(Ordering::Relaxed));
        RocksBatch { changes: Vec::with_capacity(changes), bytes: Vec::with_capacity(bytes) }
    }

    fn write(&self, batch: RocksBatch) -> Result<(), BackendError> {
        self.last_changes.store(batch.changes.len().min(MAX_EXPECTED_CHANGES), Ordering::Relaxed);
        self.last_bytes.store(batch.bytes.len().min(MAX_EXPECTED_BYTES), Ordering::Relaxed);
        self.write_batch(&batch, WaitFor::Anything)
    }

    fn try_write(&self, batch: RocksBatch) -> Result<(), BackendError> {
        self.write_batch(&batch, WaitFor::Turn)
    }
}

impl RocksBackend {
    fn write_batch(&self, batch: &RocksBatch, wait: WaitFor) -> Result<(), BackendError> {
        let options = waiting::write_options();
        self.write_when_possible(wait, || Ok(self.db.write_opt(self.rows(batch), &options)?))
            .map_err(BackendError::Write)
    }

    /// Converts a batch into RocksDB's own form.
    fn rows(&self, batch: &RocksBatch) -> rocksdb::WriteBatch {
        // The lengths, the table and the kind of a change take up to 16 bytes more.
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
                RowChangeKind::Put => rows.put_cf(family, first, second),
                RowChangeKind::Delete => rows.delete_cf(family, first),
                RowChangeKind::DeleteRange => rows.delete_range_cf(family, first, second),
            }
        }
        rows
    }
}

/// Changes to write together. RocksDB's own batch needs the open database to name a column family, and a batch may not
/// borrow it; so the changes are kept in order, with their keys and values in one buffer.
#[derive(Default)]
pub struct RocksBatch {
    changes: Vec<RowChange>,
    bytes: Vec<u8>,
}

struct RowChange {
    kind: RowChangeKind,
    table: Table,
    /// Lengths of the key and the value, or of the two ends of a range.
    first: usize,
    second: usize,
}

#[derive(Clone, Copy)]
enum RowChangeKind {
    Put,
    Delete,
    DeleteRange,
}

impl RocksBatch {
    fn push(&mut self, kind: RowChangeKind, table: Table, first: &[u8], second: &[u8]) {
        self.changes.push(RowChange { kind, table, first: first.len(), second: second.len() });
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
    }
}

impl WriteBatch for RocksBatch {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.push(RowChangeKind::Put, table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.push(RowChangeKind::Delete, table, key, &[]);
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) {
        self.push(RowChangeKind::DeleteRange, table, from, to);
    }
}

/// A cursor on RocksDB's iterator.
pub struct RocksCursor<'a> {
    rows: DBRawIterator<'a>,
    backend: &'a RocksBackend,
    table: Table,
}

impl RocksCursor<'_> {
    fn is_on_a_row(&self) -> Result<bool, BackendError> {
        if self.rows.valid() {
            return Ok(true);
        }
        self.rows.status().map(|()| false).map_err(|error| self.backend.read_failed(self.table, &error))
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
    // Writes stop when compactions are far behind, and are not slowed down before: each attempt of a write that does
    // not wait inside RocksDB would delay the next attempt.
    options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_FILES);
    options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_FILES);
    options.set_soft_pending_compaction_bytes_limit(PENDING_COMPACTION_BYTES);
    options.set_hard_pending_compaction_bytes_limit(PENDING_COMPACTION_BYTES);
    options
}

/// Returns the default column family, which RocksDB requires. Its buffer is small, because after a full disk RocksDB
/// waits for space for the largest buffer.
fn unused_family() -> ColumnFamilyDescriptor {
    let mut options = Options::default();
    options.set_write_buffer_size(SMALL_TABLE_BUFFER_BYTES);
    ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options)
}

fn is_no_space(error: &rocksdb::Error) -> bool {
    Fault::of(error.as_ref()) == Fault::NoSpace
}

/// Acts on an error by its class: ends the process after a failed sync, and reports damage. Returns the message for the
/// caller. Every error of the database passes through this function.
fn handle_error(error: &rocksdb::Error, path: &Path, damage: &DamageReport) -> String {
    match Fault::of(error.as_ref()) {
        Fault::SyncFailed => {
            // The contents of the disk are unknown, and the kernel may have dropped the pages; the same as for the log.
            tracing::error!(%error, "the state cannot be synced; this process ends");
            exit(EX_IOERR)
        }
        Fault::Damage => damage.report(format!("{} is damaged ({error})", path.display())),
        Fault::NoSpace | Fault::HeldUp | Fault::Other => error.to_string(),
    }
}

fn failed(what: &str, reason: &str) -> io::Error {
    io::Error::other(format!("cannot {what}: {reason}"))
}

#[cfg(test)]
pub mod tests;
