//! Computes the pod's status for the API.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::Work;
use super::decide::{PodView, restarts};
use super::memory::{ContainerMemory, FailureReason, TerminationCause};
use super::observed::{ContainerRecord, Exit, RunState};
use super::probe::ProbeKind;
use super::resize::{self, ContainerResources};
use super::spec::{self, ContainerKind};
use super::{backoff, conditions, initialise, phase};

/// Time for which `ErrImagePull` is shown before it becomes `ImagePullBackOff`, in seconds.
pub(super) const ERR_IMAGE_PULL_SECONDS: i64 = 2;

/// The reason of a pod that its fence has made fail, and of a container that the fence has stopped.
const FENCED: &str = "Fenced";
/// Exit code of a container whose end was not seen, as if it was killed.
const LOST_EXIT_CODE: i32 = 137;
const FENCED_MESSAGE: &str = "The node lost contact with the masters for longer than the pod's fence";

/// Facts about the node that a pod's status shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub host_ip: String,
    /// The scheme of container ids: `docker` or `hollow`.
    pub runtime_scheme: String,
}

pub(super) fn pod_status(view: PodView<'_>) -> PodStatus {
    let phase = phase::phase(view);
    let mains: Vec<ContainerStatus> =
        spec::main_containers(view.pod).iter().map(|c| container_status(view, c, ContainerKind::Main)).collect();
    let inits: Vec<ContainerStatus> =
        spec::init_containers(view.pod).iter().map(|c| container_status(view, c, ContainerKind::Init)).collect();
    let ephemeral: Vec<ContainerStatus> = spec::ephemeral_containers(view.pod)
        .map(|container| container_status(view, &container, ContainerKind::Ephemeral))
        .collect();
    let ips = pod_ips(view);
    let overdue = view.memory.termination.is_some_and(|t| t.cause == TerminationCause::DeadlineExceeded);
    let was_over = phase::is_over(view.reported);
    let fenced = !was_over && phase::failed_by_fence(view);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions::conditions(view, phase, &mains)),
        host_ip: Some(view.facts.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: view.facts.host_ip.clone() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: view.memory.start_time.map(Time),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: Some(mains),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        qos_class: Some(spec::qos_class(view.pod).to_owned()),
        reason: match &view.memory.rejected {
            Some(rejection) => Some(rejection.reason.to_owned()),
            None if overdue => Some("DeadlineExceeded".to_owned()),
            None if fenced => Some(FENCED.to_owned()),
            None => view.reported.reason.clone(),
        },
        message: match &view.memory.rejected {
            Some(rejection) => Some(format!("Pod was rejected: {}", rejection.message)),
            None if overdue => Some("Pod was active on the node longer than the specified deadline".to_owned()),
            None if fenced => Some(FENCED_MESSAGE.to_owned()),
            None => view.reported.message.clone(),
        },
        observed_generation: view.pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn pod_ips(view: PodView<'_>) -> Vec<String> {
    match view.observed.sandbox() {
        Some(_) if spec::host_network(view.pod) => vec![view.facts.host_ip.clone()],
        Some(sandbox) => sandbox.ips.clone(),
        // An ended pod still shows the addresses that it had.
        None => view.reported.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    }
}

fn container_status(view: PodView<'_>, container: &Container, kind: ContainerKind) -> ContainerStatus {
    let latest = view.observed.latest(&container.name);
    let reported = reported_status(view, &container.name, kind);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ..ContainerStatus::default()
    };
    let Some(record) = latest else {
        // The last status of a container survives its removal from an ended pod.
        let ended = view.memory.removed || phase::is_over(view.reported);
        if let Some(reported) = reported.filter(|_| ended) {
            return reported.clone();
        }
        set_resources(&mut status, container, kind, None);
        if let Some(lost) = reported.filter(|_| kind == ContainerKind::Ephemeral).and_then(lost) {
            return lost;
        }
        status.state = Some(waiting(view, container, None, kind));
        status.started = (kind != ContainerKind::Ephemeral).then_some(false);
        return status;
    };
    status.restart_count = i32::try_from(record.attempt).unwrap_or(i32::MAX);
    status.container_id = Some(container_id(view, record));
    if !record.image.is_empty() {
        status.image.clone_from(&record.image);
    }
    status.image_id.clone_from(&record.image_id);
    let actual = record.is_running().then(|| resize::actual(view, record)).flatten();
    set_resources(&mut status, container, kind, actual);
    let running = record.is_running();
    // No probe and no endpoint depends on an ephemeral container.
    let is_service = kind != ContainerKind::Ephemeral;
    status.started = is_service.then(|| running && view.memory.has_started(container, &record.id));
    status.ready = is_service && is_ready(view, container, record, kind);
    let previous = view.observed.ended_before(&container.name, record.attempt);
    match &record.state {
        RunState::Running { started_at } => {
            status.state = Some(running_state(*started_at));
            status.last_state = previous.map(|record| terminated_state(view, record));
        }
        RunState::Exited(_) if will_start_again(view, container, record, kind) => {
            status.state = Some(waiting(view, container, Some(record), kind));
            status.last_state = Some(terminated_state(view, record));
        }
        RunState::Exited(_) => {
            status.state = Some(terminated_state(view, record));
            status.last_state = previous.map(|record| terminated_state(view, record));
        }
        // Unreachable: `latest` leaves out containers that wait to be started.
        RunState::Created => status.state = Some(waiting(view, container, None, kind)),
    }
    if status.last_state.is_none() {
        // The previous container may have been removed, but the API still shows its end.
        status.last_state = reported
            .filter(|reported| reported.restart_count == status.restart_count)
            .and_then(|reported| reported.last_state.clone());
    }
    status
}

