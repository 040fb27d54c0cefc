//! Catching up: reads events for a watcher that starts in the past or was too slow.

use quorate_api::Revision;
use quorate_mvcc::{CommandError, Event, EventPage, KeyRange, ReadError};

use super::live::Watcher;
use super::{Inner, progress_mark};
use crate::platform::tokio;
use crate::watch::{IndexedValue, WatchBatch, WatchError, WatchEvents};

/// Sends pages of events until the watcher has everything that the live watchers have, and adds it to them. Ends early
/// when the watcher is gone, or with an error for the watcher.
pub(super) async fn run(hub: &Inner, range: KeyRange, mut watcher: Watcher) {
    let mut published = hub.published.subscribe();
    loop {
        // A page is read only after the watcher has taken the previous one, because pages cost memory that other
        // watchers may need.
        if !watcher.sender.drained().await {
            return;
        }
        published.mark_unchanged();
        watcher = match rejoin(hub, &range, watcher) {
            Ok(()) => return,
            Err(watcher) => watcher,
        };
        let Some(turn) = watcher.sender.turn().await else { return };
        let mut page = match next_page(hub, &range, watcher.after, watcher.with_previous).await {
            Ok(page) => page,
            Err(error) => {
                return watcher.sender.end(error);
            }
        };
        if page.revision <= watcher.after {
            // The source was reset to an older state and will apply these revisions again. `changed` cannot fail
            // because the hub keeps the sender.
            drop(turn);
            drop(published.changed().await);
            continue;
        }
        watcher.after = page.revision;
        if let Some(IndexedValue { values_of, value, .. }) = &watcher.indexed {
            page.events.retain(|event| values_of(event).is_none_or(|values| values.contains(value)));
        }
        if page.events.is_empty() {
            continue;
        }
        let size_bytes = page.events.iter().map(Event::size_bytes).sum();
        let batch = WatchBatch { revision: page.revision, events: WatchEvents::new(page.events.into()) };
        if !watcher.sender.send(batch, size_bytes, turn).await {
            return;
        }
    }
}

/// Adds the watcher to the live ones if it has everything, after sending it a progress mark.
fn rejoin(hub: &Inner, range: &KeyRange, watcher: Watcher) -> Result<(), Watcher> {
    let mut live = hub.live.lock();
    if watcher.after >= live.delivered() {
        // The channel was drained before, so it has room. If the watcher is gone, the next delivery notices.
        drop(watcher.sender.try_send(progress_mark(watcher.after), 0));
    }
    live.join(range, watcher)
}

async fn next_page(
    hub: &Inner,
    range: &KeyRange,
    after: Revision,
    with_previous: bool,
) -> Result<EventPage, WatchError> {
    if let Some(page) = page_from_ring(hub, range, after, with_previous) {
        return Ok(page);
    }
    let (source, range, max_bytes) = (hub.source.clone(), range.clone(), hub.page_bytes());
    let read = tokio::task::spawn_blocking(move || source.events_since(after, &range, max_bytes, with_previous));
    match read.await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(ReadError::Refused(CommandError::Compacted { requested, compacted }))) => {
            Err(WatchError::Compacted { requested, compacted })
        }
        Ok(Err(error)) => Err(WatchError::Fatal(error.to_string())),
        Err(panicked) => Err(WatchError::Fatal(panicked.to_string())),
    }
}

/// Returns `None` when the ring does not reach back that far, or previous versions cannot be read.
fn page_from_ring(hub: &Inner, range: &KeyRange, after: Revision, with_previous: bool) -> Option<EventPage> {
    let (batches, newest) = {
        let ring = hub.ring.lock();
        (ring.since(after)?, ring.end())
    };
    let mut page = EventPage { events: Vec::new(), revision: after.max(newest), newest };
    let (mut size_bytes, max_bytes) = (0, hub.page_bytes());
    for batch in &batches {
        if size_bytes >= max_bytes {
            page.revision = batch.after;
            break;
        }
        let new = |event: &&Event| event.kv().mod_revision > after && range.contains(&event.kv().key);
        let mut events: Vec<Event> = batch.events.iter().filter(new).cloned().collect();
        if with_previous {
            events = hub.complete(&events)?;
        }
        size_bytes += events.iter().map(Event::size_bytes).sum::<usize>();
        page.events.append(&mut events);
    }
    Some(page)
}
