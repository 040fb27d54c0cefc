//! A backend of ordered maps in memory, for tests and for stores that need not outlive their process.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::backend::{Backend, BackendError, Cursor, Table, WriteBatch};

type Rows = BTreeMap<Bytes, Bytes>;

/// A backend in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    tables: RwLock<[Rows; Table::ALL.len()]>,
}

impl MemoryBackend {
    /// Returns every row of every table, to compare two backends.
    #[must_use]
    pub fn dump(&self) -> Vec<(Table, Bytes, Bytes)> {
        let tables = self.tables.read();
        let rows =
            |table: Table| tables[table as usize].iter().map(move |(key, row)| (table, key.clone(), row.clone()));
        Table::ALL.into_iter().flat_map(rows).collect()
    }
}

/// The changes of a batch, in order.
#[derive(Debug, Default)]
pub struct MemoryBatch(Vec<Change>);

#[derive(Debug)]
enum Change {
    Put(Table, Bytes, Bytes),
    Delete(Table, Bytes),
    DeleteRange(Table, Bytes, Bytes),
}

impl WriteBatch for MemoryBatch {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(Change::Put(table, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Change::Delete(table, Bytes::copy_from_slice(key)));
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) {
        self.0.push(Change::DeleteRange(table, Bytes::copy_from_slice(from), Bytes::copy_from_slice(to)));
    }
}

impl Backend for MemoryBackend {
    type Batch = MemoryBatch;
    type Cursor<'a> = MemoryCursor<'a>;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Ok(self.tables.read()[table as usize].get(key).cloned())
    }

    fn cursor(&self, table: Table, lower: &[u8], upper: Option<&[u8]>) -> MemoryCursor<'_> {
        MemoryCursor {
            backend: self,
            table,
            lower: Bytes::copy_from_slice(lower),
            upper: upper.map(Bytes::copy_from_slice),
            row: (Bytes::new(), Bytes::new()),
        }
    }

    fn batch(&self) -> MemoryBatch {
        MemoryBatch::default()
    }

    fn write(&self, batch: MemoryBatch) -> Result<(), BackendError> {
        let mut tables = self.tables.write();
        for change in batch.0 {
            match change {
                Change::Put(table, key, value) => {
                    tables[table as usize].insert(key, value);
                }
                Change::Delete(table, key) => {
                    tables[table as usize].remove(&key);
                }
                Change::DeleteRange(table, from, to) => {
                    let rows = &mut tables[table as usize];
                    while let Some((key, _)) = rows.range::<Bytes, _>(&from..&to).next() {
                        let key = key.clone();
                        rows.remove(&key);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A cursor that looks up each row anew, so that it holds no lock between two steps.
#[derive(Debug)]
pub struct MemoryCursor<'a> {
    backend: &'a MemoryBackend,
    table: Table,
    lower: Bytes,
    upper: Option<Bytes>,
    row: (Bytes, Bytes),
}

impl MemoryCursor<'_> {
    fn go(&mut self, from: Bound<&[u8]>) -> bool {
        let tables = self.backend.tables.read();
        let found = tables[self.table as usize].range::<[u8], _>((from, Bound::Unbounded)).next();
        match found {
            Some((key, value)) if self.upper.as_ref().is_none_or(|upper| key < upper) => {
                self.row = (key.clone(), value.clone());
                true
            }
            _ => false,
        }
    }
}

impl Cursor for MemoryCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, BackendError> {
        let lower = self.lower.clone();
        Ok(self.go(Bound::Included(key.max(&lower))))
    }

    fn next(&mut self) -> Result<bool, BackendError> {
        let key = self.row.0.clone();
        Ok(self.go(Bound::Excluded(&key)))
    }

    fn key(&self) -> &[u8] {
        &self.row.0
    }

    fn value(&self) -> &[u8] {
        &self.row.1
    }
}
