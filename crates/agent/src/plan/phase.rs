//! Computes `status.phase` by the kubelet's rules.

use k8s_openapi::api::core::v1::PodStatus;

use super::decide::{PodView, restarts};
use super::initialise;
use super::memory::TerminationCause;
use super::observed::RunState;
use super::spec::{self, ContainerKind};

#[derive(Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

/// Returns whether a phase is final: the pod's containers never start again.
pub(super) fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Returns whether a pod with this status has reached a final phase.
#[must_use]
pub fn is_over(status: &PodStatus) -> bool {
    status.phase.as_deref().is_some_and(is_final)
}

/// Returns the phase of a pod. `Succeeded` and `Failed` are final.
pub(super) fn phase(view: PodView<'_>) -> &'static str {
    match view.reported.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if view.memory.rejected.is_some() {
        return "Failed";
    }
    if view.memory.termination.is_some_and(|t| t.cause == TerminationCause::DeadlineExceeded) {
        return "Failed";
    }
    let ending = view.memory.termination.is_some();
    if init_failed_for_good(view) {
        return "Failed";
    }
    let tally = tally(view);
    if !(initialise::is_initialised(view) || ending && tally.stopped > 0) {
        return "Pending";
    }
    if tally.waiting > 0 && !(ending && tally.running == 0 && tally.stopped > 0) {
        return "Pending";
    }
    if tally.running > 0 {
        return "Running";
    }
    if tally.stopped == 0 {
        return "Pending";
    }
    let all_succeeded = tally.stopped == tally.succeeded;
    if ending {
        return if all_succeeded { "Succeeded" } else { "Failed" };
    }
    if some_will_restart(view) {
        return "Running";
    }
    if all_succeeded { "Succeeded" } else { "Failed" }
}

fn tally(view: PodView<'_>) -> Tally {
    let mut tally = Tally::default();
    for container in spec::main_containers(view.pod) {
        let latest = view.observed.latest(&container.name);
        match latest.map(|record| &record.state) {
            Some(RunState::Running { .. }) => tally.running += 1,
            Some(RunState::Exited(_)) => {
                tally.stopped += 1;
                tally.succeeded += usize::from(latest.is_some_and(|record| view.succeeded(record)));
            }
            Some(RunState::Created) | None => tally.waiting += 1,
        }
    }
    tally
}

/// Whether the pod has failed because its fence stopped a container that its restart policy does not start again.
pub(super) fn failed_by_fence(view: PodView<'_>) -> bool {
    // The end of a sidecar does not make its pod fail.
    let inits = spec::init_containers(view.pod).iter().filter(|container| !spec::is_sidecar(container));
    let all = inits.chain(spec::main_containers(view.pod));
    let mut latest = all.filter_map(|container| view.observed.latest(&container.name));
    phase(view) == "Failed" && latest.any(|record| view.memory.fenced.contains(&record.id))
}

fn some_will_restart(view: PodView<'_>) -> bool {
    spec::main_containers(view.pod).iter().any(|container| {
        view.observed
            .latest(&container.name)
            .is_some_and(|record| restarts(view, container, ContainerKind::Main, record))
    })
}

fn init_failed_for_good(view: PodView<'_>) -> bool {
    let incomplete = initialise::incomplete(view);
    spec::init_containers(view.pod).iter().filter(|c| incomplete.contains(&c.name.as_str())).any(|container| {
        let ended = view.observed.latest(&container.name).filter(|record| record.exit().is_some());
        ended.is_some_and(|record| {
            let succeeded = view.succeeded(record);
            !succeeded && !spec::restarts(spec::restart_policy(view.pod, container, ContainerKind::Init), succeeded)
        })
    })
}
