//! Changes of the log, and batches of them that become durable together.

use std::io;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::index::EntryIndex;
use super::record::{self, RecordKind};
use crate::raft::codec;
use crate::raft::types::{Entry, LogId, Vote};

/// Maximum capacity that the buffer of a batch keeps between two uses.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// The state of the log apart from its entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogHead {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

/// Changes that become durable together, in order. The batch can be cleared and reused.
#[derive(Default)]
pub struct LogBatch {
    pub buffer: Vec<u8>,
    pub records: Vec<BatchRecord>,
}

pub struct BatchRecord {
    /// Start of the record in the buffer.
    pub start: usize,
    pub change: LogChange,
}

/// The change that a record makes to the log.
pub enum LogChange {
    Entry(LogId),
    /// The new last id.
    TruncateAfter(Option<LogId>),
    Vote(Vote),
    Committed(Option<LogId>),
    Purge(LogId),
}

impl LogChange {
    pub fn read(kind: RecordKind, payload: &[u8]) -> io::Result<Self> {
        Ok(match kind {
            RecordKind::Head => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a head in the middle of a segment"));
            }
            // An entry begins with its id.
            RecordKind::Entry => LogChange::Entry(codec::decode_prefix(payload).map_err(invalid_data)?.0),
            RecordKind::Truncate => LogChange::TruncateAfter(decode(payload)?),
            RecordKind::Vote => LogChange::Vote(decode(payload)?),
            RecordKind::Committed => LogChange::Committed(decode(payload)?),
            RecordKind::Purge => LogChange::Purge(decode(payload)?),
        })
    }

    /// Applies the change to the head and the index. `place` is where its record lies in the segment.
    pub fn apply(&self, head: &mut LogHead, index: &mut EntryIndex, place: Range<u32>) {
        match self {
            LogChange::Entry(id) => {
                head.last = Some(*id);
                index.push(id.index, place);
            }
            LogChange::TruncateAfter(last) => {
                head.last = *last;
                index.truncate_from(last.map_or(0, |last| last.index + 1));
            }
            LogChange::Vote(vote) => head.vote = Some(*vote),
            LogChange::Committed(committed) => head.committed = *committed,
            LogChange::Purge(upto) => {
                head.purged = Some(*upto);
                if head.last < Some(*upto) {
                    head.last = Some(*upto);
                    index.truncate_from(0);
                }
            }
        }
    }
}

impl LogBatch {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        self.records.clear();
    }

    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.add(RecordKind::Entry, entry, LogChange::Entry(entry.log_id))
    }

    /// Removes everything after `last`.
    pub fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.add(RecordKind::Truncate, &last, LogChange::TruncateAfter(last))
    }

    /// Removes everything up to and including `upto`.
    pub fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.add(RecordKind::Purge, &upto, LogChange::Purge(upto))
    }

    pub fn vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.add(RecordKind::Vote, vote, LogChange::Vote(*vote))
    }

    pub fn committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.add(RecordKind::Committed, &committed, LogChange::Committed(committed))
    }

    fn add<T: Serialize>(&mut self, kind: RecordKind, value: &T, change: LogChange) -> io::Result<()> {
        let encode = |buffer: &mut Vec<u8>| codec::encode_into(value, buffer).map_err(io::Error::other);
        let start = record::append(&mut self.buffer, kind, encode)?;
        self.records.push(BatchRecord { start, change });
        Ok(())
    }
}

pub fn decode<T: DeserializeOwned>(value: &[u8]) -> io::Result<T> {
    codec::decode(value).map_err(invalid_data)
}

fn invalid_data(error: codec::CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
