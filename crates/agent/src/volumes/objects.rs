//! ConfigMaps and Secrets of pods: fetched when needed, remembered for when no master answers, watched while mounted.

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

/// A shared watch of one object; it ends with its last holder.
pub(crate) struct Watched {
    changes: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

impl Watched {
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

pub(crate) struct Objects {
    cluster: Arc<dyn Cluster>,
    last: Mutex<HashMap<ObjectRef, Object>>,
    watched: Mutex<HashMap<ObjectRef, Weak<Watched>>>,
}

impl Objects {
    pub(crate) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Objects { cluster, last: Mutex::default(), watched: Mutex::default() }
    }

    /// The objects as they are now, or as they last were when no master answers. Absent ones are left out.
    pub(crate) async fn fetch(&self, wanted: &BTreeSet<ObjectRef>) -> Result<Referenced, ClusterError> {
        let mut referenced = Referenced::default();
        for object in wanted {
            match self.fetch_one(object).await? {
                Some(Object::ConfigMap(map)) => {
                    referenced.config_maps.insert(map.metadata.name.clone().unwrap_or_default(), map);
                }
                Some(Object::Secret(secret)) => {
                    referenced.secrets.insert(secret.metadata.name.clone().unwrap_or_default(), secret);
                }
                None => {}
            }
        }
        Ok(referenced)
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
        match fetched {
            Ok(Some(fetched)) => {
                self.last.lock().insert(object.clone(), fetched.clone());
                Ok(Some(fetched))
            }
            Ok(None) => {
                self.last.lock().remove(object);
                Ok(None)
            }
            Err(error @ ClusterError::Unreachable(_)) => match self.last.lock().get(object) {
                Some(last) => Ok(Some(last.clone())),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Tells of changes to an object for as long as the result is held.
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

    /// No pod of this node needs these any more: secrets do not stay in memory longer than they must.
    pub(crate) fn forget_unwatched(&self, still_needed: &BTreeSet<ObjectRef>) {
        self.last.lock().retain(|object, _| still_needed.contains(object));
    }
}
