//! Deletion of compacted versions. It is local to a member, runs in the background in bounded steps, and changes no
//! response.
//!
//! Each event up to the compacted revision names the version that it replaced. The deletion removes that version and
//! the event, and for a delete event the tombstone as well. The work is therefore proportional to the number of
//! changes, not to the number of keys. The events of the compacted revision itself stay, because a watch may still
//! start there; processing them twice does no harm.

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Cursor, Table, WriteBatch};
use crate::layout::{self, EventRow};
use crate::state::State;

/// Progress of the deletion. It is in memory only: a restart begins again with the oldest event.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The compaction up to this revision is deleted completely.
    done: Revision,
    /// Key of the next event to process.
    next: [u8; 12],
    /// Events before this key are deleted. It is behind `next` when the last step ended among the events of the
    /// compacted revision, which stay until a later compaction.
    trimmed: [u8; 12],
}

impl<B: Backend> State<B> {
    /// Processes at most `max_events` events. Returns false when nothing is left to delete. Runs concurrently with
    /// readers and the writer.
    ///
    /// # Errors
    /// When the backend cannot be read or written. The caller may try again.
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
        // Readers may be waiting for the `compaction` lock, so this write must not wait for space.
        self.backend.try_write(batch)?;
        // The index changes after the backend, so that a reader that misses the tombstone in the index finds no older
        // version in the backend.
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
