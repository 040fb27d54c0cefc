//! The state machine of a pod that should run: sandbox, volumes, images, init containers, containers, hooks, probes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use super::action::{Action, Grace, StopCause, Work};
use super::memory::Memory;
use super::observed::{ContainerRecord, Observed, RunState, Sandbox, SandboxState};
use super::probe::{ProbeKind, ProbeState};
use super::spec::ContainerKind;
use super::status::{self, NodeFacts};
use super::{backoff, ephemeral, initialise, phase, resize, spec, terminate};

/// The inputs of a decision about a pod.
#[derive(Clone, Copy)]
pub struct PodView<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    /// The status that was computed last, or for an adopted pod the one in the API.
    pub reported: &'a PodStatus,
    pub facts: &'a NodeFacts,
    pub now: Timestamp,
}

impl PodView<'_> {
    /// Whether the container has ended by itself and with code 0. The exit of a container that the fence has stopped
    /// says nothing about its work, so it is a failure.
    pub(super) fn succeeded(self, record: &ContainerRecord) -> bool {
        record.exit().is_some_and(|exit| exit.code == 0) && !self.memory.fenced.contains(&record.id)
    }
}

/// The actions to execute now, the status to report, and the time of the next plan if nothing happens before.
#[derive(Clone, Debug, PartialEq)]
pub struct PodPlan {
    pub actions: Vec<Action>,
    pub status: PodStatus,
    pub wake: Option<Timestamp>,
    /// Nothing of the pod is left, so that its worker may end.
    pub finished: bool,
}

/// Collects the actions of a plan. Leaves out actions that are in flight or in their backoff.
pub(super) struct Steps<'a> {
    view: PodView<'a>,
    actions: Vec<Action>,
    wake: Option<Timestamp>,
}

impl<'a> Steps<'a> {
    pub(super) fn add(&mut self, action: Action) {
        let work = action.work();
        if self.view.memory.in_flight.contains(&work) {
            return;
        }
        match self.view.memory.failures.get(&work) {
            Some(failure) if failure.retry_at > self.view.now => self.wake_at(failure.retry_at),
            _ => self.actions.push(action),
        }
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn is_in_flight(&self, work: &Work) -> bool {
        self.view.memory.in_flight.contains(work)
    }
}

/// Plans the next actions of one pod.
#[must_use]
pub fn plan(view: PodView<'_>) -> PodPlan {
    let mut steps = Steps { view, actions: Vec::new(), wake: None };
    if (!view.observed.unknown.is_empty() || !view.memory.adopted) && view.memory.termination.is_none() {
        // A plan would make containers that may exist, restart ones that may run, or run their hooks again.
        return PodPlan { actions: Vec::new(), status: view.reported.clone(), wake: None, finished: false };
    }
    let mut finished = false;
    let phase = phase::phase(view);
    if view.memory.termination.is_some() {
        finished = terminate::terminate(view, &mut steps);
    } else if phase::is_final(phase) {
        terminate::retire(view, &mut steps);
    } else {
        wake_for_deadline(view, &mut steps);
        advance(view, &mut steps);
    }
    wake_for_image_reason(view, &mut steps);
    PodPlan { status: status::pod_status(view), actions: steps.actions, wake: steps.wake, finished }
}

/// Returns the time at which the pod has been active for its `activeDeadlineSeconds`, if it has a deadline.
#[must_use]
pub fn deadline(pod: &Pod, start_time: Option<Timestamp>) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(backoff::after(start_time?, seconds))
}

fn wake_for_deadline(view: PodView<'_>, steps: &mut Steps<'_>) {
    if let Some(deadline) = deadline(view.pod, view.memory.start_time) {
        steps.wake_at(deadline);
    }
}

/// Schedules a plan for the time at which `ErrImagePull` turns into `ImagePullBackOff`. Both reasons are shown for a
/// while, as the kubelet does.
fn wake_for_image_reason(view: PodView<'_>, steps: &mut Steps<'_>) {
    for (work, failure) in &view.memory.failures {
        let turns = backoff::after(failure.at, status::ERR_IMAGE_PULL_SECONDS);
        if matches!(work, Work::Image(..)) && turns > view.now {
            steps.wake_at(turns);
        }
    }
}

fn advance(view: PodView<'_>, steps: &mut Steps<'_>) {
    if !view.memory.volumes_ready || view.memory.volumes_stale {
        steps.add(Action::PrepareVolumes);
    }
    remove_history(view, steps);
    let Some(sandbox) = view.observed.sandbox() else {
        bring_up_sandbox(view, steps);
        return;
    };
    ephemeral::advance(view, sandbox, steps);
    if !initialise::advance(view, sandbox, steps) {
        return;
    }
    let mut held = false;
    for container in spec::main_containers(view.pod) {
        match view.observed.latest_in(&container.name, &sandbox.id) {
            Some(record) if record.is_running() => {
                supervise(view, container, record, steps);
                held |= !view.memory.passed_post_start(container, &record.id);
            }
            // The image has changed since the container was made, so the container will be removed and made again.
            Some(record) if record.state == RunState::Created && record.is_outdated(container) => {}
            Some(record) if record.state == RunState::Created => {
                if !held {
                    start(record, steps);
                }
                held |= spec::has_post_start(container);
            }
            record => {
                create(view, sandbox, container, ContainerKind::Main, steps);
                held |= record.is_none() && spec::has_post_start(container);
            }
        }
    }
}

