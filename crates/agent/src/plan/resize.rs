//! The resize of running containers. The node gives a pod the resources of its spec if they fit (`fit`), and the plans
//! see the pod with the resources that were given to it (`with_allocated`). A container that has others is changed in
//! place, or restarted if its policy says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quorate_scheduler::resources::Resources;

use super::action::{Action, Grace, StopCause};
use super::decide::PodView;
use super::observed::ContainerRecord;
use super::spec;

/// The requests and limits of a container in their written form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerResources {
    pub requests: BTreeMap<String, String>,
    pub limits: BTreeMap<String, String>,
}

impl ContainerResources {
    #[must_use]
    pub fn of(resources: Option<&ResourceRequirements>) -> Self {
        let amounts = |list: Option<&BTreeMap<String, Quantity>>| {
            list.into_iter().flatten().map(|(name, amount)| (name.clone(), amount.0.clone())).collect()
        };
        ContainerResources {
            requests: amounts(resources.and_then(|resources| resources.requests.as_ref())),
            limits: amounts(resources.and_then(|resources| resources.limits.as_ref())),
        }
    }

    #[must_use]
    pub fn requirements(&self) -> ResourceRequirements {
        let amounts = |list: &BTreeMap<String, String>| {
            let list: BTreeMap<String, Quantity> =
                list.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))).collect();
            (!list.is_empty()).then_some(list)
        };
        ResourceRequirements { claims: None, limits: amounts(&self.limits), requests: amounts(&self.requests) }
    }

    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }

    /// Whether a resource has another request or limit than in `other`.
    fn differs_in(&self, resource: &str, other: &Self) -> bool {
        self.requests.get(resource) != other.requests.get(resource)
            || self.limits.get(resource) != other.limits.get(resource)
    }
}

/// The resources of the containers of a pod that can be resized, by the container's name.
pub type Allocation = BTreeMap<String, ContainerResources>;

/// Why a pod does not have the resources of its spec yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingResize {
    pub reason: PendingReason,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingReason {
    /// The pod may get the resources when other pods give theirs back.
    Deferred,
    /// The node is too small.
    Infeasible,
}

impl PendingReason {
    /// Returns the reason of the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PendingReason::Deferred => "Deferred",
            PendingReason::Infeasible => "Infeasible",
        }
    }
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_sidecar(container));
    sidecars.chain(spec::main_containers(pod))
}

/// Returns the resources of the pod's spec.
#[must_use]
pub fn wanted(pod: &Pod) -> Allocation {
    resizable(pod)
        .map(|container| (container.name.clone(), ContainerResources::of(container.resources.as_ref())))
        .collect()
}

/// Returns the resources that an earlier agent has given to the pod, or those of the spec for a new pod.
#[must_use]
pub fn adopted(pod: &Pod, reported: &PodStatus) -> Allocation {
    let mut allocation = wanted(pod);
    let statuses = [&reported.init_container_statuses, &reported.container_statuses];
    for status in statuses.into_iter().flatten().flatten() {
        if let (Some(entry), Some(resources)) = (allocation.get_mut(&status.name), &status.resources) {
            *entry = ContainerResources::of(Some(resources));
        }
    }
    allocation
}

/// Returns the pod with the resources that the node has given to its containers.
#[must_use]
pub fn with_allocated(pod: &Arc<Pod>, allocation: &Allocation) -> Arc<Pod> {
    if wanted(pod) == *allocation {
        return Arc::clone(pod);
    }
    let mut pod = Pod::clone(pod);
    if let Some(spec) = &mut pod.spec {
        let inits = spec.init_containers.iter_mut().flatten().filter(|container| spec::is_sidecar(container));
        for container in inits.chain(&mut spec.containers) {
            if let Some(resources) = allocation.get(&container.name) {
                container.resources = Some(resources.requirements());
            }
        }
    }
    Arc::new(pod)
}

/// Decides whether a pod may have `wanted` instead of `own`, beside the other pods of the node. A smaller amount always
/// fits, because it helps a node that has given away too much.
///
/// # Errors
/// The reason and the message of the condition.
pub fn fit(
    wanted: &Resources,
    own: &Resources,
    others: &Resources,
    allocatable: &Resources,
) -> Result<(), PendingResize> {
    /// The amounts of one resource.
    struct Amounts {
        name: &'static str,
        wanted: i64,
        own: i64,
        used: i64,
        capacity: i64,
    }
    let amounts = |name, of: fn(&Resources) -> i64| {
        let (wanted, own, used, capacity) = (of(wanted), of(own), of(others), of(allocatable));
        Amounts { name, wanted, own, used, capacity }
    };
    let mut grown = vec![amounts("cpu", |r| r.milli_cpu), amounts("memory", |r| r.memory_bytes)];
    grown.retain(|amounts| amounts.wanted > amounts.own);
    for Amounts { name, wanted, capacity, .. } in &grown {
        if wanted > capacity {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}");
            return Err(PendingResize { reason: PendingReason::Infeasible, message });
        }
    }
    for Amounts { name, wanted, used, capacity, .. } in &grown {
        if *wanted > capacity.saturating_sub(*used) {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
            );
            return Err(PendingResize { reason: PendingReason::Deferred, message });
        }
    }
    Ok(())
}

/// Returns the resources that a container has. They are unknown for one that an earlier agent has not reported.
pub(super) fn actual<'a>(view: PodView<'a>, record: &ContainerRecord) -> Option<&'a ContainerResources> {
    let (attempt, resources) = view.memory.containers.get(&record.name)?.resources.as_ref()?;
    (*attempt == record.attempt).then_some(resources)
}

/// Whether a running container has other resources than the node has given to it.
fn is_outdated(view: PodView<'_>, container: &Container, record: &ContainerRecord) -> bool {
    let allocated = ContainerResources::of(container.resources.as_ref());
    match actual(view, record) {
        Some(actual) => *actual != allocated,
        None => !allocated.is_empty(),
    }
}

/// Returns the action that gives a running container its resources, if it does not have them.
pub(super) fn next(view: PodView<'_>, container: &Container, record: &ContainerRecord) -> Option<Action> {
    if !is_outdated(view, container, record) || !resizable(view.pod).any(|other| other.name == container.name) {
        return None;
    }
    let allocated = ContainerResources::of(container.resources.as_ref());
    let restarts = container.resize_policy.iter().flatten().any(|policy| {
        policy.restart_policy == "RestartContainer"
            && actual(view, record).is_some_and(|actual| actual.differs_in(&policy.resource_name, &allocated))
    });
    if !restarts {
        return Some(Action::ResizeContainer {
            container: container.name.clone(),
            attempt: record.attempt,
            id: record.id.clone(),
            resources: allocated,
        });
    }
    Some(Action::StopContainer {
        container: container.name.clone(),
        id: record.id.clone(),
        grace: Grace::own(spec::grace_seconds(view.pod)),
        pre_stop: true,
        cause: StopCause::Replaced,
        why: format!("Container {} resize requires restart", container.name),
    })
}

/// Returns whether a resize is in progress, and the error that holds it up.
pub(super) fn in_progress(view: PodView<'_>) -> Option<Option<String>> {
    let mut outdated = resizable(view.pod)
        .filter_map(|container| {
            let record = view.observed.latest(&container.name).filter(|record| record.is_running())?;
            is_outdated(view, container, record).then_some(record)
        })
        .peekable();
    outdated.peek()?;
    let failure = outdated.find_map(|record| {
        view.memory.failures.get(&super::action::Work::Resize(record.id.clone())).map(|failure| failure.message.clone())
    });
    Some(failure)
}
