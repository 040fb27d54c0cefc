//! An agent with a fake cluster instead of masters.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListContainersOptionsBuilder};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::{
    ConfigMap, ContainerStateTerminated, ContainerStatus, Event, Node, Pod, PodStatus, Secret,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use quorate_agent::cluster::{Cluster, ClusterError, ObjectRef, PodChange, ServiceChange};
use quorate_agent::plan::PodRef;
use quorate_agent::{Agent, AgentConfig, Listen, RuntimeChoice, status_patch};
use quorate_api::GroupVersionKind;
use quorate_api::patch::strategic;
use quorate_pki::LiveIdentity;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;

pub const IMAGE: &str = "quorate/agent-test:1";
pub const NODE: &str = "node-a";
/// Maximum time of a wait. It is long because Docker is slow on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The fake masters of a test.
pub struct FakeCluster {
    pods: Mutex<BTreeMap<String, Pod>>,
    /// The last statuses of pods that were released.
    ended: Mutex<BTreeMap<String, PodStatus>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<PodChange>>>,
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
    config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    secrets: Mutex<BTreeMap<String, Secret>>,
    object_changes: broadcast::Sender<()>,
    pub events: Mutex<Vec<Event>>,
    pub node: Mutex<Option<Node>>,
    pub reachable: AtomicBool,
}

