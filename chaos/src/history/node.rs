//! What was asked for on workers, what ran on them, and what the API said of it.

use serde::{Deserialize, Serialize};

use super::Micros;
use crate::world::{MemberIndex, WorkerIndex};

/// What a client wants of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    pub replicas: u64,
    /// Unique for each template in a run: a change of it rolls the Deployment.
    pub template: String,
}

/// How a write on a Deployment ended, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Done,
    /// It has had no effect and never will.
    Refused {
        reason: String,
    },
    /// It may have taken effect. An update is made on a resource version, so it takes none after a later acknowledged one.
    Unknown {
        reason: String,
    },
}

/// One write on a Deployment. Each Deployment has one client, which does one thing after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub client: String,
    pub member: MemberIndex,
    pub called: Micros,
    pub returned: Micros,
    pub deployment: String,
    /// `None`: it was to be deleted.
    pub wanted: Option<Wanted>,
    pub answer: Answer,
}

/// The name of a pod's sandbox among its containers.
pub const SANDBOX: &str = "POD";
/// The name of the one other container of each pod.
pub const MAIN: &str = "main";

/// A container on a worker's machine, as the machine itself tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The pod's uid.
    pub uid: String,
    pub name: String,
    pub id: String,
    pub attempt: u64,
    pub is_running: bool,
    /// In RFC 3339; empty when it was never started.
    pub started_at: String,
    /// The pod's address, where the machine tells it.
    pub address: Option<String>,
}

/// What was on a machine, while its agent did not run or when all was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSeen {
    pub at: Micros,
    pub worker: WorkerIndex,
    pub containers: Vec<Container>,
}

/// A container was started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    pub worker: WorkerIndex,
    pub uid: String,
    pub container: String,
    pub id: String,
    /// Tells two starts of one container apart.
    pub at: String,
}

/// A container that was killed from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Killed {
    pub at: Micros,
    pub worker: WorkerIndex,
    pub uid: String,
    pub container: String,
    pub id: String,
}

/// What a pod's status says of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    /// With the runtime's scheme.
    pub id: String,
    pub restarts: u64,
    pub is_ready: bool,
    /// Of a container that runs, when it was started.
    pub running_since: Option<String>,
}

/// A pod as the API shows it.
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

/// An endpoint of the Service over all pods of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSeen {
    /// The uid of the pod that it names.
    pub uid: String,
    pub address: String,
    pub is_ready: bool,
}

/// A Deployment as the API shows it.
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

/// What the API says of the workload at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiSeen {
    pub deployments: Vec<DeploymentSeen>,
    pub pods: Vec<PodSeen>,
    pub endpoints: Vec<EndpointSeen>,
    /// Nodes, and whether each is ready and without taints.
    pub nodes: Vec<(String, bool)>,
}

/// Endpoints and pods while faults come. The endpoints were read first.
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
    /// By container.
    pub restarts: Vec<(String, u64)>,
}

/// What there was when all was healed, nobody wrote any more, and either everything was as it should be or time was over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// How long it took.
    pub took: Micros,
    pub api: ApiSeen,
    /// By worker.
    pub machines: Vec<Vec<Container>>,
}

/// The name of a worker's node.
#[must_use]
pub fn node_name(worker: WorkerIndex) -> String {
    format!("w{}", worker + 1)
}
