//! Observations of workers: the requested workload, the containers that ran, and their state in the API.

use serde::{Deserialize, Serialize};

use super::Micros;
use crate::world::{MemberIndex, WorkerIndex};

/// Desired state of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    pub replicas: u64,
    /// Unique name of the pod template in a run; a change rolls the Deployment.
    pub template: String,
}

/// Outcome of a write on a Deployment, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Done,
    /// The write has no effect now or later.
    Refused {
        reason: String,
    },
    /// The write may have taken effect. An update names a resource version, so it cannot take effect after a later
    /// acknowledged one.
    Unknown {
        reason: String,
    },
}

/// One write on a Deployment. Each Deployment has one client, which sends one request at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub client: String,
    pub member: MemberIndex,
    pub called: Micros,
    pub returned: Micros,
    pub deployment: String,
    /// Desired state; `None` for a deletion.
    pub wanted: Option<Wanted>,
    pub answer: Answer,
}

/// Container name of a pod's sandbox.
pub const SANDBOX: &str = "POD";
/// Name of the only other container of each pod.
pub const MAIN: &str = "main";

/// A container on a worker's machine, as reported by the machine itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The pod's uid.
    pub uid: String,
    pub name: String,
    pub id: String,
    pub attempt: u64,
    pub is_running: bool,
    /// Start time in RFC 3339; empty when the container was never started.
    pub started_at: String,
    /// Address of the pod, if the machine reports it.
    pub address: Option<String>,
}

/// Containers of a machine while its agent did not run or at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSeen {
    pub at: Micros,
    pub worker: WorkerIndex,
    pub containers: Vec<Container>,
}

/// One start of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    pub worker: WorkerIndex,
    pub uid: String,
    pub container: String,
    pub id: String,
    /// Time that distinguishes two starts of one container.
    pub at: String,
}

/// A container that the nemesis killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Killed {
    pub at: Micros,
    pub worker: WorkerIndex,
    pub uid: String,
    pub container: String,
    pub id: String,
}

/// Status of a container in its pod's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    /// Container id with the runtime's scheme.
    pub id: String,
    pub restarts: u64,
    pub is_ready: bool,
    /// Start time of a running container.
    pub running_since: Option<String>,
}

/// A pod as the API returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSeen {
    pub name: String,
    pub uid: String,
    pub deployment: String,
    pub template: String,
    pub node: Option<String>,
    pub is_deleting: bool,
    pub is_ready: bool,
    pub phase: String,
    pub address: Option<String>,
    pub containers: Vec<ContainerStatus>,
}

/// An endpoint of the Service that selects all pods of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSeen {
    /// Uid of the pod that the endpoint names.
    pub uid: String,
    pub address: String,
    pub is_ready: bool,
}

/// A Deployment as the API returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSeen {
    pub name: String,
    pub wanted: Wanted,
    pub generation: u64,
    pub observed_generation: u64,
    pub replicas: u64,
    pub updated: u64,
    pub ready: u64,
    pub available: u64,
}

/// State of the workload in the API at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiSeen {
    pub deployments: Vec<DeploymentSeen>,
    pub pods: Vec<PodSeen>,
    pub endpoints: Vec<EndpointSeen>,
    /// Names of nodes, and whether each is ready and without taints.
    pub nodes: Vec<(String, bool)>,
}

/// Endpoints and pods during the schedule. The endpoints were read first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub at: Micros,
    /// The uids of the pods that endpoints name.
    pub named: Vec<String>,
    pub pods: Vec<PodSample>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSample {
    pub uid: String,
    pub node: Option<String>,
    /// Restart counts by container.
    pub restarts: Vec<(String, u64)>,
}

/// State after everything was healed and no client wrote any more, when the desired state was reached or time was over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Time until then.
    pub took: Micros,
    pub api: ApiSeen,
    /// Containers by worker.
    pub machines: Vec<Vec<Container>>,
}

/// The name of a worker's node.
#[must_use]
pub fn node_name(worker: WorkerIndex) -> String {
    format!("w{}", worker + 1)
}