/// Shows the resources that the node has given to a container, and those that it has while it runs.
fn set_resources(
    status: &mut ContainerStatus,
    container: &Container,
    kind: ContainerKind,
    actual: Option<&ContainerResources>,
) {
    if kind == ContainerKind::Ephemeral {
        return;
    }
    let allocated = ContainerResources::of(container.resources.as_ref()).requirements();
    status.allocated_resources.clone_from(&allocated.requests);
    status.resources = Some(actual.map_or(allocated, ContainerResources::requirements));
}

fn reported_status<'a>(view: PodView<'a>, name: &str, kind: ContainerKind) -> Option<&'a ContainerStatus> {
    let list = match kind {
        ContainerKind::Init => &view.reported.init_container_statuses,
        ContainerKind::Main => &view.reported.container_statuses,
        ContainerKind::Ephemeral => &view.reported.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

/// Returns the status of a container that has run, that the runtime no longer has, and that is not started again.
fn lost(reported: &ContainerStatus) -> Option<ContainerStatus> {
    let state = reported.state.as_ref()?;
    if state.terminated.is_some() {
        return Some(reported.clone());
    }
    let running = state.running.as_ref()?;
    let terminated = ContainerStateTerminated {
        container_id: reported.container_id.clone(),
        exit_code: LOST_EXIT_CODE,
        message: Some("The container could not be located".to_owned()),
        reason: Some("ContainerStatusUnknown".to_owned()),
        started_at: running.started_at.clone(),
        ..ContainerStateTerminated::default()
    };
    let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
    Some(ContainerStatus { state: Some(state), ..reported.clone() })
}

fn container_id(view: PodView<'_>, record: &ContainerRecord) -> String {
    format!("{}://{}", view.facts.runtime_scheme, record.id)
}

fn is_ready(view: PodView<'_>, container: &Container, record: &ContainerRecord, kind: ContainerKind) -> bool {
    match &record.state {
        RunState::Exited(_) => kind == ContainerKind::Init && !spec::is_sidecar(container) && view.succeeded(record),
        RunState::Created => false,
        RunState::Running { .. } if kind == ContainerKind::Init && !spec::is_sidecar(container) => false,
        RunState::Running { .. } => {
            view.memory.has_started(container, &record.id)
                && (container.readiness_probe.is_none()
                    || view
                        .memory
                        .probe(&container.name, &record.id, ProbeKind::Readiness)
                        .is_some_and(|state| state.verdict == Some(true)))
        }
    }
}

fn will_start_again(view: PodView<'_>, container: &Container, record: &ContainerRecord, kind: ContainerKind) -> bool {
    if record.exit().is_none() {
        return false;
    }
    let over = view.memory.termination.is_some() || phase::is_final(phase::phase(view));
    if over {
        return false;
    }
    let in_current_sandbox = view.observed.sandbox().is_some_and(|sandbox| sandbox.id == record.sandbox_id);
    if kind == ContainerKind::Init && !in_current_sandbox && !initialise::is_initialised(view) {
        return true;
    }
    restarts(view, container, kind, record)
}

fn running_state(started_at: Timestamp) -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(Time(started_at)) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn terminated_state(view: PodView<'_>, record: &ContainerRecord) -> ContainerState {
    let Some(Exit { started_at, finished_at, code, reason, message }) = record.exit() else {
        return ContainerState::default();
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(view, record)),
        exit_code: *code,
        finished_at: Some(Time(*finished_at)),
        message: (!message.is_empty()).then(|| message_part(view, message).to_owned()),
        reason: Some(if view.memory.fenced.contains(&record.id) { FENCED.to_owned() } else { reason.clone() }),
        signal: None,
        started_at: started_at.map(Time),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// Maximum size of the termination messages of all containers of a pod together, in bytes (the kubelet's limit).
const POD_MESSAGE_BYTES: usize = 12 * 1024;

/// Cuts a termination message to the share of one container.
fn message_part<'a>(view: PodView<'_>, message: &'a str) -> &'a str {
    let containers = spec::main_containers(view.pod).len()
        + spec::init_containers(view.pod).len()
        + spec::ephemeral_containers(view.pod).count();
    let mut end = message.len().min(POD_MESSAGE_BYTES / containers.max(1));
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn waiting(
    view: PodView<'_>,
    container: &Container,
    ended: Option<&ContainerRecord>,
    kind: ContainerKind,
) -> ContainerState {
    let (reason, message) = waiting_reason(view, container, ended, kind);
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn waiting_reason(
    view: PodView<'_>,
    container: &Container,
    ended: Option<&ContainerRecord>,
    kind: ContainerKind,
) -> (&'static str, Option<String>) {
    let image = container.image.as_deref().unwrap_or_default();
    if let Some(failure) = view.memory.failures.get(&Work::Image(container.name.clone(), image.to_owned())) {
        let settled = backoff::after(failure.at, ERR_IMAGE_PULL_SECONDS) <= view.now;
        if failure.reason == FailureReason::ErrImagePull && settled {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
            return ("ImagePullBackOff", Some(message));
        }
        return (failure.reason.as_str(), Some(failure.message.clone()));
    }
    if let Some(exit) = ended.and_then(ContainerRecord::exit) {
        let outdated = ended.is_some_and(|record| record.is_outdated(container));
        let entry = view.memory.containers.get(&container.name).filter(|_| !outdated);
        let crash = entry.map(|entry: &ContainerMemory| entry.crash);
        let delay = crash.map_or(0, |crash| crash.delay_after(exit.finished_at));
        if delay > 0 && crash.is_some_and(|crash| crash.until(exit.finished_at) > view.now) {
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(delay),
                container.name,
                spec::pod_ref(view.pod)
            );
            return ("CrashLoopBackOff", Some(message));
        }
    }
    let works = [Work::Create(container.name.clone()), Work::Start(container.name.clone())];
    if let Some(failure) = works.iter().find_map(|work| view.memory.failures.get(work)) {
        return (failure.reason.as_str(), Some(failure.message.clone()));
    }
    let waits_for_others = match kind {
        ContainerKind::Init => spec::init_containers(view.pod).first().is_some_and(|c| c.name != container.name),
        ContainerKind::Main => !initialise::is_initialised(view),
        ContainerKind::Ephemeral => false,
    };
    if waits_for_others { ("PodInitializing", None) } else { ("ContainerCreating", None) }
}

/// Formats seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
fn go_duration(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