/// Waits until `check` returns `Ok`.
pub async fn eventually<T, E: std::fmt::Debug>(what: &str, check: impl AsyncFn() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(found) => assert!(Instant::now() < deadline, "{what}: still {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
            node: Mutex::default(),
            reachable: true.into(),
        })
    }

    fn send_change(&self, change: &PodChange) {
        self.watchers.lock().retain(|watcher| watcher.send(change.clone()).is_ok());
    }

    fn check(&self) -> Result<(), ClusterError> {
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
        self.pods.lock().insert(uid.clone(), pod.clone());
        self.send_change(&PodChange::Applied(Box::new(pod)));
        PodRef { namespace: "default".to_owned(), name: name.to_owned(), uid }
    }

    /// Changes a pod as a client does.
    pub fn change(&self, pod: &PodRef, change: impl FnOnce(&mut Pod)) {
        let mut pods = self.pods.lock();
        let stored = pods.get_mut(&pod.uid).expect("the pod exists");
        change(stored);
        let changed = stored.clone();
        drop(pods);
        self.send_change(&PodChange::Applied(Box::new(changed)));
    }

    /// Patches a pod's status as a controller does.
    pub fn patch_status(&self, pod: &PodRef, status: &Value) {
        self.apply_patch(pod, &json!({ "status": status })).expect("the pod exists");
    }

    /// Applies a strategic patch of a status as the API does.
    fn apply_patch(&self, pod: &PodRef, patch: &Value) -> Result<(), ClusterError> {
        let mut pods = self.pods.lock();
        let Some(stored) = pods.get_mut(&pod.uid) else {
            return Err(not_found("no such pod"));
        };
        let kind = GroupVersionKind { group: "".into(), version: "v1".into(), kind: "Pod".into() };
        let mut document = json!(stored);
        strategic::apply(&kind, &mut document, patch).expect("a patch that the API takes");
        *stored = serde_json::from_value(document).expect("a pod");
        let changed = stored.clone();
        drop(pods);
        self.send_change(&PodChange::Applied(Box::new(changed)));
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
        drop(pods);
        self.send_change(&PodChange::Applied(Box::new(changed)));
    }

    /// Deletes the object at once, as a force deletion does. The watch sends an event only if `notified` is set.
    pub fn vanish(&self, pod: &PodRef, notified: bool) {
        let gone = self.pods.lock().remove(&pod.uid).expect("the pod exists");
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

#[async_trait]
impl Cluster for FakeCluster {
    fn pods(&self) -> BoxStream<'static, PodChange> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if self.check().is_ok() {
            let all = self.pods.lock().values().cloned().collect();
            sender.send(PodChange::Synced(all)).expect("the receiver is here");
        }
        self.watchers.lock().push(sender);
        UnboundedReceiverStream::new(receiver).boxed()
    }

    fn services(&self) -> BoxStream<'static, ServiceChange> {
        let none = futures::stream::once(std::future::ready(ServiceChange::Synced(Vec::new())));
        none.chain(futures::stream::pending()).boxed()
    }

    fn changes_of(&self, _: &ObjectRef) -> BoxStream<'static, ()> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "the test wants a panic");
        BroadcastStream::new(self.object_changes.subscribe()).map(|_| ()).boxed()
    }

    async fn config_map(&self, _: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError> {
        self.check()?;
        Ok(self.config_maps.lock().get(name).cloned())
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
        self.check()?;
        Ok(self.secrets.lock().get(name).cloned())
    }

    async fn report_pod(&self, pod: &PodRef, status: &PodStatus) -> Result<(), ClusterError> {
        self.held_reports.fetch_add(1, Ordering::SeqCst);
        while self.holds_reports.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.held_reports.fetch_sub(1, Ordering::SeqCst);
        self.check()?;
        let before = foreign_conditions(&self.status(pod));
        self.apply_patch(pod, &status_patch(pod, status))?;
        let after = self.pods.lock().get(&pod.uid).and_then(|pod| pod.status.clone());
        // The agent may have released the pod meanwhile.
        if let Some(after) = after.map(|status| foreign_conditions(&status))
            && before != after
        {
            self.overwritten.lock().push((before, after));
        }
        Ok(())
    }

    async fn is_assigned(&self, pod: &PodRef) -> Result<bool, ClusterError> {
        self.check()?;
        Ok(self.pods.lock().contains_key(&pod.uid))
    }

    async fn release_pod(&self, pod: &PodRef) -> Result<(), ClusterError> {
        self.check()?;
        let gone = self.pods.lock().remove(&pod.uid);
        if let Some(gone) = gone {
            self.ended.lock().insert(pod.uid.clone(), gone.status.clone().unwrap_or_default());
            self.send_change(&PodChange::Deleted(Box::new(gone)));
        }
        Ok(())
    }

    async fn node(&self, _: &str) -> Result<Option<Node>, ClusterError> {
        self.check()?;
        Ok(self.node.lock().clone())
    }

    async fn create_node(&self, node: &Node) -> Result<(), ClusterError> {
        self.check()?;
        let mut stored = self.node.lock();
        if stored.is_some() {
            return Err(ClusterError::Refused {
                code: 409,
                reason: "AlreadyExists".into(),
                message: "it exists".into(),
            });
        }
        let mut node = node.clone();
        node.metadata.uid = Some(format!("node-{:016x}", rand::random::<u64>()));
        *stored = Some(node);
        Ok(())
    }

    async fn report_node(&self, node: &Node) -> Result<(), ClusterError> {
        self.check()?;
        let mut stored = self.node.lock();
        let Some(stored) = stored.as_mut() else { return Err(not_found("no such node")) };
        stored.status.clone_from(&node.status);
        self.node_reports.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn label_node(&self, _: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        self.check()?;
        let mut stored = self.node.lock();
        let Some(stored) = stored.as_mut() else { return Err(not_found("no such node")) };
        stored.metadata.labels.get_or_insert_default().extend(labels.clone());
        Ok(())
    }

    async fn renew_lease(&self, _: &str, _: &LeaseSpec) -> Result<(), ClusterError> {
        self.check()?;
        if self.lease_owner.lock().is_some() { Ok(()) } else { Err(not_found("no such lease")) }
    }

    async fn create_lease(&self, node: &Node, _: &LeaseSpec) -> Result<(), ClusterError> {
        self.check()?;
        self.lease_owner.lock().clone_from(&node.metadata.uid);
        Ok(())
    }

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError> {
        self.check()?;
        self.events.lock().push(event.clone());
        Ok(())
    }

    async fn repeat_event(&self, _: &Event) -> Result<(), ClusterError> {
        self.check()
    }
}

/// Returns the conditions of a pod that its node does not own.
fn foreign_conditions(status: &PodStatus) -> Value {
    let own = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| !own.contains(&condition.type_.as_str()))
        .map(|c| json!(c))
        .collect()
}

fn not_found(message: &str) -> ClusterError {
    ClusterError::Refused { code: 404, reason: "NotFound".into(), message: message.into() }
}

