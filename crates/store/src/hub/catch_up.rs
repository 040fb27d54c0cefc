//! Reading on for a watcher that starts in the past or was too slow.

use quorate_api::Revision;
use quorate_mvcc::{CommandError, Event, EventPage, KeyRange, ReadError};

use super::live::Watcher;
use super::{Inner, progress_mark};
use crate::platform::tokio;
use crate::watch::{WatchBatch, WatchError, WatchEvents};

/// Reads and hands on until the watcher has had everything that the live ones have, and joins it to them. Ends early
/// when the watcher is gone, or with an error for it.
pub(super) async fn run(hub: &Inner, range: KeyRange, mut watcher: Watcher) {
    let mut published = hub.published.subscribe();
    loop {
        // Nothing is read for a watcher that has not taken what it was given: it costs memory, and others may need it.
        if !watcher.sender.drained().await {
            return;
        }
        published.mark_unchanged();
        watcher = match rejoin(hub, &range, watcher) {
            Ok(()) => return,
            Err(watcher) => watcher,
        };
        let Some(turn) = watcher.sender.turn().await else { return };
        let page = match next_page(hub, &range, watcher.after, watcher.with_previous).await {
            Ok(page) => page,
            Err(error) => {
                return watcher.sender.end(error);
            }
        };
        if page.revision <= watcher.after {
            // The source went back; it will get there again. The sender lives as long as the hub.
            drop(turn);
            drop(published.changed().await);
            continue;
        }
        watcher.after = page.revision;
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

/// Joins the live watchers, if nothing is missing; the watcher is told so first.
fn rejoin(hub: &Inner, range: &KeyRange, watcher: Watcher) -> Result<(), Watcher> {
    let mut live = hub.live.lock();
    if watcher.after >= live.delivered() {
        // It was drained before, so there is room. If it is gone, the live watchers notice.
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

/// `None` when the ring does not reach back that far, or does not have all that is wanted.
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
