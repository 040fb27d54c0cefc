//! Replay of events from the tables, for watchers that start in the past or have fallen behind.

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Cursor, Table};
use crate::command::CommandError;
use crate::event::{Event, Previous};
use crate::kv::{KeyRange, KeyValue};
use crate::layout::{self, EventRow};
use crate::state::{ReadError, State};
use crate::view::View;

/// Maximum number of rows read for one page, matching or not. A page ends with a whole revision, so it may exceed this.
const PAGE_ROWS: usize = 20_000;

/// A page of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The events of whole revisions, in order.
    pub events: Vec<Event>,
    /// Last revision that the page covers; the next page starts after it.
    pub revision: Revision,
    /// The newest published revision. The page is the last one when `revision` has reached it.
    pub newest: Revision,
}

/// An event in the range whose versions are not read yet.
struct Found {
    key: Bytes,
    revision: Revision,
    previous: Revision,
    is_delete: bool,
}

impl<B: Backend> State<B> {
    /// Returns a page of the published events of a range after `after`: about `max_bytes` of them, and only whole
    /// revisions. `with_previous` also reads the previous version of each. Events at or before the compacted revision
    /// have no previous version.
    ///
    /// # Errors
    /// `Refused` with `Compacted` when an event after `after` has been compacted.
    pub fn events_since(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
    ) -> Result<EventPage, ReadError> {
        let attempt = || {
            let (newest, compacted) = self.position();
            if is_lost(after, compacted) {
                return Err(ReadError::Refused(CommandError::Compacted { requested: after, compacted }));
            }
            Ok(self.page(after, range, max_bytes, with_previous, (newest, compacted))?)
        };
        if let Some(page) = attempt()?
            && !is_lost(after, self.compacted())
        {
            return Ok(page);
        }
        let _no_deletion = self.compaction.lock();
        attempt()?.ok_or_else(|| self.missing().into())
    }

    /// Reads the previous version of each published event, where it is still retained.
    ///
    /// # Errors
    /// When the backend cannot be read or is damaged.
    pub fn with_previous(&self, events: &[Event]) -> Result<Vec<Event>, BackendError> {
        let view = View { state: self, pending: None };
        let read = |event: &Event| match event.previous() {
            Previous::Unread(revision) => {
                let prev = view.version(&event.kv().key, *revision)?;
                Ok(event.clone().after(prev.into()))
            }
            Previous::None | Previous::Read(_) => Ok(event.clone()),
        };
        events.iter().map(read).collect()
    }

    fn page(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
        (newest, compacted): (Revision, Revision),
    ) -> Result<Option<EventPage>, BackendError> {
        let mut page = EventPage { events: Vec::new(), revision: newest.max(after), newest };
        if after >= newest {
            return Ok(Some(page));
        }
        let view = View { state: self, pending: None };
        let (lower, upper) = (layout::event_key(after.next(), 0), layout::event_key(newest.next(), 0));
        let mut cursor = self.backend.cursor(Table::Events, &lower, Some(&upper));
        let mut found = cursor.seek(&lower)?;
        let (mut rows, mut bytes) = (0, 0);
        let mut last = after;
        while found {
            let row = EventRow::read(cursor.key(), cursor.value())?;
            if row.revision != last && (bytes >= max_bytes || rows >= PAGE_ROWS) {
                page.revision = last;
                break;
            }
            (last, rows) = (row.revision, rows + 1);
            if range.contains(row.key) {
                let change = Found {
                    key: Bytes::copy_from_slice(row.key),
                    revision: row.revision,
                    previous: if row.revision > compacted { row.previous } else { Revision::ZERO },
                    is_delete: row.is_delete,
                };
                let Some(event) = change.read(&view, with_previous)? else { return Ok(None) };
                bytes += event.size_bytes();
                page.events.push(event);
            }
            found = cursor.next()?;
        }
        Ok(Some(page))
    }
}

/// Whether an event after `after` may have been compacted.
fn is_lost(after: Revision, compacted: Revision) -> bool {
    after < compacted && after.next() < compacted
}

impl Found {
    /// Reads the event's versions. Returns `None` when a version has been deleted since.
    fn read<B: Backend>(self, view: &View<'_, B>, with_previous: bool) -> Result<Option<Event>, BackendError> {
        let Found { key, revision, previous, is_delete } = self;
        let prev = match (previous.is_zero(), with_previous) {
            (true, _) => Previous::None,
            (false, false) => Previous::Unread(previous),
            (false, true) => match view.version(&key, previous)? {
                Some(prev) => Previous::Read(prev),
                None => return Ok(None),
            },
        };
        if is_delete {
            let kv = KeyValue { key, mod_revision: revision, ..KeyValue::default() };
            return Ok(Some(Event::Delete { kv, prev }));
        }
        Ok(view.version(&key, revision)?.map(|kv| Event::Put { kv, prev }))
    }
}
