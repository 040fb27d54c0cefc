//! An index of the objects that the pods of each node refer to. It follows the store, so no request scans the pods.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_api::{ObjectKey, ResourcePrefix, Revision, Status};
use quorate_mvcc::{CommandError, Event, KeyRange, KeyValue, RangeRequest, next_key};
use quorate_registry::pod::{self, PodReferences, ReferenceKind};
use quorate_store::{Consistency, Store, StoreError, WatchError};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error;

/// Number of pods that are read from the store at once.
const PAGE: u64 = 500;
/// Delay between attempts when the store fails.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Time for which a request waits until the index reaches the revision that this member has applied.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(3);

/// An object whose relation to a node is checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Related<'a> {
    Pod {
        namespace: &'a str,
        name: &'a str,
    },
    Named {
        kind: ReferenceKind,
        namespace: &'a str,
        name: &'a str,
    },
    /// A persistent volume whose claim a pod of the node uses.
    Volume {
        name: &'a str,
    },
}

/// The index. [`NodeRelations::follow`] keeps it up to date.
pub(crate) struct NodeRelations {
    index: RwLock<Index>,
    reached: watch::Sender<Revision>,
}

impl Default for NodeRelations {
    fn default() -> Self {
        NodeRelations { index: RwLock::default(), reached: watch::Sender::new(Revision::ZERO) }
    }
}

impl NodeRelations {
    /// Returns whether the node's pods refer to this object, so that the node may read it.
    ///
    /// The index may lag behind this member, and this member behind others. Before it refuses, the index catches up
    /// with every write that was acknowledged before the call.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the index does not catch up in time.
    pub(super) async fn allows(&self, store: &Store, node: &str, object: &Related<'_>) -> Result<bool, Status> {
        if self.index.read().allows(node, object) {
            return Ok(true);
        }
        self.reach(store.revision()).await?;
        if self.index.read().allows(node, object) {
            return Ok(true);
        }
        store.read_barrier().await.map_err(|e| error::from_store(&e))?;
        self.reach(store.revision()).await?;
        Ok(self.index.read().allows(node, object))
    }

