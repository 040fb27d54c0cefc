//! In-process cluster for tests: store, API, managers, and fake nodes that report as agents do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use quorate_api::{GroupVersionResource, ObjectKey, ResourcePrefix, Revision, Status};
use quorate_apiserver::{Api, LocalClient, PodDefaults, UserInfo};
use quorate_manager::{Manager, ManagerConfig, ManagerError};
use quorate_mvcc::{Command, CommandVersion, Event, KeyRange, LeaseId, Op, PutRequest, RangeRequest, Reply, Txn};
use quorate_store::handle::Engine;
use quorate_store::traces::Traces;
use quorate_store::{
    Backup, Consistency, Identity, Leadership, MemberId, MemberRole, MemberStatus, QuorumStatus, Reader, StateHash,
    Store, StoreError, Watch, WatchError, WatchOptions,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub static PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
pub static NODES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "nodes");
pub static NAMESPACES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "namespaces");
pub static SERVICES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "services");
pub static ENDPOINTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "endpoints");
pub static ENDPOINT_SLICES: GroupVersionResource =
    GroupVersionResource::from_static("discovery.k8s.io", "v1", "endpointslices");
pub static EVENTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "events");
pub static LEASES: GroupVersionResource = GroupVersionResource::from_static("coordination.k8s.io", "v1", "leases");
pub static DEPLOYMENTS: GroupVersionResource = GroupVersionResource::from_static("apps", "v1", "deployments");
pub static REPLICA_SETS: GroupVersionResource = GroupVersionResource::from_static("apps", "v1", "replicasets");

/// Annotation of a pod that runs but is reported as not ready.
pub const NOT_READY: &str = "test.quorate.io/not-ready";
/// Finalizer that keeps a deleted pod until the test releases it.
const HELD: &str = "test.quorate.io/held";

/// Deadline of every wait; generous enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// View of one master on the shared store. The test sets each master's leadership.
struct Member {
    store: Store,
    leadership: watch::Sender<Leadership>,
    /// Members set by the test, instead of the store's own member.
    members: watch::Sender<Option<Vec<MemberStatus>>>,
}

#[async_trait]
impl Engine for Member {
    async fn propose(&self, command: Command) -> Result<Reply, StoreError> {
        self.store.propose(command).await
    }

    fn traces(&self) -> &Arc<Traces> {
        self.store.traces()
    }

    async fn read_barrier(&self) -> Result<Reader, StoreError> {
        self.store.read_barrier().await
    }

