//! The expiry of Events: they are deleted after a time without writes, one hour by default.
//!
//! No Event is decoded for this. The store's revision of that time ago separates the old Events from the rest. Each
//! master records revisions from its start on, so a master deletes nothing before it has run for that time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_api::{ObjectKey, Reason, ResourcePrefix, Revision};
use quorate_apiserver::LocalClient;
use quorate_mvcc::{KeyRange, RangeRequest};
use quorate_store::{Consistency, Store, StoreError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::events::recorder::EVENTS;

/// Number of Events deleted before a pause.
const BATCH: u64 = 100;
/// Pause between two batches.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of recorded revisions per lifetime of an Event.
const MARKS_PER_TTL: u32 = 60;

/// The store's revisions over the last lifetime of an Event.
#[derive(Default)]
struct History {
    marks: VecDeque<(Instant, Revision)>,
}

impl History {
    fn mark(&mut self, now: Instant, revision: Revision, ttl: Duration) {
        self.marks.push_back((now, revision));
        // The latest mark older than `ttl` is kept, because it is the boundary.
        while self.marks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= ttl) {
            self.marks.pop_front();
        }
    }

    /// Returns the revision at or before which all writes are older than `ttl`.
    fn boundary(&self, now: Instant, ttl: Duration) -> Option<Revision> {
        let (at, revision) = self.marks.front()?;
        (now.duration_since(*at) >= ttl).then_some(*revision)
    }
}

#[derive(Clone)]
pub(crate) struct EventExpiry {
    store: Store,
    client: LocalClient,
    ttl: Duration,
    history: Arc<Mutex<History>>,
}

impl EventExpiry {
    pub(crate) fn new(store: Store, client: LocalClient, ttl: Duration) -> EventExpiry {
        EventExpiry { store, client, ttl, history: Arc::default() }
    }

    /// Records revisions; runs on every master.
    pub(crate) async fn keep_history(self, shutdown: CancellationToken) {
        loop {
            let now = Instant::now();
            self.history.lock().mark(now, self.store.revision(), self.ttl);
            if shutdown.run_until_cancelled(tokio::time::sleep(self.period())).await.is_none() {
                return;
            }
        }
    }

    /// Deletes old Events; runs on the leader.
    pub(crate) async fn sweep(self, shutdown: CancellationToken) {
        loop {
            if shutdown.run_until_cancelled(tokio::time::sleep(self.period())).await.is_none() {
                return;
            }
            let boundary = self.history.lock().boundary(Instant::now(), self.ttl);
            let Some(boundary) = boundary else { continue };
            match shutdown.run_until_cancelled(self.delete_up_to(boundary)).await {
                Some(Ok(0)) => {}
                Some(Ok(deleted)) => tracing::debug!(deleted, %boundary, "old events deleted"),
                Some(Err(error)) => tracing::warn!(%error, "old events could not be deleted; trying again later"),
                None => return,
            }
        }
    }

    fn period(&self) -> Duration {
        self.ttl / MARKS_PER_TTL
    }

    async fn delete_up_to(&self, boundary: Revision) -> Result<usize, StoreError> {
        let prefix = ResourcePrefix { group: String::new(), resource: "events".to_owned(), namespace: None };
        let mut range = KeyRange::prefix(Bytes::from(prefix.storage_prefix()));
        let mut deleted = 0;
        loop {
            let mut request = RangeRequest::new(range.clone()).limit(BATCH);
            request.keys_only = true;
            request.max_mod_revision = boundary;
            let page = self.store.range(&request, Consistency::Local).await?;
            let Some(last) = page.kvs.last() else { return Ok(deleted) };
            range.start = [last.key.as_ref(), b"\0"].concat().into();
            for kv in &page.kvs {
                let key = std::str::from_utf8(&kv.key).ok().and_then(ObjectKey::parse);
                deleted += match key {
                    Some(key) if self.delete(&key, kv.mod_revision).await => 1,
                    _ => 0,
                };
            }
            if !page.more {
                return Ok(deleted);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Deletes an Event, unless it has been written in the meantime.
    async fn delete(&self, key: &ObjectKey, revision: Revision) -> bool {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"resourceVersion": revision.to_string()}});
        match self.client.delete(&EVENTS, key.namespace.as_deref(), &key.name, options).await {
            Ok(_) => true,
            Err(status) => {
                if !matches!(status.reason, Reason::NotFound | Reason::Conflict) {
                    tracing::debug!(%key, %status, "an old event could not be deleted");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_the_revision_from_one_ttl_ago() {
        let start = Instant::now();
        let ttl = Duration::from_secs(60);
        let mut history = History::default();
        for second in 0..200 {
            let now = start + Duration::from_secs(second);
            history.mark(now, Revision(second), ttl);
            let expected = second.checked_sub(60).map(Revision);
            assert_eq!(history.boundary(now, ttl), expected);
        }
        assert!(history.marks.len() <= 62, "{}", history.marks.len());
    }
}
