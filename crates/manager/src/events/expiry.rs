//! Deletes Events that were not written to for an hour.
//!
//! No Event is decoded for that: what the store's revision was an hour ago divides the old ones from the rest. Each
//! master keeps that record from its start on, so nothing is deleted in the first hour of a master's life.

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

/// Events deleted before others get their turn.
const BATCH: u64 = 100;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(100);
/// How finely time is kept.
const MARKS_PER_TTL: u32 = 60;

/// The store's revisions over the last hour or so.
#[derive(Default)]
struct History {
    marks: VecDeque<(Instant, Revision)>,
}

impl History {
    fn mark(&mut self, now: Instant, revision: Revision, ttl: Duration) {
        self.marks.push_back((now, revision));
        // One mark at or before the boundary is kept: it is the boundary.
        while self.marks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= ttl) {
            self.marks.pop_front();
        }
    }

    /// What was written at or before this revision is older than `ttl`.
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

    /// Keeps the record of revisions; runs on every master.
    pub(crate) async fn keep_history(self, shutdown: CancellationToken) {
        loop {
            let now = Instant::now();
            self.history.lock().mark(now, self.store.revision(), self.ttl);
            if shutdown.run_until_cancelled(tokio::time::sleep(self.period())).await.is_none() {
                return;
            }
        }
    }

    /// Deletes what is old; runs on the leader.
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

    /// Unless it has been written to in the meantime.
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
    fn the_boundary_is_the_revision_of_a_lifetime_ago() {
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
