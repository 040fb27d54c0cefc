//! The end of a pod: containers with their grace, sandbox, volumes, and at last the object.

use super::action::{Action, Work};
use super::decide::{PodView, Steps, stop};
use super::memory::{Termination, TerminationCause};
use super::observed::ContainerRecord;
use super::spec;

/// Ends a pod on request. True when nothing is left to do.
pub(super) fn terminate(view: PodView<'_>, steps: &mut Steps<'_>) -> bool {
    let Some(Termination { cause, grace_seconds }) = view.memory.termination else { return false };
    if stop_running(view, grace_seconds, steps) || making_something(view) {
        return false;
    }
    if cause == TerminationCause::DeadlineExceeded {
        stop_sandbox(view, steps);
        return false;
    }
    if !view.memory.removed {
        steps.add(Action::RemovePod);
        return false;
    }
    if cause == TerminationCause::Deleted && !view.memory.deleted_from_api {
        steps.add(Action::DeleteFromApi);
        return false;
    }
    true
}

/// Gives back what a pod that has run to its end no longer needs. Its ended containers stay for their logs.
pub(super) fn retire(view: PodView<'_>, steps: &mut Steps<'_>) {
    if !stop_running(view, spec::grace_seconds(view.pod), steps) && !making_something(view) {
        stop_sandbox(view, steps);
    }
}

fn stop_sandbox(view: PodView<'_>, steps: &mut Steps<'_>) {
    if let Some(sandbox) = view.observed.sandbox() {
        steps.add(Action::StopSandbox { id: sandbox.id.clone() });
    }
}

/// A container or sandbox that is being made would outlive a removal done now.
fn making_something(view: PodView<'_>) -> bool {
    view.memory
        .in_flight
        .iter()
        .any(|work| matches!(work, Work::Create(_) | Work::Start(_) | Work::Sandbox | Work::Volumes | Work::History))
}

/// Stops main containers together, then sidecars one by one, last first. True while something runs.
fn stop_running(view: PodView<'_>, grace_seconds: i64, steps: &mut Steps<'_>) -> bool {
    let is_sidecar = |record: &ContainerRecord| {
        spec::find_container(view.pod, &record.name).is_some_and(|(c, init)| init && spec::is_sidecar(c))
    };
    let running: Vec<&ContainerRecord> = view.observed.running().collect();
    let (sidecars, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|record| is_sidecar(record));
    let order = |record: &&ContainerRecord| {
        spec::init_containers(view.pod).iter().position(|container| container.name == record.name)
    };
    let last_sidecar = sidecars.iter().copied().max_by_key(order);
    let next: Vec<&ContainerRecord> = if others.is_empty() { last_sidecar.into_iter().collect() } else { others };
    for record in &next {
        steps.add(stop(record, grace_seconds, format!("Stopping container {}", record.name)));
    }
    !next.is_empty()
}
