//! Reads a pod's spec and applies the API's defaults.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, Probe};
use quorate_api::ephemeral;
use quorate_api::qos::{self, Amounts};

use super::probe::ProbeKind;

/// Reference to a pod. The uid distinguishes pods that have had the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl std::fmt::Display for PodRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

#[must_use]
pub fn pod_ref(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

pub(super) fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

pub(super) fn main_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

fn ephemeral_entries(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

pub(super) fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = Container> {
    ephemeral_entries(pod).iter().map(ephemeral::container)
}

/// Returns the name of the container whose processes an ephemeral container sees, if it has a target.
#[must_use]
pub fn ephemeral_target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let entry = ephemeral_entries(pod).iter().find(|entry| entry.name == name)?;
    entry.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// The list of a pod's spec that has a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    Init,
    Main,
    Ephemeral,
}

impl ContainerKind {
    /// Returns the name of the list.
    #[must_use]
    pub fn list(self) -> &'static str {
        match self {
            ContainerKind::Init => "initContainers",
            ContainerKind::Main => "containers",
            ContainerKind::Ephemeral => "ephemeralContainers",
        }
    }
}

/// Returns the container of the spec with that name.
#[must_use]
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<(Cow<'a, Container>, ContainerKind)> {
    let find = |list: &'a [Container], kind| {
        list.iter().find(|container| container.name == name).map(|container| (Cow::Borrowed(container), kind))
    };
    find(init_containers(pod), ContainerKind::Init).or_else(|| find(main_containers(pod), ContainerKind::Main)).or_else(
        || {
            let entry = ephemeral_entries(pod).iter().find(|entry| entry.name == name)?;
            Some((Cow::Owned(ephemeral::container(entry)), ContainerKind::Ephemeral))
        },
    )
}

/// Whether an init container keeps running beside the main ones.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Returns the restart policy of this container: `Always`, `OnFailure` or `Never`.
#[must_use]
pub fn restart_policy<'a>(pod: &'a Pod, container: &'a Container, kind: ContainerKind) -> &'a str {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    match (kind, container.restart_policy.as_deref()) {
        (ContainerKind::Ephemeral, _) => "Never",
        (_, Some(own)) => own,
        // An init container that has succeeded is not restarted, even if the pod's policy is `Always`.
        (ContainerKind::Init, None) if of_pod == "Always" => "OnFailure",
        (_, None) => of_pod,
    }
}

/// Whether a container that has ended is started again under `policy`.
#[must_use]
pub fn restarts(policy: &str, succeeded: bool) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => !succeeded,
        _ => true,
    }
}

/// Returns the grace period of the pod's spec, in seconds.
#[must_use]
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30).max(0)
}

#[must_use]
pub fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

pub(super) fn has_post_start(container: &Container) -> bool {
    container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
}

/// Whether the container's environment has the pod's address, which is unknown until the sandbox runs.
pub(super) fn asks_for_address(pod: &Pod, container: &Container) -> bool {
    let sources =
        container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()?.field_ref.as_ref());
    !host_network(pod) && sources.into_iter().any(|field| field.field_path.starts_with("status.podIP"))
}

pub(super) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// Returns the quality of service class of a pod.
#[must_use]
pub fn qos_class(pod: &Pod) -> &'static str {
    let containers = main_containers(pod).iter().chain(init_containers(pod));
    qos::class(containers.map(|container| {
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        ["cpu", "memory"].map(|name| Amounts {
            request: requests.and_then(|list| Some(list.get(name)?.0.as_str())),
            limit: limits.and_then(|list| Some(list.get(name)?.0.as_str())),
        })
    }))
}
