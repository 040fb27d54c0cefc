//! The state's tables: RocksDB, or in a simulation, tables in memory that are flushed together to the simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes};
use quorate_mvcc::{Backend, BackendError, Cursor, MemoryBackend, Table, WriteBatch};

use super::planted::{self, Bug};
use super::process::{self, Process};
use crate::platform::fs::{self, File, FileExt};
use crate::raft::lifecycle::closing::CloseSignal;
use crate::raft::state::backend::{BackendContext, RocksBackend, RocksBatch, RocksCursor};
use crate::raft::state::snapshot::sync_directory;
use crate::raft::state::store::APPLIED;

const ROWS: &str = "ROWS";
/// Percentage of batches after which everything is flushed, as RocksDB does when its buffers are full.
const FLUSH_PERCENT: u64 = 2;

/// An open state database, real or simulated.
pub enum EitherBackend {
    Rocks(RocksBackend),
    Simulated(SimulatedBackend),
}

impl EitherBackend {
    pub fn open(path: &Path, context: &BackendContext) -> io::Result<Self> {
        if process::is_simulated() {
            return SimulatedBackend::open(path, context.closed.clone()).map(EitherBackend::Simulated);
        }
        RocksBackend::open(path, context).map(EitherBackend::Rocks)
    }

    pub fn make_obsolete(&self) {
        match self {
            EitherBackend::Rocks(backend) => backend.make_obsolete(),
            EitherBackend::Simulated(backend) => backend.is_obsolete.store(true, Ordering::Relaxed),
        }
    }

    pub fn flush(&self) -> io::Result<()> {
        match self {
            EitherBackend::Rocks(backend) => backend.flush(),
            EitherBackend::Simulated(backend) => backend.save(&backend.path),
        }
    }

    pub fn checkpoint(&self, path: &Path) -> io::Result<()> {
        match self {
            EitherBackend::Rocks(backend) => backend.checkpoint(path),
            EitherBackend::Simulated(backend) => {
                fs::create_dir(path)?;
                backend.save(path)
            }
        }
    }

    pub fn try_checkpoint(&self, path: &Path) -> io::Result<()> {
        match self {
            EitherBackend::Rocks(backend) => backend.try_checkpoint(path),
            EitherBackend::Simulated(_) => self.checkpoint(path),
        }
    }

    pub fn verify(&self) -> io::Result<()> {
        match self {
            EitherBackend::Rocks(backend) => backend.verify(),
            EitherBackend::Simulated(_) => Ok(()),
        }
    }

    pub fn has_background_errors(&self) -> bool {
        match self {
            EitherBackend::Rocks(backend) => backend.has_background_errors(),
            EitherBackend::Simulated(_) => false,
        }
    }

    pub fn meet_background_errors(&self) {
        match self {
            EitherBackend::Rocks(backend) => backend.meet_background_errors(),
            EitherBackend::Simulated(_) => {}
        }
    }

    pub fn size_bytes(&self) -> u64 {
        match self {
            EitherBackend::Rocks(backend) => backend.size_bytes(),
            EitherBackend::Simulated(_) => 0,
        }
    }
}

/// Tables in memory, and the directory that they are flushed to.
pub struct SimulatedBackend {
    rows: MemoryBackend,
    path: PathBuf,
    is_obsolete: AtomicBool,
    _closed: Arc<CloseSignal>,
}

impl SimulatedBackend {
    fn open(path: &Path, closed: Arc<CloseSignal>) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let rows = MemoryBackend::default();
        if fs::exists(path.join(ROWS))? {
            let mut saved = Bytes::from(fs::read(path.join(ROWS))?);
            let mut batch = rows.batch();
            while saved.has_remaining() {
                let table = Table::ALL[usize::from(saved.get_u8())];
                let length = saved.get_u32() as usize;
                let key = saved.split_to(length);
                let length = saved.get_u32() as usize;
                batch.put(table, &key, &saved.split_to(length));
            }
            rows.write(batch).map_err(io::Error::other)?;
        }
        Ok(SimulatedBackend { rows, path: path.to_owned(), is_obsolete: AtomicBool::new(false), _closed: closed })
    }

    /// Writes all tables into `directory`, atomically.
    fn save(&self, directory: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (table, key, row) in self.rows.dump() {
            bytes.put_u8(table as u8);
            for part in [key, row] {
                bytes.put_u32(u32::try_from(part.len()).map_err(io::Error::other)?);
                bytes.extend_from_slice(&part);
            }
        }
        let temporary = directory.join("ROWS.new");
        let file = File::create(&temporary)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, directory.join(ROWS))?;
        sync_directory(directory)
    }
}

