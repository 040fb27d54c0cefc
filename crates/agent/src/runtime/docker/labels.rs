//! Labels of the agent's containers, by which a starting agent finds them again.

use std::collections::HashMap;

use crate::plan::PodRef;
use crate::runtime::{ContainerSpec, SandboxSpec};

const CLUSTER: &str = "io.quorate.cluster";
const NODE: &str = "io.quorate.node";
const SANDBOX: &str = "io.quorate.sandbox";
const MESSAGE_FILE: &str = "io.quorate.message-file";
const MESSAGE_FROM_LOGS: &str = "io.quorate.message-from-logs";
const IMAGE: &str = "io.quorate.image";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "io.kubernetes.container.restartCount";
/// The container name of sandboxes.
const POD: &str = "POD";

/// The cluster and node that containers belong to.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub cluster: String,
    pub node: String,
}

/// Returns the label that all containers of a cluster have.
pub(super) fn of_cluster(cluster: &str) -> String {
    format!("{CLUSTER}={cluster}")
}

impl Owner {
    /// Returns filters that match only this agent's containers.
    pub(super) fn filters(&self) -> HashMap<String, Vec<String>> {
        let labels = vec![of_cluster(&self.cluster), format!("{NODE}={}", self.node)];
        HashMap::from([("label".to_owned(), labels)])
    }

    fn labels(&self, pod: &PodRef, name: &str, attempt: u32) -> HashMap<String, String> {
        let attempt = attempt.to_string();
        let pairs = [
            (CLUSTER, self.cluster.as_str()),
            (NODE, &self.node),
            (POD_NAME, &pod.name),
            (POD_NAMESPACE, &pod.namespace),
            (POD_UID, &pod.uid),
            (CONTAINER_NAME, name),
            (ATTEMPT, &attempt),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    pub(super) fn of_sandbox(&self, spec: &SandboxSpec) -> HashMap<String, String> {
        self.labels(&spec.pod, POD, spec.attempt)
    }

    pub(super) fn of_container(&self, spec: &ContainerSpec) -> HashMap<String, String> {
        let mut labels = self.labels(&spec.pod, &spec.name, spec.attempt);
        labels.insert(SANDBOX.to_owned(), spec.sandbox_id.clone());
        labels.insert(IMAGE.to_owned(), spec.image.clone());
        if let Some(file) = &spec.message_file {
            labels.insert(MESSAGE_FILE.to_owned(), file.display().to_string());
        }
        if spec.message_from_logs {
            labels.insert(MESSAGE_FROM_LOGS.to_owned(), "true".to_owned());
        }
        labels
    }
}

/// The pod and the container that the labels of one of the agent's containers name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub pod: PodRef,
    pub attempt: u32,
    /// `None` for a sandbox.
    pub container: Option<ContainerIdentity>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerIdentity {
    pub name: String,
    pub sandbox_id: String,
    pub image: String,
    pub message_file: Option<String>,
    pub message_from_logs: bool,
}

/// Parses the labels of a container or of an event about one.
pub(super) fn identify(labels: &HashMap<String, String>) -> Option<Identity> {
    let get = |key: &str| labels.get(key).cloned();
    let name = get(CONTAINER_NAME)?;
    let container = (name != POD).then(|| ContainerIdentity {
        name,
        sandbox_id: get(SANDBOX).unwrap_or_default(),
        image: get(IMAGE).unwrap_or_default(),
        message_file: get(MESSAGE_FILE),
        message_from_logs: labels.contains_key(MESSAGE_FROM_LOGS),
    });
    Some(Identity {
        pod: PodRef { namespace: get(POD_NAMESPACE)?, name: get(POD_NAME)?, uid: get(POD_UID)? },
        attempt: get(ATTEMPT)?.parse().ok()?,
        container,
    })
}

/// Returns the name of a container in the form of Kubernetes nodes with Docker.
pub(super) fn container_name(pod: &PodRef, name: &str, attempt: u32) -> String {
    format!("k8s_{name}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

pub(super) fn sandbox_name(spec: &SandboxSpec) -> String {
    container_name(&spec.pod, POD, spec.attempt)
}
