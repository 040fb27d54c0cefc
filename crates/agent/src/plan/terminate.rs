//! Terminates a pod: stops its containers within their grace period, then removes its sandbox, volumes and object.

use super::action::{Action, Grace, Work};
use super::backoff;
use super::decide::{PodView, Steps, probe, stop};
use super::memory::{Termination, TerminationCause};
use super::observed::{ContainerRecord, Role};
use super::probe::ProbeKind;
use super::spec::{self, ContainerKind};

/// Plans the next step of a termination. Returns whether nothing is left to do.
pub(super) fn terminate(view: PodView<'_>, steps: &mut Steps<'_>) -> bool {
    let Some(Termination { cause, grace_seconds, until }) = view.memory.termination else { return false };
    keep_probing_readiness(view, steps);
    let grace = Grace { seconds: grace_seconds, until: Some(until) };
    if stop_running(view, grace, steps) || is_making_anything(view) {
        return false;
    }
    if !view.observed.unknown.is_empty() && !grace.is_over(view.now) {
        // Such a container may run. It gets its grace period before the removal kills it together with the sandbox.
        stop_unknown(view, grace, steps);
        steps.wake_at(until);
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

/// Stops the sidecars and the sandbox of a pod that has run to its end. Its ended containers stay for their logs.
pub(super) fn retire(view: PodView<'_>, steps: &mut Steps<'_>) {
    let grace = spec::grace_seconds(view.pod);
    // The grace period that the sidecars share begins when the last of the other containers has ended.
    let ends = view.observed.containers.iter().filter(|record| !is_sidecar(view, record));
    let last = ends.filter_map(|record| record.exit().map(|exit| exit.finished_at)).max();
    let grace = Grace { seconds: grace, until: last.map(|last| backoff::after(last, grace)) };
    if !stop_running(view, grace, steps) && !is_making_anything(view) {
        stop_sandbox(view, steps);
    }
}

fn stop_sandbox(view: PodView<'_>, steps: &mut Steps<'_>) {
    if let Some(sandbox) = view.observed.sandbox() {
        steps.add(Action::StopSandbox { id: sandbox.id.clone() });
    }
}

/// Whether a container or sandbox is being made. It would outlive a removal done now.
fn is_making_anything(view: PodView<'_>) -> bool {
    view.memory
        .in_flight
        .iter()
        .any(|work| matches!(work, Work::Create(_) | Work::Start(_) | Work::Sandbox | Work::Volumes | Work::History))
}

/// Continues readiness probes, because the endpoints of a terminating pod still depend on them.
fn keep_probing_readiness(view: PodView<'_>, steps: &mut Steps<'_>) {
    for record in view.observed.running() {
        if let Some((container, _)) = spec::find_container(view.pod, &record.name) {
            probe(view, &container, record, &[ProbeKind::Readiness], steps);
        }
    }
}

fn is_sidecar(view: PodView<'_>, record: &ContainerRecord) -> bool {
    spec::find_container(view.pod, &record.name)
        .is_some_and(|(container, kind)| kind == ContainerKind::Init && spec::is_sidecar(&container))
}

/// Stops the main containers together and then the sidecars one by one, the last one first, all within one grace
/// period. When it is over, all containers that still run are stopped together. Returns whether any container runs.
fn stop_running(view: PodView<'_>, grace: Grace, steps: &mut Steps<'_>) -> bool {
    let is_known = |record: &&ContainerRecord| !view.observed.unknown.contains_key(&record.id);
    let running: Vec<&ContainerRecord> = view.observed.running().filter(is_known).collect();
    let (sidecars, others): (Vec<_>, Vec<_>) = running.iter().copied().partition(|record| is_sidecar(view, record));
    let order = |record: &&ContainerRecord| {
        spec::init_containers(view.pod).iter().position(|container| container.name == record.name)
    };
    let over = grace.is_over(view.now);
    let turn: Vec<&ContainerRecord> = if over {
        running.clone()
    } else if others.is_empty() {
        sidecars.iter().copied().max_by_key(order).into_iter().collect()
    } else {
        others
    };
    for record in &running {
        let hook_runs = view.memory.in_flight.contains(&Work::PreStop(record.id.clone()));
        if turn.iter().any(|next| next.id == record.id) {
            if over || !hook_runs {
                steps.add(stop(view, record, grace, format!("Stopping container {}", record.name)));
            }
        } else if has_pre_stop(view, record) && !view.memory.passed_pre_stop(&record.name, &record.id) {
            steps.add(Action::RunPreStop { container: record.name.clone(), id: record.id.clone(), grace });
        }
    }
    if let Some(until) = grace.until.filter(|_| !over && turn.len() < running.len()) {
        steps.wake_at(until);
    }
    !running.is_empty()
}

/// Stops the containers whose state is unknown, once each: no inspection shows that they have ended.
fn stop_unknown(view: PodView<'_>, grace: Grace, steps: &mut Steps<'_>) {
    let containers = view.observed.unknown.iter().filter(|(_, role)| **role == Role::Container).map(|(id, _)| id);
    for id in containers.filter(|id| !view.memory.stopped.contains(*id)) {
        let known = view.observed.containers.iter().find(|record| record.id == *id);
        steps.add(match known {
            Some(record) => stop(view, record, grace, format!("Stopping container {}", record.name)),
            None => Action::StopUnknown { id: id.clone(), grace },
        });
    }
}

fn has_pre_stop(view: PodView<'_>, record: &ContainerRecord) -> bool {
    let container = spec::find_container(view.pod, &record.name).map(|(container, _)| container);
    container.is_some_and(|container| container.lifecycle.as_ref().is_some_and(|hooks| hooks.pre_stop.is_some()))
}