/// Makes and starts a sandbox, and makes the first containers while it starts. Containers of a dead sandbox have lost
/// their network and are stopped first.
fn bring_up_sandbox(view: PodView<'_>, steps: &mut Steps<'_>) {
    let mut any_running = false;
    for record in view.observed.running() {
        any_running = true;
        let why = format!("Stopping container {}", record.name);
        steps.add(stop(view, record, Grace::own(spec::grace_seconds(view.pod)), why));
    }
    if any_running || !initialise::has_something_to_start(view) {
        return;
    }
    if let Some(sandbox) = view.observed.unstarted_sandbox() {
        steps.add(Action::StartSandbox { id: sandbox.id.clone() });
        let is_init = !spec::init_containers(view.pod).is_empty();
        let kind = if is_init { ContainerKind::Init } else { ContainerKind::Main };
        for container in initialise::first_starts(view.pod) {
            if view.observed.latest_in(&container.name, &sandbox.id).is_none() {
                create(view, sandbox, container, kind, steps);
            }
        }
        return;
    }
    steps.add(Action::CreateSandbox { attempt: view.observed.next_sandbox_attempt() });
    for container in initialise::first_starts(view.pod) {
        if !view.memory.image_is_ready(container) {
            steps.add(ensure_image(container));
        }
    }
}

fn ensure_image(container: &Container) -> Action {
    Action::EnsureImage { container: container.name.clone(), image: container.image.clone().unwrap_or_default() }
}

/// Whether a container that has ended is started again.
pub(super) fn restarts(
    view: PodView<'_>,
    container: &Container,
    kind: ContainerKind,
    record: &ContainerRecord,
) -> bool {
    let policy = spec::restart_policy(view.pod, container, kind);
    view.memory.is_replaced(&container.name, &record.id)
        || record.exit().is_some() && spec::restarts(policy, view.succeeded(record))
}

/// Starts a container that has been made.
pub(super) fn start(record: &ContainerRecord, steps: &mut Steps<'_>) {
    steps.add(Action::StartContainer {
        container: record.name.clone(),
        attempt: record.attempt,
        id: record.id.clone(),
    });
}

/// Makes a container that does not run, if its restart policy and its backoff allow it.
pub(super) fn create(
    view: PodView<'_>,
    sandbox: &Sandbox,
    container: &Container,
    kind: ContainerKind,
    steps: &mut Steps<'_>,
) {
    let last = view.observed.latest(&container.name);
    let memory = view.memory.containers.get(&container.name);
    if let Some(record) = last
        && let Some(exit) = record.exit()
    {
        if !(kind == ContainerKind::Init || restarts(view, container, kind, record)) {
            return;
        }
        // Crashes of another image do not count.
        let crash = memory.map(|entry| entry.crash).filter(|_| !record.is_outdated(container));
        let until = crash.map_or(exit.finished_at, |crash| crash.until(exit.finished_at));
        if until > view.now {
            steps.wake_at(until);
            return;
        }
    }
    // The pod's address is unknown until the sandbox runs.
    let addressed = sandbox.state == SandboxState::Running || !spec::asks_for_address(view.pod, container);
    if !view.memory.image_is_ready(container) {
        if !steps.is_in_flight(&Work::Create(container.name.clone())) {
            steps.add(ensure_image(container));
        }
    } else if view.memory.volumes_ready && addressed {
        steps.add(Action::CreateContainer {
            container: container.name.clone(),
            attempt: view.observed.next_attempt(&container.name),
            sandbox_id: sandbox.id.clone(),
        });
    }
}

/// Runs the hooks and probes of a running container, and stops it when it has failed one or its image has changed.
pub(super) fn supervise(view: PodView<'_>, container: &Container, record: &ContainerRecord, steps: &mut Steps<'_>) {
    if is_replaceable(view, container) && record.is_outdated(container) {
        steps.add(replace(view, container, record));
        return;
    }
    let condemned = view.memory.containers.get(&container.name).and_then(|entry| entry.condemned.as_ref());
    if let Some((id, why)) = condemned
        && *id == record.id
    {
        steps.add(stop(view, record, Grace::own(condemned_grace(view, container, record)), why.clone()));
        return;
    }
    match resize::next(view, container, record) {
        Some(restart @ Action::StopContainer { .. }) => {
            steps.add(restart);
            return;
        }
        Some(resize) => steps.add(resize),
        None => {}
    }
    if !view.memory.passed_post_start(container, &record.id) {
        // The hook runs once. A container whose hook failed is stopped.
        if !view.memory.failures.contains_key(&Work::PostStart(record.id.clone())) {
            steps.add(Action::RunPostStart { container: container.name.clone(), id: record.id.clone() });
        }
        return;
    }
    probe(view, container, record, &ProbeKind::ALL, steps);
}