    async fn reach(&self, revision: Revision) -> Result<(), Status> {
        let mut reached = self.reached.subscribe();
        let caught_up = reached.wait_for(|reached| *reached >= revision);
        match tokio::time::timeout(CATCH_UP_WITHIN, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(Status::unavailable("this server does not know yet which pods run on this node; please try again"))
            }
        }
    }

    /// Follows the store until shutdown.
    pub async fn follow(&self, store: &Store, shutdown: CancellationToken) {
        let follow = async {
            let mut listed = None;
            loop {
                let from = match listed {
                    Some(revision) => revision,
                    None => match self.list(store).await {
                        Ok(revision) => revision,
                        Err(error) => {
                            tracing::warn!(%error, "cannot read the pods of the nodes; retrying");
                            tokio::time::sleep(RETRY_AFTER).await;
                            continue;
                        }
                    },
                };
                let (reached, error) = self.watch(store, from).await;
                tracing::debug!(%error, %reached, "the watch of the nodes' pods ended");
                listed = (!matches!(error, WatchError::Compacted { .. })).then_some(reached);
                tokio::time::sleep(RETRY_AFTER).await;
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    /// Rebuilds the index from all pods and volumes at one revision.
    async fn list(&self, store: &Store) -> Result<Revision, StoreError> {
        let revision = store.revision();
        let mut index = Index::default();
        for prefix in [pods(), volumes()] {
            let mut rest = KeyRange::prefix(prefix);
            loop {
                let request = RangeRequest::new(rest.clone()).at(revision).limit(PAGE);
                let page = match store.range(&request, Consistency::Local).await {
                    Err(StoreError::Command(CommandError::Compacted { .. })) => {
                        return Box::pin(self.list(store)).await;
                    }
                    page => page?,
                };
                page.kvs.iter().for_each(|kv| index.put(kv));
                match page.kvs.last() {
                    Some(last) if page.more => rest.start = next_key(&last.key),
                    _ => break,
                }
                tokio::task::yield_now().await;
            }
        }
        *self.index.write() = index;
        self.reached.send_replace(revision);
        Ok(revision)
    }

    /// Applies changes until the watch ends, and returns the revision that it reached.
    async fn watch(&self, store: &Store, from: Revision) -> (Revision, WatchError) {
        let mut reached = from;
        // The watch covers all keys, so that every revision is reported, whichever key it changed.
        let everything = KeyRange::from(Bytes::from_static(b"\0"));
        let mut watch = match store.watch(everything, from) {
            Ok(watch) => watch,
            Err(error) => return (reached, error),
        };
        let (pods, volumes) = (pods(), volumes());
        let concerns = |key: &[u8]| key.starts_with(pods.as_bytes()) || key.starts_with(volumes.as_bytes());
        loop {
            match watch.next().await {
                Some(Ok(batch)) => {
                    let mut events = batch.events.iter().filter(|event| concerns(&event.kv().key)).peekable();
                    if events.peek().is_some() {
                        let mut index = self.index.write();
                        for event in events {
                            match event {
                                Event::Put { kv, .. } => index.put(kv),
                                Event::Delete { .. } => index.remove(&event.kv().key),
                            }
                        }
                    }
                    reached = batch.revision;
                    self.reached.send_replace(reached);
                }
                Some(Err(error)) => return (reached, error),
                None => return (reached, WatchError::Fatal("the watch was closed".to_owned())),
            }
        }
    }
}

fn prefix(resource: &str) -> String {
    ResourcePrefix { group: String::new(), resource: resource.to_owned(), namespace: None }.storage_prefix()
}

fn pods() -> String {
    prefix("pods")
}

fn volumes() -> String {
    prefix("persistentvolumes")
}

/// A namespace and a name.
type Name = (String, String);

#[derive(Default)]
struct Index {
    /// References of the pods that are bound to a node.
    pods: HashMap<Name, PodReferences>,
    /// For each node, the number of its pods that refer to an object.
    named: HashMap<String, HashMap<(ReferenceKind, String, String), usize>>,
    /// The claim of each bound persistent volume.
    claims: HashMap<String, Name>,
}

impl Index {
    fn allows(&self, node: &str, object: &Related<'_>) -> bool {
        let names = |kind, (namespace, name): (&str, &str)| {
            let named = self.named.get(node);
            named.is_some_and(|named| named.contains_key(&(kind, namespace.to_owned(), name.to_owned())))
        };
        match *object {
            Related::Pod { namespace, name } => {
                let pod = self.pods.get(&(namespace.to_owned(), name.to_owned()));
                pod.is_some_and(|pod| pod.node == node)
            }
            Related::Named { kind, namespace, name } => names(kind, (namespace, name)),
            Related::Volume { name } => self.claims.get(name).is_some_and(|(namespace, claim)| {
                names(ReferenceKind::PersistentVolumeClaim, (namespace.as_str(), claim.as_str()))
            }),
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        let Some(key) = parse(&kv.key) else { return };
        match key.namespace {
            Some(namespace) => self.put_pod((namespace, key.name), &kv.value),
            None => self.put_volume(key.name, &kv.value),
        }
    }

    fn put_pod(&mut self, name: Name, value: &[u8]) {
        self.remove_pod(&name);
        match pod::references(value) {
            Ok(Some(pod)) => {
                let named = self.named.entry(pod.node.clone()).or_default();
                for (kind, object) in &pod.objects {
                    *named.entry((*kind, name.0.clone(), object.clone())).or_default() += 1;
                }
                self.pods.insert(name, pod);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(namespace = name.0, pod = name.1, %error, "a stored pod cannot be decoded");
            }
        }
    }

    fn put_volume(&mut self, name: String, value: &[u8]) {
        #[derive(Deserialize)]
        struct Volume {
            spec: Spec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            claim_ref: Option<Claim>,
        }
        #[derive(Deserialize)]
        struct Claim {
            namespace: String,
            name: String,
        }
        self.claims.remove(&name);
        if let Ok(Volume { spec: Spec { claim_ref: Some(claim) } }) = serde_json::from_slice(value) {
            self.claims.insert(name, (claim.namespace, claim.name));
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(key) = parse(key) else { return };
        match key.namespace {
            Some(namespace) => self.remove_pod(&(namespace, key.name)),
            None => {
                self.claims.remove(&key.name);
            }
        }
    }

    fn remove_pod(&mut self, name: &Name) {
        let Some(pod) = self.pods.remove(name) else { return };
        let Some(named) = self.named.get_mut(&pod.node) else { return };
        for (kind, object) in pod.objects {
            let object = (kind, name.0.clone(), object);
            match named.get_mut(&object) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    named.remove(&object);
                }
            }
        }
        if named.is_empty() {
            self.named.remove(&pod.node);
        }
    }
}

fn parse(key: &[u8]) -> Option<ObjectKey> {
    ObjectKey::parse(std::str::from_utf8(key).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kv(key: &str, object: &Value) -> KeyValue {
        KeyValue { key: key.to_owned().into(), value: object.to_string().into(), ..KeyValue::default() }
    }

    fn secret(name: &str) -> Related<'_> {
        Related::Named { kind: ReferenceKind::Secret, namespace: "a", name }
    }

    fn pod(node: &str, secrets: &[&str]) -> Value {
        let volume = |name: &&str| json!({ "name": name, "secret": { "secretName": name } });
        json!({ "spec": { "nodeName": node, "containers": [], "volumes": secrets.iter().map(volume).collect::<Vec<_>>() } })
    }

    #[test]
    fn a_node_is_related_to_an_object_while_its_pods_refer_to_it() {
        let mut index = Index::default();
        index.put(&kv("/registry/core/pods/a/p", &pod("n1", &["x", "y"])));
        index.put(&kv("/registry/core/pods/a/q", &pod("n1", &["y"])));
        index.put(&kv("/registry/core/pods/a/unbound", &pod("", &["z"])));
        assert!(index.allows("n1", &secret("x")) && index.allows("n1", &secret("y")));
        assert!(!index.allows("n2", &secret("x")) && !index.allows("n1", &secret("z")));
        let other = Related::Named { kind: ReferenceKind::ConfigMap, namespace: "a", name: "x" };
        assert!(!index.allows("n1", &other), "another kind of the same name");
        let elsewhere = Related::Named { kind: ReferenceKind::Secret, namespace: "b", name: "x" };
        assert!(!index.allows("n1", &elsewhere), "another namespace");
        index.remove(b"/registry/core/pods/a/p");
        assert!(!index.allows("n1", &secret("x")) && index.allows("n1", &secret("y")));
        index.put(&kv("/registry/core/pods/a/q", &pod("n2", &["y"])));
        assert!(
            !index.allows("n1", &secret("y")) && index.allows("n2", &secret("y")),
            "the name of another pod by now"
        );
        index.remove(b"/registry/core/pods/a/q");
        assert!(index.named.is_empty() && index.pods.is_empty());
    }

    #[test]
    fn a_volume_is_related_to_the_node_that_uses_its_claim() {
        let mut index = Index::default();
        let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
        let pod = json!({ "spec": { "nodeName": "n1", "containers": [], "volumes": volumes } });
        index.put(&kv("/registry/core/pods/a/p", &pod));
        let volume = json!({ "spec": { "claimRef": { "namespace": "a", "name": "c" } } });
        index.put(&kv("/registry/core/persistentvolumes/pv", &volume));
        index.put(&kv("/registry/core/persistentvolumes/free", &json!({ "spec": {} })));
        assert!(index.allows("n1", &Related::Volume { name: "pv" }));
        assert!(!index.allows("n1", &Related::Volume { name: "free" }));
        assert!(!index.allows("n2", &Related::Volume { name: "pv" }));
        index.remove(b"/registry/core/persistentvolumes/pv");
        assert!(!index.allows("n1", &Related::Volume { name: "pv" }));
    }
}
