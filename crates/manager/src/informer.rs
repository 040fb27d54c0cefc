//! The informer lists the whole store at one revision and then watches it. It is this crate's only source of changes.
//! It runs on every master, so a new leader has nothing to load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_api::{ObjectKey, Revision};
use quorate_mvcc::{CommandError, Event, KeyRange, RangeRequest, next_key};
use quorate_store::{Consistency, Store, StoreError, WatchBatch, WatchError};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Update};

/// Time between attempts when the store fails.
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub(crate) struct Informer {
    pub(crate) store: Store,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) page_size: u64,
}

impl Informer {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut listed: Option<Revision> = None;
        loop {
            let from = match listed {
                Some(revision) => revision,
                None => match self.list().await {
                    Ok(revision) => {
                        tracing::info!(%revision, "the informer has listed the store");
                        revision
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the informer cannot list the store; retrying");
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                },
            };
            let (reached, error) = self.watch(from).await;
            match error {
                WatchError::Compacted { .. } => {
                    tracing::info!(%error, "the informer fell behind; it lists the store again");
                    listed = None;
                }
                WatchError::ShuttingDown | WatchError::Fatal(_) => {
                    tracing::warn!(%error, %reached, "the informer's watch ended; resuming it");
                    listed = Some(reached);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Brings the cluster to one revision of the store, page by page. Objects that are already cached at their current
    /// revision are not decoded again, and deleted objects are removed.
    async fn list(&self) -> Result<Revision, StoreError> {
        let revision = self.store.revision();
        let mut known: HashMap<ObjectKey, Revision> = {
            let cache = self.cluster.cache();
            cache.all().map(|(key, entry)| (key.clone(), entry.meta.resource_version)).collect()
        };
        let mut rest = everything();
        loop {
            let request = RangeRequest::new(rest.clone()).at(revision).limit(self.page_size);
            let page = match self.store.range(&request, Consistency::Local).await {
                Ok(page) => page,
                Err(StoreError::Command(CommandError::Compacted { .. })) => return Box::pin(self.list()).await,
                Err(error) => return Err(error),
            };
            let Some(last) = page.kvs.last().map(|kv| kv.key.clone()) else { break };
            let mut updates = Vec::with_capacity(page.kvs.len());
            for kv in page.kvs {
                let Some(key) = object_key(&kv.key) else { continue };
                if known.remove(&key) != Some(kv.mod_revision) {
                    updates.push(Update::Put(key, kv));
                }
            }
            self.cluster.apply(updates, None);
            if !page.more {
                break;
            }
            rest.start = next_key(&last);
            tokio::task::yield_now().await;
        }
        let gone = known.into_keys().map(Update::Delete).collect();
        self.cluster.apply(gone, Some(revision));
        Ok(revision)
    }

    /// Applies changes until the watch ends. Returns the last applied revision and the error.
    async fn watch(&self, from: Revision) -> (Revision, WatchError) {
        let mut reached = from;
        let mut watch = match self.store.watch(everything(), from) {
            Ok(watch) => watch,
            Err(error) => return (reached, error),
        };
        loop {
            match watch.next().await {
                Some(Ok(batch)) => {
                    reached = batch.revision;
                    self.cluster.apply(updates(&batch), Some(reached));
                }
                Some(Err(error)) => return (reached, error),
                None => return (reached, WatchError::Fatal("the watch was closed".to_owned())),
            }
        }
    }
}

/// Returns the range of all keys, not only those of objects. The watch then reports every revision, so a wait for a
/// revision that changed no object cannot hang.
fn everything() -> KeyRange {
    KeyRange::from(Bytes::from_static(b"\0"))
}

fn updates(batch: &WatchBatch) -> Vec<Update> {
    batch
        .events
        .iter()
        .filter_map(|event| {
            let key = object_key(&event.kv().key)?;
            Some(match event {
                Event::Put { kv, .. } => Update::Put(key, kv.clone()),
                Event::Delete { .. } => Update::Delete(key),
            })
        })
        .collect()
}

fn object_key(key: &[u8]) -> Option<ObjectKey> {
    ObjectKey::parse(std::str::from_utf8(key).ok()?)
}
