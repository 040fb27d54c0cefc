//! What the state machine stands on: four ordered tables, read through cursors and written in atomic batches.

use std::fmt;

use bytes::Bytes;

/// The tables; each is an ordered map of byte strings (a column family in RocksDB). [`crate::layout`] says what the
/// rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Every kept version of every key, the newest first.
    Versions,
    /// Every kept change, in the order in which it happened.
    Events,
    Leases,
    /// Single values. Keys that start with `mvcc.` belong to this crate; the backend's owner may keep others.
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

/// The tables could not be read or written. The member that meets one cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    #[error("table {table}: {message}")]
    Failed { table: Table, message: String },
    #[error("write: {0}")]
    Write(String),
    /// A row that this crate did not write that way, or one that should be there and is not.
    #[error("table {table} is corrupt at {key:02x?}: {what}")]
    Corrupt { table: Table, key: Vec<u8>, what: &'static str },
}

/// Ordered tables. Readers on other threads run while a batch is written: they see all of it or nothing of it in each
/// table row they read, and rows that they may still need are only deleted below the compacted revision.
pub trait Backend: Send + Sync + 'static {
    type Batch: WriteBatch;
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// # Errors
    /// When the table cannot be read; a row that is not there is `None`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// A cursor over the rows from `lower` up to, and without, `upper` (`None`: the table's end). It stands nowhere
    /// until it is sent somewhere, sees one consistent moment of the table or a later one, and never leaves its bounds.
    fn cursor(&self, table: Table, lower: &[u8], upper: Option<&[u8]>) -> Self::Cursor<'_>;

    /// An empty batch.
    fn batch(&self) -> Self::Batch;

    /// Writes all of a batch or nothing. How durable it then is, is the backend's business.
    ///
    /// # Errors
    /// When it could not be written; then nothing was.
    fn write(&self, batch: Self::Batch) -> Result<(), BackendError>;

    /// As [`Backend::write`], which may wait until there is space: this does not.
    ///
    /// # Errors
    /// As [`Backend::write`], and when there is no space.
    fn try_write(&self, batch: Self::Batch) -> Result<(), BackendError> {
        self.write(batch)
    }
}

/// Walks the rows of a table upwards.
pub trait Cursor {
    /// Goes to the first row at or after `key`; false when there is none within the bounds.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn seek(&mut self, key: &[u8]) -> Result<bool, BackendError>;

    /// Goes to the next row; false at the end. Only after a `seek` or `next` that answered true.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn next(&mut self) -> Result<bool, BackendError>;

    /// The key it stands at; only after a `seek` or `next` that answered true.
    fn key(&self) -> &[u8];

    /// The value it stands at; only after a `seek` or `next` that answered true.
    fn value(&self) -> &[u8];
}

/// Changes that take effect together, in the order in which they were added.
pub trait WriteBatch: Send {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);
    fn delete(&mut self, table: Table, key: &[u8]);
    /// Deletes the rows from `from` up to, and without, `to`.
    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]);
}
