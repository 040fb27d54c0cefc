//! An index of the objects that the pods of each node refer to. It follows the store, so no request scans the pods.

use std::collections::HashMap;
use std::sync::Arc;
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

use super::open_watches::{OpenWatches, WatchPermit};
use crate::error;

/// Number of pods that are read from the store at once.
const PAGE: u64 = 500;
/// Delay between attempts when the store fails.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Time for which a request waits until the index reaches the revision that this member has applied.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(3);

/// An object to which a node may be related.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Related {
    Pod {
        namespace: String,
        name: String,
    },
    Named {
        kind: ReferenceKind,
        namespace: String,
        name: String,
    },
    /// A persistent volume whose claim a pod of the node uses.
    Volume {
        name: String,
    },
}

/// A node, and an object that one of its pods refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeRelation {
    pub node: String,
    pub object: Related,
}

impl NodeRelation {
    /// Returns the reason for a refusal when there is no such relation, in the words of Kubernetes.
    pub fn missing(&self) -> String {
        format!("no relationship found between node '{}' and this object", self.node)
    }
}

/// The index. [`NodeRelations::follow`] keeps it up to date.
pub(crate) struct NodeRelations {
    index: RwLock<Index>,
    reached: watch::Sender<Revision>,
    open_watches: Arc<OpenWatches>,
}

impl Default for NodeRelations {
    fn default() -> Self {
        let reached = watch::Sender::new(Revision::ZERO);
        NodeRelations { index: RwLock::default(), reached, open_watches: Arc::default() }
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
    pub(super) async fn allows(&self, store: &Store, relation: &NodeRelation) -> Result<bool, Status> {
        if self.index.read().allows(relation) {
            return Ok(true);
        }
        self.reach(store.revision()).await?;
        if self.index.read().allows(relation) {
            return Ok(true);
        }
        store.read_barrier().await.map_err(|e| error::from_store(&e))?;
        self.reach(store.revision()).await?;
        Ok(self.index.read().allows(relation))
    }

    /// Opens a watch that rests on this relation; `None` when it has ended meanwhile.
    pub fn open_watch(&self, relation: NodeRelation) -> Option<WatchPermit> {
        // The lock keeps the relation from ending before the watch is known.
        let index = self.index.read();
        index.allows(&relation).then(|| self.open_watches.open(relation))
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
                page.kvs.iter().for_each(|kv| index.put(kv, &mut Vec::new()));
                match page.kvs.last() {
                    Some(last) if page.more => rest.start = next_key(&last.key),
                    _ => break,
                }
                tokio::task::yield_now().await;
            }
        }
        let mut current = self.index.write();
        *current = index;
        self.open_watches.revoke_unless(|relation| current.allows(relation), revision);
        drop(current);
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
                        let (mut index, mut ended) = (self.index.write(), Vec::new());
                        for event in events {
                            match event {
                                Event::Put { kv, .. } => index.put(kv, &mut ended),
                                Event::Delete { .. } => index.remove(&event.kv().key, &mut ended),
                            }
                        }
                        ended.retain(|relation| !index.allows(relation));
                        self.open_watches.revoke(ended, batch.revision);
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
    fn allows(&self, NodeRelation { node, object }: &NodeRelation) -> bool {
        let names = |kind, (namespace, name): (&str, &str)| {
            let named = self.named.get(node);
            named.is_some_and(|named| named.contains_key(&(kind, namespace.to_owned(), name.to_owned())))
        };
        match object {
            Related::Pod { namespace, name } => {
                let pod = self.pods.get(&(namespace.clone(), name.clone()));
                pod.is_some_and(|pod| pod.node == *node)
            }
            Related::Named { kind, namespace, name } => names(*kind, (namespace, name)),
            Related::Volume { name } => self.claims.get(name).is_some_and(|(namespace, claim)| {
                names(ReferenceKind::PersistentVolumeClaim, (namespace.as_str(), claim.as_str()))
            }),
        }
    }

