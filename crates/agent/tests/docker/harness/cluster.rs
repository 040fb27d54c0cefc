//! The state of the fake masters, and what tests do with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, PodStatus, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use quorate_agent::cluster::{ClusterError, PodChange};
use quorate_agent::plan::PodRef;
use quorate_api::GroupVersionKind;
use quorate_api::patch::strategic;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use super::{NODE, eventually};

/// The fake masters of a test.
pub struct FakeCluster {
    pub(super) pods: Mutex<BTreeMap<String, Pod>>,
    /// The last statuses of pods that were released.
    pub(super) ended: Mutex<BTreeMap<String, PodStatus>>,
    pub(super) watchers: Mutex<Vec<mpsc::UnboundedSender<PodChange>>>,
    /// The uid of the Node that owns the lease, while there is a lease.
    pub lease_owner: Mutex<Option<String>>,
    /// Number of node statuses that were accepted.
    pub node_reports: AtomicUsize,
    /// Statuses of pods are held back while this is set.
    pub holds_reports: AtomicBool,
    /// Number of statuses that are held back.
    pub held_reports: AtomicUsize,
    /// Conditions of other writers before and after a report that has changed them.
    pub overwritten: Mutex<Vec<(Value, Value)>>,
    /// Makes the next watch of an object panic.
    pub panics: AtomicBool,
    pub(super) config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    pub(super) secrets: Mutex<BTreeMap<String, Secret>>,
    pub(super) object_changes: broadcast::Sender<()>,
    pub events: Mutex<Vec<Event>>,
    /// Number of events that were counted instead of being created anew.
    pub repeated_events: AtomicUsize,
    pub node: Mutex<Option<Node>>,
    pub reachable: AtomicBool,
}

impl FakeCluster {
    pub fn new() -> Arc<Self> {
        Arc::new(FakeCluster {
            pods: Mutex::default(),
            ended: Mutex::default(),
            watchers: Mutex::default(),
            lease_owner: Mutex::default(),
            node_reports: AtomicUsize::default(),
            holds_reports: AtomicBool::default(),
            held_reports: AtomicUsize::default(),
            overwritten: Mutex::default(),
            panics: AtomicBool::default(),
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            object_changes: broadcast::channel(64).0,
            events: Mutex::default(),
            repeated_events: AtomicUsize::default(),
            node: Mutex::default(),
            reachable: true.into(),
        })
    }

    /// Sends a change to the watches. The caller holds the lock of the pods, so that the watches have the order of the
    /// changes.
    pub(super) fn send_change(&self, change: &PodChange) {
        self.watchers.lock().retain(|watcher| watcher.send(change.clone()).is_ok());
    }