impl Drop for SimulatedBackend {
    fn drop(&mut self) {
        if self.is_obsolete.load(Ordering::Relaxed) && Process::current().is_some_and(|process| !process.is_dead()) {
            fs::remove_dir_all(&self.path).expect("it is there");
        }
    }
}

impl Backend for EitherBackend {
    type Batch = EitherBatch;
    type Cursor<'a> = EitherCursor<'a>;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        match self {
            EitherBackend::Rocks(backend) => backend.get(table, key),
            EitherBackend::Simulated(backend) => backend.rows.get(table, key),
        }
    }

    fn cursor(&self, table: Table, lower: &[u8], upper: Option<&[u8]>) -> EitherCursor<'_> {
        match self {
            EitherBackend::Rocks(backend) => EitherCursor::Rocks(backend.cursor(table, lower, upper)),
            EitherBackend::Simulated(backend) => EitherCursor::Simulated(backend.rows.cursor(table, lower, upper)),
        }
    }

    fn batch(&self) -> EitherBatch {
        match self {
            EitherBackend::Rocks(backend) => EitherBatch::Rocks(backend.batch()),
            EitherBackend::Simulated(backend) => EitherBatch::Simulated(backend.rows.batch()),
        }
    }

    fn try_write(&self, batch: EitherBatch) -> Result<(), BackendError> {
        match (self, batch) {
            (EitherBackend::Rocks(backend), EitherBatch::Rocks(batch)) => backend.try_write(batch),
            (_, batch) => self.write(batch),
        }
    }

    fn write(&self, batch: EitherBatch) -> Result<(), BackendError> {
        match (self, batch) {
            (EitherBackend::Rocks(backend), EitherBatch::Rocks(batch)) => backend.write(batch),
            (EitherBackend::Simulated(backend), EitherBatch::Simulated(batch)) => {
                backend.rows.write(batch)?;
                let is_full = Process::current().is_some_and(|process| process.random().percent(FLUSH_PERCENT));
                if is_full {
                    backend.save(&backend.path).map_err(|error| BackendError::Write(error.to_string()))?;
                }
                Ok(())
            }
            _ => unreachable!("a batch of another backend"),
        }
    }
}

pub enum EitherBatch {
    Rocks(RocksBatch),
    Simulated(<MemoryBackend as Backend>::Batch),
}

impl WriteBatch for EitherBatch {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if key == APPLIED && planted::is(Bug::LosesPosition) {
            return;
        }
        match self {
            EitherBatch::Rocks(batch) => batch.put(table, key, value),
            EitherBatch::Simulated(batch) => batch.put(table, key, value),
        }
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        match self {
            EitherBatch::Rocks(batch) => batch.delete(table, key),
            EitherBatch::Simulated(batch) => batch.delete(table, key),
        }
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) {
        match self {
            EitherBatch::Rocks(batch) => batch.delete_range(table, from, to),
            EitherBatch::Simulated(batch) => batch.delete_range(table, from, to),
        }
    }
}

pub enum EitherCursor<'a> {
    Rocks(RocksCursor<'a>),
    Simulated(<MemoryBackend as Backend>::Cursor<'a>),
}

impl Cursor for EitherCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, BackendError> {
        match self {
            EitherCursor::Rocks(cursor) => cursor.seek(key),
            EitherCursor::Simulated(cursor) => cursor.seek(key),
        }
    }

    fn next(&mut self) -> Result<bool, BackendError> {
        match self {
            EitherCursor::Rocks(cursor) => cursor.next(),
            EitherCursor::Simulated(cursor) => cursor.next(),
        }
    }

    fn key(&self) -> &[u8] {
        match self {
            EitherCursor::Rocks(cursor) => cursor.key(),
            EitherCursor::Simulated(cursor) => cursor.key(),
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            EitherCursor::Rocks(cursor) => cursor.value(),
            EitherCursor::Simulated(cursor) => cursor.value(),
        }
    }
}