/// A certificate authority that issues the certificates of an agent and its clients.
pub struct Pki {
    pub ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
pub struct TlsIdentity {
    pub cert_pem: String,
    pub key_pem: String,
}

impl TlsIdentity {
    fn live(&self) -> Arc<LiveIdentity> {
        LiveIdentity::from_pem(self.cert_pem.as_bytes(), self.key_pem.as_bytes()).expect("the key fits the certificate")
    }
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("an authority");
        Pki { ca_pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn identity(&self, name: &str, group: &str) -> TlsIdentity {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        TlsIdentity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

/// A running agent and its environment. Dropping it removes its containers.
pub struct Node1 {
    pub cluster: Arc<FakeCluster>,
    pub docker: Docker,
    pub pki: Pki,
    pub data: tempfile::TempDir,
    pub cluster_id: String,
    pub port: u16,
    is_on_docker: bool,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

/// Connects to the engine. Returns `None` with a log message if none answers; in continuous integration it panics.
pub async fn docker() -> Option<Docker> {
    let engine = Docker::connect_with_unix(
        "/var/run/docker.sock",
        120,
        &bollard::ClientVersion { major_version: 1, minor_version: 41 },
    );
    let answers = match &engine {
        Ok(docker) => docker.ping().await.is_ok(),
        Err(_) => false,
    };
    if !answers {
        assert!(std::env::var_os("CI").is_none(), "no Docker engine answers");
        tracing::warn!("skipped: no Docker engine answers");
        return None;
    }
    let docker = engine.expect("it answered");
    ensure_image(&docker).await;
    Some(docker)
}

/// Returns the files of an image that contains only busybox, as a tar archive.
pub fn busybox() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bin = dir.path().join("bin");
    std::fs::create_dir_all(&bin).expect("bin");
    std::fs::create_dir_all(dir.path().join("tmp")).expect("tmp");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("the package busybox-static is installed");
    let names = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    for name in String::from_utf8(names).expect("names").lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
    }
    Command::new("tar").arg("c").arg("-C").arg(dir.path()).arg(".").output().expect("tar runs").stdout
}

async fn ensure_image(docker: &Docker) {
    import(docker, IMAGE, "").await;
}

/// Imports the same image under another name and with another user.
pub async fn ensure_image_of_user(docker: &Docker, name: &str, user: &str) {
    import(docker, name, &format!("USER {user}")).await;
}

async fn import(docker: &Docker, name: &str, change: &str) {
    // Each test is a process, and two concurrent imports of one name would leave an image without a name behind.
    let lock = std::fs::File::create(std::env::temp_dir().join("quorate-agent-test.lock")).expect("a lock file");
    lock.lock().expect("the lock is free soon");
    if docker.inspect_image(name).await.is_err() {
        let tar = busybox();
        let (repo, tag) = name.split_once(':').expect("a tag");
        let changes: Vec<String> = Some(change.to_owned()).filter(|change| !change.is_empty()).into_iter().collect();
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(repo).tag(tag).changes(changes).build();
        let import = docker.create_image(Some(options), Some(bollard::body_full(tar.into())), None);
        import.try_for_each(|_| std::future::ready(Ok(()))).await.expect("the image is imported");
    }
}

impl Node1 {
    /// Starts an agent on Docker, or returns `None` if there is no Docker.
    pub async fn start() -> Option<Self> {
        let docker = docker().await?;
        let mut node = Node1 {
            cluster: FakeCluster::new(),
            docker,
            pki: Pki::new(),
            data: tempfile::tempdir().expect("a temporary directory"),
            cluster_id: format!("test-{:016x}", rand::random::<u64>()),
            port: 0,
            is_on_docker: true,
            running: None,
        };
        node.start_agent(RuntimeChoice::Docker { endpoint: None });
        Some(node)
    }

    pub fn start_hollow() -> Self {
        let mut node = Node1 {
            cluster: FakeCluster::new(),
            docker: Docker::connect_with_http(
                "tcp://127.0.0.1:1",
                1,
                &bollard::ClientVersion { major_version: 1, minor_version: 41 },
            )
            .expect("never used"),
            pki: Pki::new(),
            data: tempfile::tempdir().expect("a temporary directory"),
            cluster_id: "hollow".to_owned(),
            port: 0,
            is_on_docker: false,
            running: None,
        };
        node.start_agent(RuntimeChoice::Hollow);
        node
    }

    pub fn start_agent(&mut self, runtime: RuntimeChoice) {
        let mut config = AgentConfig::new(
            NODE,
            self.pki.identity("system:node:node-a", "system:nodes").live(),
            self.pki.identity("node-a", "quorate").live(),
            self.pki.ca_pem.clone(),
        );
        config.listen = Listen::Address(([127, 0, 0, 1], 0).into());
        config.data_dir = self.data.path().to_owned();
        config.runtime = runtime;
        config.cluster_id.clone_from(&self.cluster_id);
        config.offline_after = Duration::from_millis(500);
        config.labels = BTreeMap::from([("tier".to_owned(), "given".to_owned())]);
        config.heartbeat_interval = Duration::from_millis(100);
        let agent = Agent::with_cluster(config, Arc::clone(&self.cluster) as Arc<dyn Cluster>).expect("an agent");
        self.port = agent.port().expect("a port");
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { agent.run(token).await.expect("the agent runs") });
        self.running = Some((shutdown, task));
    }

    /// Ends the agent. The pods keep running.
    pub async fn stop_agent(&mut self) {
        let (shutdown, task) = self.running.take().expect("the agent runs");
        shutdown.cancel();
        task.await.expect("the agent ends in order");
    }

    /// Returns the ids, the names and the states of this test's containers. The state is true for a running one.
    pub async fn containers(&self) -> Vec<(String, String, bool)> {
        let filters = BTreeMap::from([("label", vec![format!("io.quorate.cluster={}", self.cluster_id)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters.into_iter().collect()).build();
        let list = self.docker.list_containers(Some(options)).await.expect("a list");
        list.into_iter()
            .map(|summary| {
                let running = summary.state == Some(bollard::models::ContainerSummaryStateEnum::RUNNING);
                let name = summary.names.unwrap_or_default().join(",");
                (summary.id.unwrap_or_default(), name, running)
            })
            .collect()
    }

    /// Kills all containers, as a power cut does. The agent must have been stopped before.
    pub async fn power_cut(&self) {
        for (id, _, running) in self.containers().await {
            if running {
                self.docker
                    .kill_container(&id, None::<bollard::query_parameters::KillContainerOptions>)
                    .await
                    .expect("killed");
            }
        }
    }

    pub async fn wait_no_containers(&self) {
        eventually("no containers", async || {
            let left = self.containers().await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// Sends a `GET` request to the node API with a certificate of `group`, and returns the code and the body.
    pub async fn get(&self, group: &str, path: &str) -> (u16, String) {
        let identity = self.pki.identity("quorate:apiserver", group);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("written");
            path
        };
        let (ca, cert, key) =
            (file("ca", &self.pki.ca_pem), file("cert", &identity.cert_pem), file("key", &identity.key_pem));
        let output = tokio::process::Command::new("curl")
            .args(["-s", "--max-time", "20", "-w", "\n%{http_code}"])
            .arg("--cacert")
            .arg(ca)
            .arg("--cert")
            .arg(cert)
            .arg("--key")
            .arg(key)
            .arg(format!("https://127.0.0.1:{}{path}", self.port))
            .output()
            .await
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a status");
        (code.parse().expect("a number"), body.to_owned())
    }

    /// Returns the log of a container.
    pub async fn log(&self, pod: &str, container: &str, query: &str) -> String {
        let path = format!("/containerLogs/default/{pod}/{container}?{query}");
        let (code, log) = self.get("system:masters", &path).await;
        assert_eq!(code, 200, "{log}");
        log
    }

    /// Waits until the log of a container is exactly this.
    pub async fn wait_log(&self, pod: &str, container: &str, text: &str) {
        let path = format!("/containerLogs/default/{pod}/{container}");
        eventually("the log", async || {
            let answer = self.get("system:masters", &path).await;
            if answer == (200, text.to_owned()) { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Ends the agent in order. [`Drop`] removes its containers.
    pub async fn stop(mut self) {
        self.stop_agent().await;
    }

    /// Deletes these pods without a grace period and checks that nothing is left of them.
    pub async fn finish(self, pods: &[&PodRef]) {
        for pod in pods {
            self.cluster.delete(pod, 0);
        }
        for pod in pods {
            self.cluster.wait_gone(pod).await;
        }
        self.wait_no_containers().await;
        self.stop().await;
    }
}

impl Drop for Node1 {
    fn drop(&mut self) {
        // The agent still runs after a failed test.
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            task.abort();
        }
        if !self.is_on_docker {
            return;
        }
        let filter = format!("label=io.quorate.cluster={}", self.cluster_id);
        let list =
            Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("docker runs").stdout;
        let list = String::from_utf8(list).expect("ids");
        let ids = list.split_whitespace().collect::<Vec<_>>();
        if !ids.is_empty() {
            // Errors are ignored, because a container may be gone already.
            drop(Command::new("docker").args(["rm", "-fv"]).args(ids).output());
        }
    }
}

pub fn is_ready(status: &PodStatus) -> bool {
    condition(status, "Ready") == Some("True")
}

pub fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<&'a str> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_).map(|c| c.status.as_str())
}

pub fn container<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [status.init_container_statuses.as_ref(), status.container_statuses.as_ref()];
    lists.into_iter().flatten().flatten().find(|container| container.name == name)
}

pub fn waiting_reason(status: &PodStatus, name: &str) -> Option<String> {
    container(status, name)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// Returns the state of a container that has ended.
pub fn terminated<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStateTerminated> {
    container(status, name)?.state.as_ref()?.terminated.as_ref()
}