/// Whether a changed image restarts the container. An init container that is not a sidecar runs to its end.
fn is_replaceable(view: PodView<'_>, container: &Container) -> bool {
    spec::is_sidecar(container) || spec::main_containers(view.pod).iter().any(|main| main.name == container.name)
}

/// Returns the action that stops a container whose definition has changed, with the kubelet's message.
fn replace(view: PodView<'_>, container: &Container, record: &ContainerRecord) -> Action {
    let name = &container.name;
    let why = if spec::init_containers(view.pod).iter().any(|init| init.name == *name) {
        format!("Init container {name} definition changed, will be restarted")
    } else {
        format!("Container {name} definition changed, will be restarted")
    };
    Action::StopContainer {
        container: name.clone(),
        id: record.id.clone(),
        grace: Grace::own(spec::grace_seconds(view.pod)),
        pre_stop: true,
        cause: StopCause::Replaced,
        why,
    }
}

/// Runs the probes of these kinds that are due.
pub(super) fn probe(
    view: PodView<'_>,
    container: &Container,
    record: &ContainerRecord,
    kinds: &[ProbeKind],
    steps: &mut Steps<'_>,
) {
    let RunState::Running { started_at } = record.state else { return };
    let started = view.memory.has_started(container, &record.id);
    for kind in kinds.iter().copied() {
        let applies = if kind == ProbeKind::Startup { !started } else { started };
        let Some(probe) = spec::probe_of(container, kind).filter(|_| applies) else { continue };
        let fresh = ProbeState::new(&record.id);
        let state = view.memory.probe(&container.name, &record.id, kind).unwrap_or(&fresh);
        let due = state.due(probe, started_at);
        let action = Action::RunProbe { container: container.name.clone(), id: record.id.clone(), kind };
        if due > view.now {
            steps.wake_at(due);
        } else {
            steps.add(action);
        }
    }
}

fn condemned_grace(view: PodView<'_>, container: &Container, record: &ContainerRecord) -> i64 {
    [ProbeKind::Startup, ProbeKind::Liveness]
        .into_iter()
        .find(|kind| view.memory.probe(&container.name, &record.id, *kind).is_some_and(|s| s.verdict == Some(false)))
        .and_then(|kind| spec::probe_of(container, kind)?.termination_grace_period_seconds)
        .unwrap_or_else(|| spec::grace_seconds(view.pod))
}

pub(super) fn stop(view: PodView<'_>, record: &ContainerRecord, grace: Grace, why: String) -> Action {
    Action::StopContainer {
        container: record.name.clone(),
        id: record.id.clone(),
        grace,
        pre_stop: !view.memory.passed_pre_stop(&record.name, &record.id),
        cause: StopCause::Ordinary,
        why,
    }
}

/// Removes containers and sandboxes that are no longer needed. The newest sandbox stays, and so do the newest container
/// of each entry and the one before it, for `--previous`. A container that waits to be started is removed if its
/// sandbox has died or its image has changed, because it will never be started.
fn remove_history(view: PodView<'_>, steps: &mut Steps<'_>) {
    let observed = view.observed;
    let usable = |id: &str| observed.sandboxes.iter().any(|s| s.id == id && s.state != SandboxState::Stopped);
    let mut ids: Vec<String> = observed
        .containers
        .iter()
        .filter(|record| match record.state {
            RunState::Running { .. } => false,
            RunState::Created => !usable(&record.sandbox_id) || is_superseded(view, record),
            RunState::Exited(_) => {
                let newer = observed.containers.iter().filter(|r| r.name == record.name && r.attempt > record.attempt);
                newer.count() >= 2
            }
        })
        .map(|record| record.id.clone())
        .collect();
    let newest = observed.sandboxes.iter().map(|sandbox| sandbox.attempt).max();
    let old = observed.sandboxes.iter().filter(|s| s.state != SandboxState::Running && Some(s.attempt) != newest);
    ids.extend(old.map(|sandbox| sandbox.id.clone()));
    if !ids.is_empty() {
        steps.add(Action::RemoveHistory { ids });
    }
}

/// Whether the image of a container that waits to be started has changed. A container that is being started does not
/// count.
fn is_superseded(view: PodView<'_>, record: &ContainerRecord) -> bool {
    spec::find_container(view.pod, &record.name).is_some_and(|(container, _)| record.is_outdated(&container))
        && !view.memory.in_flight.contains(&Work::Start(record.name.clone()))
}