    pub(super) fn check(&self) -> Result<(), ClusterError> {
        if self.reachable.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(ClusterError::Unreachable("the test has taken the masters away".into()))
        }
    }

    /// Creates a pod on the test's node from its spec.
    pub fn create(&self, name: &str, spec: Value) -> PodRef {
        self.create_annotated(name, &json!({}), spec)
    }

    /// [`FakeCluster::create`] with annotations.
    pub fn create_annotated(&self, name: &str, annotations: &Value, spec: Value) -> PodRef {
        let uid = format!("{name}-{:016x}", rand::random::<u64>());
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "uid": uid, "labels": { "app": name },
                "annotations": annotations },
            "spec": spec,
        }))
        .expect("the test's pod is well-formed");
        let mut pods = self.pods.lock();
        pods.insert(uid.clone(), pod.clone());
        self.send_change(&PodChange::Applied(Box::new(pod)));
        drop(pods);
        PodRef { namespace: "default".to_owned(), name: name.to_owned(), uid }
    }

    /// Changes a pod as a client does.
    pub fn change(&self, pod: &PodRef, change: impl FnOnce(&mut Pod)) {
        let mut pods = self.pods.lock();
        let stored = pods.get_mut(&pod.uid).expect("the pod exists");
        change(stored);
        let changed = stored.clone();
        self.send_change(&PodChange::Applied(Box::new(changed)));
        drop(pods);
    }

    /// Patches a pod's status as a controller does.
    pub fn patch_status(&self, pod: &PodRef, status: &Value) {
        self.apply_patch(pod, &json!({ "status": status })).expect("the pod exists");
    }

    /// Applies a strategic patch of a status as the API does.
    pub(super) fn apply_patch(&self, pod: &PodRef, patch: &Value) -> Result<(), ClusterError> {
        let mut pods = self.pods.lock();
        let Some(stored) = pods.get_mut(&pod.uid) else {
            return Err(not_found("no such pod"));
        };
        let kind = GroupVersionKind { group: "".into(), version: "v1".into(), kind: "Pod".into() };
        let mut document = json!(stored);
        strategic::apply(&kind, &mut document, patch).expect("a patch that the API takes");
        *stored = serde_json::from_value(document).expect("a pod");
        let changed = stored.clone();
        self.send_change(&PodChange::Applied(Box::new(changed)));
        drop(pods);
        Ok(())
    }

    /// Deletes the Node together with the lease that it owns, as the garbage collector does.
    pub fn delete_node(&self) -> String {
        let node = self.node.lock().take().expect("the node is registered");
        let uid = node.metadata.uid.expect("a stored object has a uid");
        let mut owner = self.lease_owner.lock();
        if owner.as_ref() == Some(&uid) {
            *owner = None;
        }
        uid
    }

    /// Requests a graceful deletion.
    pub fn delete(&self, pod: &PodRef, grace_seconds: i64) {
        let mut pods = self.pods.lock();
        let stored = pods.get_mut(&pod.uid).expect("the pod exists");
        stored.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        stored.metadata.deletion_grace_period_seconds = Some(grace_seconds);
        let changed = stored.clone();
        self.send_change(&PodChange::Applied(Box::new(changed)));
        drop(pods);
    }

    /// Deletes the object at once, as a force deletion does. The watch sends an event only if `notified` is set.
    pub fn vanish(&self, pod: &PodRef, notified: bool) {
        let mut pods = self.pods.lock();
        let gone = pods.remove(&pod.uid).expect("the pod exists");
        if notified {
            self.send_change(&PodChange::Deleted(Box::new(gone)));
        }
    }

    pub fn set_config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        map.metadata.name = Some(name.to_owned());
        self.config_maps.lock().insert(name.to_owned(), map);
        self.object_changes.send(()).ok();
    }

    pub fn set_secret(&self, name: &str, data: &[(&str, &str)]) {
        let bytes = |value: &str| k8s_openapi::ByteString(value.as_bytes().to_vec());
        let data: BTreeMap<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), bytes(value))).collect();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        self.secrets.lock().insert(name.to_owned(), secret);
        self.object_changes.send(()).ok();
    }

    pub fn exists(&self, pod: &PodRef) -> bool {
        self.pods.lock().contains_key(&pod.uid)
    }

    pub fn status(&self, pod: &PodRef) -> PodStatus {
        self.pods.lock().get(&pod.uid).and_then(|pod| pod.status.clone()).unwrap_or_default()
    }

    /// Waits until `holds` returns true for the pod's status.
    pub async fn wait(&self, pod: &PodRef, what: &str, holds: impl Fn(&PodStatus) -> bool) -> PodStatus {
        eventually(what, async || {
            let status = self.status(pod);
            let messages = || self.events.lock().iter().filter_map(|event| event.message.clone()).collect::<Vec<_>>();
            if holds(&status) { Ok(status) } else { Err((json!(status), messages())) }
        })
        .await
    }

    /// Waits until the pod's object is gone, and returns its last status.
    pub async fn wait_gone(&self, pod: &PodRef) -> PodStatus {
        eventually("the pod to be gone", async || if self.exists(pod) { Err(json!(self.status(pod))) } else { Ok(()) })
            .await;
        self.ended.lock().get(&pod.uid).cloned().unwrap_or_default()
    }

    /// Waits for an event with this reason whose message contains `part`.
    pub async fn wait_event(&self, reason: &str, part: &str) {
        eventually(&format!("an event {reason} with {part:?}"), async || {
            let events = self.events.lock();
            let of_reason = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
            let messages = of_reason.map(|event| event.message.clone().unwrap_or_default()).collect::<Vec<_>>();
            if messages.iter().any(|message| message.contains(part)) { Ok(()) } else { Err(messages) }
        })
        .await;
    }
}

pub(super) fn not_found(message: &str) -> ClusterError {
    ClusterError::Refused { code: 404, reason: "NotFound".into(), message: message.into() }
}
