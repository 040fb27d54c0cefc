//! ConfigMaps and Secrets of pods. They are fetched when needed, cached for times without a master, and watched while
//! mounted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{Cluster, ClusterError, ObjectRef};
use crate::env::Referenced;

#[derive(Clone)]
enum Object {
    ConfigMap(ConfigMap),
    Secret(Secret),
}

/// A shared watch of one object. It ends when its last holder drops it.
pub(crate) struct Watched {
    changes: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

impl Watched {
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The result of a fetch.
#[derive(Default)]
pub(crate) struct Fetched {
    pub objects: Referenced,
    /// Why some of the objects are from the cache.
    pub unreachable: Option<ClusterError>,
}

pub(crate) struct Objects {
    cluster: Arc<dyn Cluster>,
    /// Cache of the last known objects. `None` means that the object did not exist.
    last: Mutex<HashMap<ObjectRef, Option<Object>>>,
    watched: Mutex<HashMap<ObjectRef, Weak<Watched>>>,
}

impl Objects {
    pub(crate) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Objects { cluster, last: Mutex::default(), watched: Mutex::default() }
    }

    /// Fetches the objects, or takes them from the cache when no master answers. Absent ones are left out.
    pub(crate) async fn fetch(&self, wanted: &BTreeSet<ObjectRef>) -> Result<Fetched, ClusterError> {
        let mut fetched = Fetched::default();
        for object in wanted {
            let found = match self.fetch_one(object).await {
                Err(error @ ClusterError::Unreachable(_)) => match self.last.lock().get(object) {
                    Some(last) => {
                        fetched.unreachable = Some(error);
                        last.clone()
                    }
                    None => return Err(error),
                },
                found => found?,
            };
            match found {
                Some(Object::ConfigMap(map)) => {
                    fetched.objects.config_maps.insert(map.metadata.name.clone().unwrap_or_default(), map);
                }
                Some(Object::Secret(secret)) => {
                    fetched.objects.secrets.insert(secret.metadata.name.clone().unwrap_or_default(), secret);
                }
                None => {}
            }
        }
        Ok(fetched)
    }

    async fn fetch_one(&self, object: &ObjectRef) -> Result<Option<Object>, ClusterError> {
        let fetched = match object {
            ObjectRef::ConfigMap { namespace, name } => {
                self.cluster.config_map(namespace, name).await.map(|map| map.map(Object::ConfigMap))
            }
            ObjectRef::Secret { namespace, name } => {
                self.cluster.secret(namespace, name).await.map(|secret| secret.map(Object::Secret))
            }
        };
        let fetched = fetched?;
        self.last.lock().insert(object.clone(), fetched.clone());
        Ok(fetched)
    }

    /// Watches an object for as long as the result is held.
    pub(crate) fn watch(&self, object: &ObjectRef) -> Arc<Watched> {
        let mut watched = self.watched.lock();
        if let Some(existing) = watched.get(object).and_then(Weak::upgrade) {
            return existing;
        }
        watched.retain(|_, held| held.strong_count() > 0);
        let (sender, changes) = watch::channel(0);
        let mut stream = self.cluster.changes_of(object);
        let task = tokio::spawn(async move {
            while stream.next().await.is_some() {
                sender.send_modify(|count| *count += 1);
            }
        });
        let entry = Arc::new(Watched { changes, _task: AbortOnDropHandle::new(task) });
        watched.insert(object.clone(), Arc::downgrade(&entry));
        entry
    }

    /// Drops cached objects that no pod of this node needs. Secrets do not stay in memory longer than necessary.
    pub(crate) fn forget_unwatched(&self, still_needed: &BTreeSet<ObjectRef>) {
        self.last.lock().retain(|object, _| still_needed.contains(object));
    }
}
