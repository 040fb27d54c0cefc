//! The Node object: registration, capacity and conditions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use quorate_api::fence;
use quorate_scheduler::resources::Resources;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterError};
use crate::config::AgentConfig;
use crate::machine::{Headroom, Machine};
use crate::runtime::Runtime;

/// The version that this agent reports: the Kubernetes version followed by Quorate's own.
pub(crate) const KUBELET_VERSION: &str = concat!("v1.36.0-quorate.", env!("CARGO_PKG_VERSION"));
/// Interval between two comparisons of the Node object with the node.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time after which an unchanged status is sent again, in seconds.
const REPORT_SECONDS: i64 = 300;
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Available memory below which the node has memory pressure, in bytes (the kubelet's default).
const MEMORY_PRESSURE_BYTES: u64 = 100 << 20;
/// Free disk space below which the node has disk pressure, in percent.
const DISK_PRESSURE_PERCENT: u64 = 5;
const PID_PRESSURE: u64 = 1000;

/// The labels that an agent corrects on an existing Node when it starts: the kubelet's default labels, and the one that
/// tells the masters whether fences hold here.
const MANAGED_LABELS: [&str; 13] = [
    fence::NODE_LABEL,
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
];

/// The configured and measured properties of the Node object.
#[derive(Clone, Debug)]
struct Identity {
    name: String,
    ip: String,
    port: u16,
    labels: BTreeMap<String, String>,
    capacity: BTreeMap<String, String>,
    max_pods: u32,
    /// The fences of pods hold even if the agent dies.
    keeps_fences: bool,
}

pub(crate) struct NodeReporter {
    identity: Identity,
    data_dir: PathBuf,
    cluster: Arc<dyn Cluster>,
    runtime: Arc<dyn Runtime>,
}

impl NodeReporter {
    pub(crate) fn new(
        config: &AgentConfig,
        port: u16,
        cluster: Arc<dyn Cluster>,
        runtime: Arc<dyn Runtime>,
        keeps_fences: bool,
    ) -> Self {
        let identity = Identity {
            name: config.node_name.clone(),
            ip: config.node_ip.clone(),
            port,
            labels: config.labels.clone(),
            capacity: config.capacity.clone(),
            max_pods: config.max_pods,
            keeps_fences,
        };
        NodeReporter { identity, data_dir: config.data_dir.clone(), cluster, runtime }
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep_reporting() => {}
        }
    }

    async fn keep_reporting(self) {
        let machine = Machine::measure(&self.data_dir);
        let mut progress = Progress { reported_at: Timestamp::UNIX_EPOCH, labelled: false };
        loop {
            match self.check(&machine, &mut progress).await {
                Ok(()) => tokio::time::sleep(CHECK_INTERVAL).await,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot report this node's status to the masters");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Compares the Node object with this node and updates it. The masters change it as well: they mark a node whose
    /// heartbeats stop.
    async fn check(&self, machine: &Machine, progress: &mut Progress) -> Result<(), ClusterError> {
        let runtime = self.runtime.info().await;
        let health = Health {
            headroom: Headroom::measure(&self.data_dir),
            runtime_version: runtime.as_ref().map_or_else(|_| String::new(), |info| info.version.clone()),
            runtime_error: runtime.err().map(|error| error.to_string()),
        };
        let now = Timestamp::now();
        let existing = self.cluster.node(&self.identity.name).await?;
        let previous = existing.as_ref().and_then(|node| node.status.as_ref());
        let mut node = node(&self.identity, machine, &health, previous, now);
        let Some(existing) = existing else {
            let created = match self.cluster.create_node(&node).await {
                Err(error) if error.is_conflict() => false,
                created => created.map(|()| true)?,
            };
            tracing::info!(node = %self.identity.name, "registered this node");
            *progress = Progress { reported_at: now, labelled: created };
            return self.cluster.report_node(&node).await;
        };
        let labels = node.metadata.labels.take().unwrap_or_default();
        if !progress.labelled {
            let labels = outdated_labels(&existing, labels);
            if !labels.is_empty() {
                self.cluster.label_node(&self.identity.name, &labels).await?;
            }
            progress.labelled = true;
        }
        if differs(&existing, &node) || now.duration_since(progress.reported_at).as_secs() >= REPORT_SECONDS {
            self.cluster.report_node(&node).await?;
            progress.reported_at = now;
        }
        Ok(())
    }
}

/// The parts of the Node object that this agent has brought up to date.
struct Progress {
    reported_at: Timestamp,
    /// The managed labels are correct. The agent checks them once, when it starts, like the kubelet.
    labelled: bool,
}

#[derive(Clone, Debug)]
struct Health {
    headroom: Headroom,
    runtime_version: String,
    runtime_error: Option<String>,
}

/// Returns the managed labels that are missing from the object or differ there. All other labels are set at registration
/// only: from then on users may change them.
fn outdated_labels(object: &Node, wanted: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let has = |key: &str| object.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    wanted
        .into_iter()
        .filter(|(key, value)| MANAGED_LABELS.contains(&key.as_str()) && has(key) != Some(value))
        .collect()
}

/// Whether the object's status differs from the node in a field that the node sets.
fn differs(object: &Node, node: &Node) -> bool {
    let (Some(before), Some(after)) = (&object.status, &node.status) else { return true };
    let essence = |condition: &NodeCondition| {
        (condition.type_.clone(), condition.status.clone(), condition.reason.clone(), condition.message.clone())
    };
    let conditions: Vec<_> = before.conditions.iter().flatten().map(essence).collect();
    after.conditions.iter().flatten().any(|condition| !conditions.contains(&essence(condition)))
        || before.addresses != after.addresses
        || before.capacity != after.capacity
        || before.daemon_endpoints != after.daemon_endpoints
        || before.node_info != after.node_info
}

fn node(
    identity: &Identity,
    machine: &Machine,
    health: &Health,
    previous: Option<&NodeStatus>,
    now: Timestamp,
) -> Node {
    let arch = quorate_api::architecture(std::env::consts::ARCH);
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", identity.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    labels.extend(identity.labels.clone());
    // Masters remove fenced pods early on this label alone, so no configuration overrides it.
    labels.insert(fence::NODE_LABEL.to_owned(), identity.keeps_fences.to_string());
    let resources = capacity(&identity.capacity, identity.max_pods, machine);
    let address = |type_: &str, address: &str| NodeAddress { type_: type_.to_owned(), address: address.to_owned() };
    let status = NodeStatus {
        addresses: Some(vec![address("InternalIP", &identity.ip), address("Hostname", &identity.name)]),
        allocatable: Some(resources.clone()),
        capacity: Some(resources),
        conditions: Some(conditions(health, previous, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(identity.port) }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: arch.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: health.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.machine_id.clone(),
            swap: None,
        }),
        ..NodeStatus::default()
    };
    Node {
        metadata: ObjectMeta { name: Some(identity.name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        status: Some(status),
        ..Node::default()
    }
}

/// Returns the CPU and memory that this node can give to its pods.
pub(crate) fn allocatable(config: &AgentConfig, machine: &Machine) -> Resources {
    let parse =
        |configured: &BTreeMap<String, String>| Resources::parse(Some(&capacity(configured, config.max_pods, machine)));
    parse(&config.capacity)
        .or_else(|error| {
            tracing::warn!(error = %error, "the configured capacity is not used for the resizes of pods");
            parse(&BTreeMap::new())
        })
        .unwrap_or_default()
}

fn capacity(configured: &BTreeMap<String, String>, max_pods: u32, machine: &Machine) -> BTreeMap<String, Quantity> {
    let mut capacity: BTreeMap<String, Quantity> = [
        ("cpu", machine.cpus.to_string()),
        ("memory", format!("{}Ki", machine.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", machine.disk_bytes / 1024)),
        ("pods", max_pods.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Quantity(value)))
    .collect();
    capacity.extend(configured.iter().map(|(name, value)| (name.clone(), Quantity(value.clone()))));
    capacity
}

fn conditions(health: &Health, previous: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let headroom = health.headroom;
    let pressure = |type_, low, (bad, bad_message), (good, good_message)| {
        let (reason, message) = if low { (bad, bad_message) } else { (good, good_message) };
        (type_, low, reason, String::from(message))
    };
    let ready = match &health.runtime_error {
        None => ("Ready", true, "KubeletReady", "the agent is posting ready status".to_owned()),
        Some(error) => ("Ready", false, "KubeletNotReady", format!("container runtime is down: {error}")),
    };
    let verdicts = [
        pressure(
            "MemoryPressure",
            headroom.memory_available_bytes < MEMORY_PRESSURE_BYTES,
            ("KubeletHasInsufficientMemory", "the node has insufficient memory available"),
            ("KubeletHasSufficientMemory", "the node has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            headroom.disk_available_percent < DISK_PRESSURE_PERCENT,
            ("KubeletHasDiskPressure", "the node has disk pressure"),
            ("KubeletHasNoDiskPressure", "the node has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            headroom.pids_available < PID_PRESSURE,
            ("KubeletHasInsufficientPID", "the node has insufficient PID available"),
            ("KubeletHasSufficientPID", "the node has sufficient PID available"),
        ),
        ready,
    ];
    let conditions = verdicts.into_iter().map(|(type_, holds, reason, message)| {
        let status = if holds { "True" } else { "False" };
        let same = previous
            .and_then(|status| status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_))
            .filter(|condition| condition.status == status);
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    conditions.collect()
}