    fn local_reader(&self) -> Result<Reader, StoreError> {
        self.store.local_reader()
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn command_version(&self) -> CommandVersion {
        self.store.command_version()
    }

    fn watch_with(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError> {
        self.store.watch_with(range, after, options)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError> {
        let mut status = self.store.quorum_status().await?;
        if let Some(members) = self.members.borrow().clone() {
            status.members = members;
        }
        Ok(status)
    }

    async fn hash_at(&self, revision: Revision) -> Result<StateHash, StoreError> {
        self.store.hash_at(revision).await
    }

    fn identity(&self) -> Identity {
        self.store.identity()
    }

    async fn lease_remaining(&self, id: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.store.lease_remaining(id).await
    }

    fn mark_watch_progress(&self, at_least: Revision) {
        self.store.mark_watch_progress(at_least);
    }

    async fn compaction_settled(&self) -> Result<(), StoreError> {
        self.store.compaction_settled().await
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        self.store.backup().await
    }

    async fn transfer_leadership(&self, to: MemberId) -> Result<(), StoreError> {
        self.store.transfer_leadership(to).await
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A master whose manager leads when the test elects it.
pub struct Master {
    member: Arc<Member>,
    running: JoinHandle<Result<(), ManagerError>>,
    shutdown: CancellationToken,
    active: watch::Receiver<bool>,
}

impl Master {
    pub fn elect(&self, term: u64) {
        self.member.leadership.send_replace(Leadership { term, leader: None, is_active_leader: true });
    }

    /// Replaces the members of the quorum. Each member is named by the URL of its REST API.
    pub async fn set_members(&self, members: &[(&str, MemberRole)]) {
        let own = self.member.store.quorum_status().await.expect("the store runs").members.remove(0);
        let member = |(url, role): &(&str, MemberRole)| {
            let mut status = own.clone();
            (status.member.name, status.member.api, status.role) = ((*url).to_owned(), (*url).to_owned(), *role);
            status
        };
        self.member.members.send_replace(Some(members.iter().map(member).collect()));
    }

    /// Deposes the master, and returns when its scheduler and controllers have stopped.
    pub async fn depose(&mut self) {
        self.member.leadership.send_modify(|leadership| leadership.is_active_leader = false);
        let stopped = tokio::time::timeout(DEADLINE, self.active.wait_for(|active| !active)).await;
        assert!(stopped.is_ok_and(|active| active.is_ok()), "scheduler and controllers stop in time");
    }

    /// Stops the manager, which must end without an error.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.running).await.expect("the manager stops in time");
        ended.expect("the manager does not panic").expect("the manager ends without an error");
    }
}

pub struct Cluster {
    pub store: Store,
    pub client: LocalClient,
    nodes: JoinSet<()>,
}

impl Cluster {
    pub fn new() -> Cluster {
        let store = Store::memory();
        let api = Api::new(store.clone(), quorate_registry::builtin());
        let client = LocalClient::new(api, UserInfo::master("test"));
        Cluster { store, client, nodes: JoinSet::new() }
    }

    /// Starts a master that does not lead yet.
    pub fn master(&self, config: ManagerConfig) -> Master {
        let member = Arc::new(Member {
            store: self.store.clone(),
            leadership: watch::Sender::default(),
            members: watch::Sender::default(),
        });
        let store = Store::new(member.clone());
        let api = Api::new(store.clone(), quorate_registry::builtin());
        let eviction_after = config.settings.eviction_after;
        api.set_pod_defaults(PodDefaults { eviction_after, ..PodDefaults::default() });
        let shutdown = CancellationToken::new();
        let manager = Manager::new(store, api, config);
        let active = manager.active();
        let running = tokio::spawn(manager.run(shutdown.clone()));
        Master { member, running, shutdown, active }
    }

    /// Starts a cluster with a leading master, and waits for the namespaces that every cluster has.
    pub async fn led(config: ManagerConfig) -> (Cluster, Master) {
        let cluster = Cluster::new();
        let master = cluster.master(config);
        master.elect(1);
        cluster.wait("the default namespace", || cluster.object(&NAMESPACES, None, "default").is_some()).await;
        cluster.wait("the leases' namespace", || cluster.object(&NAMESPACES, None, "kube-node-lease").is_some()).await;
        (cluster, master)
    }

    /// Starts a fake node that renews its lease, runs the pods bound to it and reports them ready. Cancelling the token
    /// stops the node abruptly.
    pub async fn node(&mut self, name: &str) -> CancellationToken {
        self.node_with(name, json!({"cpu": "4", "memory": "8Gi", "pods": "110"})).await
    }

    pub async fn node_with(&mut self, name: &str, allocatable: Value) -> CancellationToken {
        let now = jiff::Timestamp::now().to_string();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels":
            {"kubernetes.io/hostname": name}}});
        self.client.create(&NODES, None, node).await.expect("the node registers");
        let status = json!({"status": {"capacity": allocatable, "allocatable": allocatable, "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
                "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
        self.client.patch_merge(&NODES, None, name, Some("status"), status).await.expect("the node reports");
        // The leader may have tainted the node before its first report, and then removes the taint.
        self.wait("the node to be without taints", || {
            self.object(&NODES, None, name).is_some_and(|node| node["spec"]["taints"].is_null())
        })
        .await;
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 10}});
        self.client.create(&LEASES, Some("kube-node-lease"), lease).await.expect("the lease is made");
        let plug = CancellationToken::new();
        let node = FakeNode { name: name.to_owned(), store: self.store.clone(), client: self.client.clone() };
        let pulled = plug.clone();
        self.nodes.spawn(async move { pulled.run_until_cancelled(node.live()).await.unwrap_or_default() });
        plug
    }

    /// Writes an object unchanged to the store, as a client of the etcd API or an older version could have.
    pub async fn write_past_the_api(&self, key: &str, object: &Value) {
        let put = PutRequest { key: key.to_owned().into(), value: object.to_string().into(), ..PutRequest::default() };
        let txn = Txn { compare: Vec::new(), success: vec![Op::Put(put)], failure: Vec::new() };
        self.store.txn(txn).await.expect("the store writes");
    }

    pub async fn deploy(&self, namespace: &str, name: &str, replicas: u32) {
        let deployment = deployment(name, replicas);
        self.client.create(&DEPLOYMENTS, Some(namespace), deployment).await.expect("the deployment is created");
    }

    pub async fn patch(&self, resource: &GroupVersionResource, name: &str, patch: Value) {
        self.client.patch_merge(resource, Some("default"), name, None, patch).await.expect("the patch applies");
    }

    /// Adds a finalizer to a pod, so that a deletion waits until the pod is released.
    pub async fn hold(&self, pod: &str) {
        self.patch(&PODS, pod, json!({"metadata": {"finalizers": [HELD]}})).await;
    }

    pub async fn release(&self, pod: &str) {
        self.patch(&PODS, pod, json!({"metadata": {"finalizers": null}})).await;
    }

    /// Creates a pod without a controller.
    pub async fn pod(&self, name: &str, spec: Value) -> Result<Value, Status> {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "web", "image": "web:1"}]);
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.client.create(&PODS, Some("default"), pod).await
    }

    pub fn object(&self, resource: &GroupVersionResource, namespace: Option<&str>, name: &str) -> Option<Value> {
        self.list(resource, namespace).into_iter().find(|object| object["metadata"]["name"] == name)
    }

    pub fn list(&self, resource: &GroupVersionResource, namespace: Option<&str>) -> Vec<Value> {
        list(&self.store, resource, namespace)
    }

    /// Returns the changes of objects after a revision, in the order of the store. `None` is a deletion.
    pub async fn history(&self, after: Revision) -> Vec<(ObjectKey, Option<Value>)> {
        let until = self.store.revision();
        let mut reached = after;
        // The watch covers all keys, so that every revision is reported.
        let mut watch = self.store.watch(KeyRange::from(&b"\0"[..]), after).expect("nothing is compacted here");
        let mut history = Vec::new();
        while reached < until {
            let batch = tokio::time::timeout(DEADLINE, watch.next()).await.expect("the watch reports in time");
            let batch = batch.expect("the watch goes on").expect("the store works");
            reached = batch.revision;
            for event in batch.events.iter() {
                let kv = event.kv();
                let Some(key) = std::str::from_utf8(&kv.key).ok().and_then(ObjectKey::parse) else { continue };
                let object = match event {
                    Event::Put { .. } => Some(serde_json::from_slice(&kv.value).expect("stored objects are JSON")),
                    Event::Delete { .. } => None,
                };
                history.push((key, object));
            }
        }
        history
    }

    /// Returns the pods in `default` that are ready and not being deleted.
    pub fn ready_pods(&self) -> Vec<Value> {
        let pods = self.list(&PODS, Some("default"));
        pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_ready(pod)).collect()
    }

    /// Waits for a condition; panics with `what` when it does not become true in time.
    pub async fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let started = Instant::now();
        while !condition() {
            if started.elapsed() > DEADLINE {
                let pods: Vec<String> = self.list(&PODS, None).iter().map(ToString::to_string).collect();
                panic!("timed out waiting for {what}; pods: {}", pods.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns a deployment of `replicas` pods with the label `app: NAME`.
pub fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": "web:1",
                    "resources": {"requests": {"cpu": "100m"}}}]},
            },
        },
    })
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

