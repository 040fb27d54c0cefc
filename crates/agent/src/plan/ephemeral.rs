//! Ephemeral containers. Each is started once, as soon as the sandbox runs, even while an init container fails. None is
//! ever restarted, and none of them changes the pod's phase or its readiness.

use super::decide::{PodView, Steps, create, start};
use super::observed::Sandbox;
use super::spec::{self, ContainerKind};

/// Plans the start of the ephemeral containers that have not been started yet.
pub(super) fn advance(view: PodView<'_>, sandbox: &Sandbox, steps: &mut Steps<'_>) {
    for container in spec::ephemeral_containers(view.pod) {
        if was_started(view, &container.name) {
            continue;
        }
        match view.observed.latest_in(&container.name, &sandbox.id) {
            Some(record) => start(record, steps),
            None => create(view, sandbox, &container, ContainerKind::Ephemeral, steps),
        }
    }
}

/// Whether the container has run. The runtime may have lost it since.
fn was_started(view: PodView<'_>, name: &str) -> bool {
    let reported = view.reported.ephemeral_container_statuses.iter().flatten().find(|status| status.name == name);
    let state = reported.and_then(|status| status.state.as_ref());
    view.observed.latest(name).is_some()
        || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}
