//! Deleting what was compacted: local, in the background, a bounded part at a time. It changes no answer.
//!
//! Every change up to the compacted revision says which version it replaced; that version goes, and so does the change.
//! A deletion's own tombstone goes with it. So the work is in proportion to what changed, not to what there is. The
//! changes of the compacted revision itself stay, because a watch may still start at it; going over them twice does no
//! harm.

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Cursor, Table, WriteBatch};
use crate::layout::{self, EventRow};
use crate::state::State;

/// How far the deletion has come; not kept over a restart.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Everything compacted up to this revision is gone.
    done: Revision,
    /// Where to go on.
    next: [u8; 12],
    /// The changes before this one are gone. It is behind `next` when the deletion was interrupted among the changes of
    /// the compacted revision, which stay until a later compaction.
    trimmed: [u8; 12],
}

impl<B: Backend> State<B> {
    /// Deletes what some `max_events` changes left behind; false when nothing is left to delete. Runs beside readers
    /// and the writer.
    ///
    /// # Errors
    /// When the backend cannot be read or written; it can be tried again.
    pub fn compact_some(&self, max_events: usize) -> Result<bool, BackendError> {
        let mut progress = self.compaction.lock();
        let compacted = self.compacted();
        if progress.done >= compacted {
            return Ok(false);
        }
        let (lower, keep_from) = (progress.next, layout::event_key(compacted, 0));
        let upper = layout::event_key(compacted.next(), 0);
        let mut batch = self.backend.batch();
        let mut tombstones: Vec<(Bytes, Revision)> = Vec::new();
        let mut row_key = Vec::new();
        let mut cursor = self.backend.cursor(Table::Events, &lower, Some(&upper));
        let mut found = cursor.seek(&lower)?;
        let mut seen = 0;
        while found && seen < max_events {
            let row = EventRow::read(cursor.key(), cursor.value())?;
            if !row.previous.is_zero() {
                layout::version_key(row.key, row.previous, &mut row_key);
                batch.delete(Table::Versions, &row_key);
            }
            if row.is_delete {
                layout::version_key(row.key, row.revision, &mut row_key);
                batch.delete(Table::Versions, &row_key);
                tombstones.push((Bytes::copy_from_slice(row.key), row.revision));
            }
            seen += 1;
            found = cursor.next()?;
        }
        let mut next = upper;
        if found {
            next = cursor.key().try_into().map_err(|_| layout::corrupt(Table::Events, cursor.key(), "not a change"))?;
        }
        drop(cursor);
        let trim_to = next.min(keep_from);
        if progress.trimmed < trim_to {
            batch.delete_range(Table::Events, &progress.trimmed, &trim_to);
        }
        // Readers of the past may wait for this.
        self.backend.try_write(batch)?;
        // After the backend: whoever misses the tombstone in the index finds nothing older in the backend.
        {
            let mut shared = self.shared.write();
            for (key, revision) in tombstones {
                shared.index.drop_tombstone(&key, revision);
            }
        }
        progress.trimmed = progress.trimmed.max(trim_to);
        if found {
            progress.next = next;
        } else {
            progress.done = compacted;
            progress.next = keep_from;
        }
        Ok(found)
    }
}
