//! Init containers. They run one after the other, and sidecars continue beside the main containers.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::decide::{PodView, Steps, create, restarts, start, supervise};
use super::observed::{RunState, Sandbox};
use super::spec::{self, ContainerKind};

/// Plans the next step of initialisation. Returns whether the main containers may run.
pub(super) fn advance(view: PodView<'_>, sandbox: &Sandbox, steps: &mut Steps<'_>) -> bool {
    let initialised = mains_exist(view, &sandbox.id);
    for container in spec::init_containers(view.pod) {
        let sidecar = spec::is_sidecar(container);
        let record = view.observed.latest_in(&container.name, &sandbox.id);
        match record.map(|record| (record, &record.state)) {
            Some((record, RunState::Running { .. })) => {
                supervise(view, container, record, steps);
                if !(initialised || sidecar && view.memory.has_started(container, &record.id)) {
                    return false;
                }
            }
            Some((record, RunState::Exited(_))) if !sidecar && (initialised || view.succeeded(record)) => {}
            Some((record, RunState::Exited(_))) => {
                let policy = spec::restart_policy(view.pod, container, ContainerKind::Init);
                if sidecar || spec::restarts(policy, view.succeeded(record)) {
                    create(view, sandbox, container, ContainerKind::Init, steps);
                }
                if !initialised {
                    return false;
                }
            }
            Some((record, RunState::Created)) => {
                if !record.is_outdated(container) {
                    start(record, steps);
                }
                if !initialised {
                    return false;
                }
            }
            None if initialised && !sidecar => {}
            None => {
                create(view, sandbox, container, ContainerKind::Init, steps);
                if !initialised {
                    return false;
                }
            }
        }
    }
    true
}

/// Whether a main container exists in this sandbox. Main containers run only after initialisation.
fn mains_exist(view: PodView<'_>, sandbox_id: &str) -> bool {
    spec::main_containers(view.pod).iter().any(|container| {
        view.observed.latest_in(&container.name, sandbox_id).is_some_and(|record| record.started_at().is_some())
    })
}

/// Whether all init containers are complete, as the `Initialized` condition requires.
pub(super) fn is_initialised(view: PodView<'_>) -> bool {
    incomplete(view).is_empty()
}

/// Returns the names of the init containers that are not complete.
pub(super) fn incomplete(view: PodView<'_>) -> Vec<&str> {
    let sandbox = view.observed.sandboxes.iter().max_by_key(|sandbox| sandbox.attempt);
    if sandbox.is_some_and(|sandbox| mains_exist(view, &sandbox.id)) {
        return Vec::new();
    }
    spec::init_containers(view.pod)
        .iter()
        .filter(|container| {
            let record = sandbox.and_then(|sandbox| view.observed.latest_in(&container.name, &sandbox.id));
            !record.is_some_and(|record| match &record.state {
                RunState::Running { .. } => {
                    spec::is_sidecar(container) && view.memory.has_started(container, &record.id)
                }
                RunState::Exited(_) => view.succeeded(record) && !spec::is_sidecar(container),
                RunState::Created => false,
            })
        })
        .map(|container| container.name.as_str())
        .collect()
}

/// Returns the containers that start first in a new sandbox.
pub(super) fn first_starts(pod: &Pod) -> &[Container] {
    match spec::init_containers(pod) {
        [] => spec::main_containers(pod),
        [first, ..] => std::slice::from_ref(first),
    }
}

/// Whether any main container may still be started, so that a new sandbox is needed.
pub(super) fn has_something_to_start(view: PodView<'_>) -> bool {
    spec::main_containers(view.pod).iter().any(|container| {
        let ended = view.observed.latest(&container.name).filter(|record| record.exit().is_some());
        ended.is_none_or(|record| restarts(view, container, ContainerKind::Main, record))
    })
}
