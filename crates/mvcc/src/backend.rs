//! The storage interface of the state machine: four ordered tables, read through cursors and written in atomic batches.

use std::fmt;

use bytes::Bytes;

/// The tables. Each is an ordered map of byte strings (a column family in RocksDB); [`crate::layout`] has the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The retained versions of every key, newest first.
    Versions,
    /// The retained events, in revision order.
    Events,
    Leases,
    /// Single values. Keys that start with `mvcc.` belong to this crate; the backend's owner may store others.
    Meta,
}

impl Table {
    pub const ALL: [Table; 4] = [Table::Versions, Table::Events, Table::Leases, Table::Meta];

    /// The name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Versions => "mvcc",
            Table::Events => "events",
            Table::Leases => "lease",
            Table::Meta => "meta",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure to read or write the tables. A member cannot continue after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    #[error("table {table}: {message}")]
    Failed { table: Table, message: String },
    #[error("write: {0}")]
    Write(String),
    /// A row that this crate cannot have written, or a required row that is missing.
    #[error("table {table} is corrupt at {key:02x?}: {what}")]
    Corrupt { table: Table, key: Vec<u8>, what: &'static str },
}

/// Ordered tables. Readers on other threads run while a batch is written: in each row that they read they see either
/// the whole batch or nothing of it. Rows are deleted only below the compacted revision, where readers no longer need
/// them.
pub trait Backend: Send + Sync + 'static {
    type Batch: WriteBatch;
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// Returns a row, or `None` when there is no such row.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Returns a cursor over the rows from `lower` (included) to `upper` (excluded; `None` means the end of the table).
    /// The cursor has no position before its first `seek`, sees the table as of its creation or later, and never leaves
    /// its bounds.
    fn cursor(&self, table: Table, lower: &[u8], upper: Option<&[u8]>) -> Self::Cursor<'_>;

    /// An empty batch.
    fn batch(&self) -> Self::Batch;

    /// Writes a batch atomically. The backend decides when it becomes durable.
    ///
    /// # Errors
    /// When the batch could not be written. In that case nothing of it was written.
    fn write(&self, batch: Self::Batch) -> Result<(), BackendError>;

    /// Like [`Backend::write`], but fails instead of waiting when there is no space.
    ///
    /// # Errors
    /// As [`Backend::write`], and when there is no space.
    fn try_write(&self, batch: Self::Batch) -> Result<(), BackendError> {
        self.write(batch)
    }
}

/// A forward cursor over the rows of a table.
pub trait Cursor {
    /// Moves to the first row at or after `key`. Returns false when the bounds contain no such row.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn seek(&mut self, key: &[u8]) -> Result<bool, BackendError>;

    /// Moves to the next row. Returns false at the end. May be called only after a `seek` or `next` that returned true.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn next(&mut self) -> Result<bool, BackendError>;

    /// The key of the current row. May be called only after a `seek` or `next` that returned true.
    fn key(&self) -> &[u8];

    /// The value of the current row. May be called only after a `seek` or `next` that returned true.
    fn value(&self) -> &[u8];
}

/// Changes that are written atomically, in the order in which they were added.
pub trait WriteBatch: Send {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);
    fn delete(&mut self, table: Table, key: &[u8]);
    /// Deletes the rows from `from` (included) to `to` (excluded).
    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]);
}