pub fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

pub fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

fn list(store: &Store, resource: &GroupVersionResource, namespace: Option<&str>) -> Vec<Value> {
    let prefix = ResourcePrefix {
        group: resource.group.to_string(),
        resource: resource.resource.to_string(),
        namespace: namespace.map(str::to_owned),
    };
    let request = RangeRequest::new(KeyRange::prefix(prefix.storage_prefix()));
    let page = store.range(&request, Consistency::Local).now_or_never().expect("a local read does not wait");
    let page = page.expect("the store answers");
    page.kvs.iter().map(|kv| serde_json::from_slice(&kv.value).expect("stored objects are JSON")).collect()
}

struct FakeNode {
    name: String,
    store: Store,
    client: LocalClient,
}

impl FakeNode {
    async fn live(self) {
        let mut renewed: Option<Instant> = None;
        loop {
            if renewed.is_none_or(|at| at.elapsed() > Duration::from_millis(200)) {
                self.renew().await;
                renewed = Some(Instant::now());
            }
            for pod in list(&self.store, &PODS, None) {
                if node_of(&pod) == Some(&self.name) {
                    self.run(&pod).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn renew(&self) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let patch = json!({"spec": {"renewTime": time}});
        let renewal = self.client.patch_merge(&LEASES, Some("kube-node-lease"), &self.name, None, patch);
        renewal.await.expect("the lease can be renewed");
    }

    async fn run(&self, pod: &Value) {
        let namespace = pod["metadata"]["namespace"].as_str();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let uid = &pod["metadata"]["uid"];
        let ready = pod["metadata"]["annotations"][NOT_READY].is_null();
        let result = if !pod["metadata"]["deletionTimestamp"].is_null() {
            let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
            self.client.delete(&PODS, namespace, name, options).await
        } else if is_ready(pod) != ready || pod["status"]["podIP"].is_null() {
            let now = jiff::Timestamp::now().to_string();
            let condition = |kind: &str, holds: bool| {
                let status = if holds { "True" } else { "False" };
                json!({"type": kind, "status": status, "lastTransitionTime": now})
            };
            let patch = json!({"metadata": {"uid": uid}, "status": {"phase": "Running", "podIP": address_of(pod),
                "conditions": [condition("PodScheduled", true), condition("Initialized", true),
                    condition("ContainersReady", ready), condition("Ready", ready)]}});
            self.client.patch_merge(&PODS, namespace, name, Some("status"), patch).await
        } else {
            return;
        };
        if let Err(status) = result {
            // The pod may be gone or replaced by now; the next round uses the new state.
            tracing::debug!(%status, name, "the fake node's write was refused");
        }
    }
}

/// Returns an address that is unique to the pod, derived from its uid.
fn address_of(pod: &Value) -> String {
    let uid = uid_of(pod);
    let number = uid.get(..6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let [_, a, b, c] = number.expect("a uid begins with hexadecimal digits").to_be_bytes();
    format!("10.{a}.{b}.{c}")
}