    /// Stores a pod or volume, and adds the relations of the node that end by it to `ended`.
    fn put(&mut self, kv: &KeyValue, ended: &mut Vec<NodeRelation>) {
        let Some(key) = parse(&kv.key) else { return };
        match key.namespace {
            Some(namespace) => self.put_pod((namespace, key.name), &kv.value, ended),
            None => self.put_volume(key.name, &kv.value),
        }
    }

    fn put_pod(&mut self, name: Name, value: &[u8], ended: &mut Vec<NodeRelation>) {
        let old = self.pods.remove(&name);
        match pod::references(value) {
            Ok(Some(pod)) => {
                let named = self.named.entry(pod.node.clone()).or_default();
                for (kind, object) in &pod.objects {
                    *named.entry((*kind, name.0.clone(), object.clone())).or_default() += 1;
                }
                self.pods.insert(name.clone(), pod);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(namespace = name.0, pod = name.1, %error, "a stored pod cannot be decoded");
            }
        }
        // The new references are counted before the old ones go, so that a relation which stays never ends.
        if let Some(old) = old {
            self.drop_references(&name, old, ended);
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

    fn remove(&mut self, key: &[u8], ended: &mut Vec<NodeRelation>) {
        let Some(key) = parse(key) else { return };
        match key.namespace {
            Some(namespace) => {
                let name = (namespace, key.name);
                if let Some(pod) = self.pods.remove(&name) {
                    self.drop_references(&name, pod, ended);
                }
            }
            None => {
                self.claims.remove(&key.name);
            }
        }
    }

    /// Drops the references of a pod that is no longer stored in this form.
    fn drop_references(&mut self, name: &Name, pod: PodReferences, ended: &mut Vec<NodeRelation>) {
        let node = pod.node;
        if self.pods.get(name).is_none_or(|now| now.node != node) {
            let object = Related::Pod { namespace: name.0.clone(), name: name.1.clone() };
            ended.push(NodeRelation { node: node.clone(), object });
        }
        let Some(named) = self.named.get_mut(&node) else { return };
        for (kind, object) in pod.objects {
            let reference = (kind, name.0.clone(), object);
            match named.get_mut(&reference) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    named.remove(&reference);
                    let (kind, namespace, name) = reference;
                    ended.push(NodeRelation { node: node.clone(), object: Related::Named { kind, namespace, name } });
                }
            }
        }
        if named.is_empty() {
            self.named.remove(&node);
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

    fn named(node: &str, kind: ReferenceKind, namespace: &str, name: &str) -> NodeRelation {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        NodeRelation { node: node.to_owned(), object: Related::Named { kind, namespace, name } }
    }

    fn secret(node: &str, name: &str) -> NodeRelation {
        named(node, ReferenceKind::Secret, "a", name)
    }

    fn volume(node: &str, name: &str) -> NodeRelation {
        NodeRelation { node: node.to_owned(), object: Related::Volume { name: name.to_owned() } }
    }

    fn pod(node: &str, secrets: &[&str]) -> Value {
        let volume = |name: &&str| json!({ "name": name, "secret": { "secretName": name } });
        json!({ "spec": { "nodeName": node, "containers": [], "volumes": secrets.iter().map(volume).collect::<Vec<_>>() } })
    }

    #[test]
    fn a_node_is_related_to_an_object_while_its_pods_refer_to_it() {
        let mut index = Index::default();
        index.put(&kv("/registry/core/pods/a/p", &pod("n1", &["x", "y"])), &mut Vec::new());
        index.put(&kv("/registry/core/pods/a/q", &pod("n1", &["y"])), &mut Vec::new());
        index.put(&kv("/registry/core/pods/a/unbound", &pod("", &["z"])), &mut Vec::new());
        assert!(index.allows(&secret("n1", "x")) && index.allows(&secret("n1", "y")));
        assert!(!index.allows(&secret("n2", "x")) && !index.allows(&secret("n1", "z")));
        let other = named("n1", ReferenceKind::ConfigMap, "a", "x");
        assert!(!index.allows(&other), "another kind of the same name");
        let elsewhere = named("n1", ReferenceKind::Secret, "b", "x");
        assert!(!index.allows(&elsewhere), "another namespace");
        index.remove(b"/registry/core/pods/a/p", &mut Vec::new());
        assert!(!index.allows(&secret("n1", "x")) && index.allows(&secret("n1", "y")));
        index.put(&kv("/registry/core/pods/a/q", &pod("n2", &["y"])), &mut Vec::new());
        assert!(
            !index.allows(&secret("n1", "y")) && index.allows(&secret("n2", "y")),
            "the name of another pod by now"
        );
        index.remove(b"/registry/core/pods/a/q", &mut Vec::new());
        assert!(index.named.is_empty() && index.pods.is_empty());
    }

    #[test]
    fn a_volume_is_related_to_the_node_that_uses_its_claim() {
        let mut index = Index::default();
        let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
        let pod = json!({ "spec": { "nodeName": "n1", "containers": [], "volumes": volumes } });
        index.put(&kv("/registry/core/pods/a/p", &pod), &mut Vec::new());
        let bound = json!({ "spec": { "claimRef": { "namespace": "a", "name": "c" } } });
        index.put(&kv("/registry/core/persistentvolumes/pv", &bound), &mut Vec::new());
        index.put(&kv("/registry/core/persistentvolumes/free", &json!({ "spec": {} })), &mut Vec::new());
        assert!(index.allows(&volume("n1", "pv")));
        assert!(!index.allows(&volume("n1", "free")));
        assert!(!index.allows(&volume("n2", "pv")));
        index.remove(b"/registry/core/persistentvolumes/pv", &mut Vec::new());
        assert!(!index.allows(&volume("n1", "pv")));
    }

    #[test]
    fn an_update_ends_only_the_relations_that_it_drops() {
        let mut index = Index::default();
        let mut ended = Vec::new();
        index.put(&kv("/registry/core/pods/a/p", &pod("n1", &["x", "y"])), &mut ended);
        index.put(&kv("/registry/core/pods/a/q", &pod("n1", &["y"])), &mut ended);
        index.put(&kv("/registry/core/pods/a/p", &pod("n1", &["x", "y"])), &mut ended);
        assert_eq!(ended, []);
        index.put(&kv("/registry/core/pods/a/p", &pod("n1", &["y"])), &mut ended);
        assert_eq!(std::mem::take(&mut ended), [secret("n1", "x")]);
        let pod_of = |name: &str| NodeRelation {
            node: "n1".to_owned(),
            object: Related::Pod { namespace: "a".to_owned(), name: name.to_owned() },
        };
        index.remove(b"/registry/core/pods/a/p", &mut ended);
        assert_eq!(std::mem::take(&mut ended), [pod_of("p")]);
        index.put(&kv("/registry/core/pods/a/q", &pod("n2", &["y"])), &mut ended);
        assert_eq!(ended, [pod_of("q"), secret("n1", "y")]);
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_relation() {
        let relations = NodeRelations::default();
        let put = |name: &str, secrets: &[&str]| {
            let mut ended = Vec::new();
            relations.index.write().put(&kv(&format!("/registry/core/pods/a/{name}"), &pod("n1", secrets)), &mut ended);
            relations.open_watches.revoke(ended, Revision(7));
        };
        assert!(relations.open_watch(secret("n1", "x")).is_none(), "there is no relation");
        put("p", &["x"]);
        let (mut first, second) = [(); 2].map(|()| relations.open_watch(secret("n1", "x")).expect("related")).into();
        drop(second);
        assert_eq!(first.revoked_at(), None);
        put("p", &[]);
        assert_eq!((first.revoked().await, first.revoked_at()), (Revision(7), Some(Revision(7))));
        put("p", &["x"]);
        let again = relations.open_watch(secret("n1", "x")).expect("related again");
        drop(first);
        assert_eq!(again.revoked_at(), None);
        assert!(!relations.open_watches.is_empty());
        relations.open_watches.revoke_unless(|_| true, Revision(8));
        assert_eq!(again.revoked_at(), None);
        relations.open_watches.revoke_unless(|_| false, Revision(8));
        assert_eq!(again.revoked_at(), Some(Revision(8)));
        let last = relations.open_watch(secret("n1", "x")).expect("the index knows it");
        drop((again, last));
        assert!(relations.open_watches.is_empty(), "nothing is left behind");
    }
}
