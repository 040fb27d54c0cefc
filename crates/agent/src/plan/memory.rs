//! The agent's own state of a pod, which the runtime does not have: work in flight, failures, probe results, backoffs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use super::action::{Action, Completion, Outcome, StopCause, Work};
use super::backoff::{self, CrashBackoff};
use super::observed::Observed;
use super::probe::{ProbeKind, ProbeState};
use super::resize::{Allocation, ContainerResources, PendingResize};
use super::spec;

/// Why an action failed. Where a container's waiting reason exists for it, the name is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    ErrImagePull,
    ErrImageNeverPull,
    InvalidImageName,
    CreateContainerConfigError,
    CreateContainerError,
    RunContainerError,
    FailedMount,
    FailedSandbox,
    FailedPostStart,
    Other,
}

impl FailureReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FailureReason::ErrImagePull => "ErrImagePull",
            FailureReason::ErrImageNeverPull => "ErrImageNeverPull",
            FailureReason::InvalidImageName => "InvalidImageName",
            FailureReason::CreateContainerConfigError => "CreateContainerConfigError",
            FailureReason::CreateContainerError => "CreateContainerError",
            FailureReason::RunContainerError => "RunContainerError",
            FailureReason::FailedMount => "FailedMount",
            FailureReason::FailedSandbox => "FailedCreatePodSandBox",
            FailureReason::FailedPostStart => "FailedPostStartHook",
            FailureReason::Other => "Failed",
        }
    }

    /// Returns the first and the maximum delay before the next attempt, in seconds.
    fn delays(self) -> (i64, i64) {
        match self {
            FailureReason::ErrImagePull => (10, 300),
            FailureReason::ErrImageNeverPull | FailureReason::InvalidImageName => (10, 10),
            FailureReason::CreateContainerConfigError => (2, 20),
            FailureReason::FailedMount => (1, 30),
            FailureReason::CreateContainerError | FailureReason::RunContainerError => (10, 300),
            FailureReason::FailedSandbox | FailureReason::FailedPostStart | FailureReason::Other => (1, 30),
        }
    }
}

/// Delay between two attempts to stop a container whose fence has lapsed, in seconds.
const FENCE_RETRY_SECONDS: i64 = 1;

/// The last failure of an action that has not succeeded since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: FailureReason,
    pub message: String,
    pub at: Timestamp,
    pub retry_at: Timestamp,
    /// Number of failures in a row.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminationCause {
    /// The object is being deleted, and the API waits for the agent.
    Deleted,
    /// The object is gone, or bound to another node.
    Gone,
    /// The pod was active for longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    pub cause: TerminationCause,
    pub grace_seconds: i64,
    /// End of the grace period, which all containers of the pod share.
    pub until: Timestamp,
}

/// Why this node does not run a pod that is bound to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason of the pod's status and of the event.
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerMemory {
    /// The image that was last pulled or found on this machine.
    pub image: Option<String>,
    /// The next start may use that image without another pull.
    pub image_ready: bool,
    pub crash: CrashBackoff,
    /// The image whose restarts `crash` counts.
    pub crash_image: Option<String>,
    /// The attempt that was made last, and the resources that it has.
    pub resources: Option<(u32, ContainerResources)>,
    /// Id of the container whose postStart hook has succeeded.
    pub post_start_done: Option<String>,
    /// Id of the container that must be stopped because it failed a hook or a probe, and the message for its event.
    pub condemned: Option<(String, String)>,
    /// Id of the container that was stopped because its definition has changed. It is restarted in any case.
    pub replaced: Option<String>,
    /// Id of the container whose preStop hook has run ahead of its stop.
    pub pre_stop_done: Option<String>,
    pub probes: BTreeMap<ProbeKind, ProbeState>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Whether the state of the existing containers was taken over from the runtime and the last report. No action is
    /// planned before.
    pub adopted: bool,
    pub in_flight: BTreeSet<Work>,
    pub failures: BTreeMap<Work, Failure>,
    pub containers: BTreeMap<String, ContainerMemory>,
    pub volumes_ready: bool,
    /// The content of a volume has changed since the volumes were prepared.
    pub volumes_stale: bool,
    /// The resources that the node has given to the containers. `None` until the pod is taken over.
    pub allocation: Option<Allocation>,
    /// Why the pod does not have the resources of its spec yet.
    pub pending_resize: Option<PendingResize>,
    /// Ids of the containers that the fence has stopped, or is stopping.
    pub fenced: BTreeSet<String>,
    /// Ids of the containers whose stop has succeeded.
    pub stopped: BTreeSet<String>,
    pub start_time: Option<Timestamp>,
    pub termination: Option<Termination>,
    /// The pod asks for something that this node does not support. It has failed, and nothing of it is started.
    pub rejected: Option<Rejection>,
    pub removed: bool,
    pub deleted_from_api: bool,
}

impl Memory {
    /// Creates the memory of a pod from the last reported status, when the agent has just started.
    #[must_use]
    pub fn new(reported: &PodStatus, now: Timestamp) -> Self {
        let start_time = reported.start_time.as_ref().map_or(now, |time| time.0);
        Memory { start_time: Some(start_time), ..Memory::default() }
    }

    /// Whether all containers are known, so that none is taken for a new one. A pod that terminates does not wait.
    #[must_use]
    pub fn may_adopt(&self, observed: &Observed) -> bool {
        observed.unknown.is_empty() || self.termination.is_some()
    }

    /// Takes over what the runtime and the last reported status tell of the containers, once they are known.
    pub fn adopt(&mut self, pod: &Pod, observed: &Observed, reported: &PodStatus) {
        if self.adopted || !self.may_adopt(observed) {
            return;
        }
        self.adopted = true;
        let lists = [reported.init_container_statuses.as_deref(), reported.container_statuses.as_deref()];
        for status in lists.into_iter().flatten().flatten() {
            let Some(record) = observed.latest(&status.name) else { continue };
            let Some((container, _)) = spec::find_container(pod, &status.name) else { continue };
            let entry = self.containers.entry(status.name.clone()).or_default();
            let is_same_attempt = u32::try_from(status.restart_count).is_ok_and(|count| count == record.attempt);
            if let Some(resources) = status.resources.as_ref().filter(|_| is_same_attempt) {
                entry.resources = Some((record.attempt, ContainerResources::of(Some(resources))));
            }
            if let Some(started_at) = record.started_at() {
                entry.crash = CrashBackoff::adopted(record.attempt, started_at);
                entry.crash_image = Some(record.image.clone()).filter(|image| !image.is_empty());
            }
            let same = status.container_id.as_deref().is_some_and(|id| id.ends_with(&record.id));
            if !same || !record.is_running() || status.started != Some(true) {
                continue;
            }
            entry.post_start_done = Some(record.id.clone());
            if container.startup_probe.is_some() {
                entry.probes.insert(ProbeKind::Startup, ProbeState::adopted(&record.id, true));
            }
            if container.readiness_probe.is_some() && status.ready {
                entry.probes.insert(ProbeKind::Readiness, ProbeState::adopted(&record.id, true));
            }
        }
    }

    /// Notes that the pod is terminating. A later call may shorten the grace period but never extends it.
    pub fn terminate(&mut self, cause: TerminationCause, grace_seconds: i64, now: Timestamp) {
        let until = backoff::after(now, grace_seconds);
        let wanted = Termination { cause, grace_seconds, until };
        self.termination = Some(self.termination.map_or(wanted, |before| Termination {
            cause,
            grace_seconds: before.grace_seconds.min(grace_seconds),
            until: before.until.min(until),
        }));
    }

    /// Notes that an action begins. `pod` has the resources that a container is made with.
    pub fn begin(&mut self, pod: &Pod, action: &Action) {
        self.in_flight.insert(action.work());
        match action {
            Action::CreateContainer { container, attempt, .. } => {
                let made = spec::find_container(pod, container)
                    .map(|(container, _)| (*attempt, ContainerResources::of(container.resources.as_ref())));
                self.containers.entry(container.clone()).or_default().resources = made;
            }
            // A change while the volumes are being prepared sets this again.
            Action::PrepareVolumes => self.volumes_stale = false,
            Action::StopContainer { container, id, cause: StopCause::Replaced, .. } => {
                self.containers.entry(container.clone()).or_default().replaced = Some(id.clone());
            }
            Action::StopContainer { id, cause: StopCause::Fenced, .. } | Action::MarkFenced { id } => {
                self.fenced.insert(id.clone());
            }
            _ => {}
        }
    }

    /// Forgets the fence's stops that have failed, because the pod may run again. A container that still runs and is not
    /// being stopped ends for another reason.
    pub fn release_fenced(&mut self, observed: &Observed) {
        let in_flight = &self.in_flight;
        self.fenced.retain(|id| {
            let is_stopping = in_flight.iter().any(|work| matches!(work, Work::Stop(other, _) if other == id));
            is_stopping || observed.unknown.contains_key(id) || !observed.running().any(|record| record.id == *id)
        });
    }

    /// Notes that the task of this work was aborted.
    pub fn abandon(&mut self, work: &Work) {
        self.in_flight.remove(work);
    }

    pub fn record(&mut self, pod: &Pod, completion: &Completion, now: Timestamp) {
        let Completion { action, outcome } = completion;
        let work = action.work();
        self.in_flight.remove(&work);
        match outcome {
            Outcome::Failed { reason, message } => self.fail(pod, action, *reason, message, now),
            Outcome::Done => {
                self.failures.remove(&work);
                self.succeed(pod, action, now);
            }
            Outcome::Remembered { message } => {
                self.volumes_ready = true;
                self.fail(pod, action, FailureReason::FailedMount, message, now);
            }
            Outcome::Probed { healthy, .. } => self.probed(pod, action, *healthy, now),
        }
    }

    fn fail(&mut self, pod: &Pod, action: &Action, reason: FailureReason, message: &str, now: Timestamp) {
        let count = self.failures.get(&action.work()).map_or(0, |failure| failure.count) + 1;
        let (base, max) = match action {
            // The masters give the pod away at a fixed time, so the stop must not wait longer and longer.
            action if action.is_fenced_stop() => (FENCE_RETRY_SECONDS, FENCE_RETRY_SECONDS),
            _ => reason.delays(),
        };
        let retry_at = backoff::after(now, backoff::doubled(base, max, count - 1));
        let failure = Failure { reason, message: message.to_owned(), at: now, retry_at, count };
        self.failures.insert(action.work(), failure);
        match action {
            Action::PrepareVolumes => self.volumes_stale = true,
            Action::MarkFenced { id } => {
                self.fenced.remove(id);
            }
            Action::CreateContainer { container, .. } => {
                self.containers.entry(container.clone()).or_default().image_ready = false;
            }
            Action::StartContainer { container, attempt, .. } if reason == FailureReason::RunContainerError => {
                self.count_start(pod, container, *attempt, now);
            }
            // A failed hook does not delay the stop; an event reports the failure.
            Action::RunPreStop { container, id, .. } => {
                self.containers.entry(container.clone()).or_default().pre_stop_done = Some(id.clone());
            }
            Action::RunPostStart { container, id } => {
                let why = format!("Container {container} failed its postStart hook: {message}");
                if spec::find_container(pod, container).is_some() {
                    self.containers.entry(container.clone()).or_default().condemned = Some((id.clone(), why));
                }
            }
            _ => {}
        }
    }

    /// Counts a start towards the crash backoff, which starts over with a changed image.
    fn count_start(&mut self, pod: &Pod, name: &str, attempt: u32, now: Timestamp) {
        let image = spec::find_container(pod, name).and_then(|(container, _)| container.image.clone());
        let entry = self.containers.entry(name.to_owned()).or_default();
        let before = std::mem::replace(&mut entry.crash_image, image);
        if before.is_some() && before != entry.crash_image {
            entry.crash = CrashBackoff::default();
        } else if attempt > 0 {
            entry.crash.restarted(now);
        }
    }

    fn succeed(&mut self, pod: &Pod, action: &Action, now: Timestamp) {
        match action {
            Action::PrepareVolumes => self.volumes_ready = true,
            Action::EnsureImage { container, image } => {
                let entry = self.containers.entry(container.clone()).or_default();
                entry.image_ready = true;
                let before = entry.image.replace(image.clone());
                if before.is_some_and(|before| before != *image) {
                    // Failures of the previous image do not count for this one.
                    self.failures.remove(&Work::Create(container.clone()));
                    self.failures.remove(&Work::Start(container.clone()));
                }
            }
            Action::CreateContainer { container, .. } => {
                self.containers.entry(container.clone()).or_default().image_ready = false;
            }
            Action::StartContainer { container, attempt, .. } => {
                self.containers.entry(container.clone()).or_default().condemned = None;
                self.count_start(pod, container, *attempt, now);
            }
            Action::ResizeContainer { container, attempt, resources, .. } => {
                let entry = self.containers.entry(container.clone()).or_default();
                entry.resources = Some((*attempt, resources.clone()));
            }
            Action::RunPostStart { container, id } => {
                self.containers.entry(container.clone()).or_default().post_start_done = Some(id.clone());
            }
            Action::RunPreStop { container, id, .. } => {
                self.containers.entry(container.clone()).or_default().pre_stop_done = Some(id.clone());
            }
            Action::StopContainer { id, .. } | Action::StopUnknown { id, .. } => {
                self.stopped.insert(id.clone());
            }
            Action::RemovePod => self.removed = true,
            Action::DeleteFromApi => self.deleted_from_api = true,
            _ => {}
        }
    }

    fn probed(&mut self, pod: &Pod, action: &Action, healthy: bool, now: Timestamp) {
        let Action::RunProbe { container: name, id, kind } = action else { return };
        let Some((container, _)) = spec::find_container(pod, name) else { return };
        let Some(probe) = spec::probe_of(&container, *kind) else { return };
        let entry = self.containers.entry(name.clone()).or_default();
        let state = entry.probes.entry(*kind).or_insert_with(|| ProbeState::new(id));
        if state.container_id != *id {
            *state = ProbeState::new(id);
        }
        state.record(probe, healthy, now);
        if *kind != ProbeKind::Readiness && state.verdict == Some(false) && entry.condemned.is_none() {
            let why = format!("Container {name} failed {} probe, will be restarted", kind.title().to_lowercase());
            entry.condemned = Some((id.clone(), why));
        }
    }

    /// Returns the results of one probe of the container with this id.
    #[must_use]
    pub fn probe(&self, container: &str, id: &str, kind: ProbeKind) -> Option<&ProbeState> {
        self.containers.get(container)?.probes.get(&kind).filter(|state| state.container_id == id)
    }

    /// Whether the next start may use the image that the spec names, without another pull.
    #[must_use]
    pub fn image_is_ready(&self, container: &Container) -> bool {
        self.containers.get(&container.name).is_some_and(|entry| {
            entry.image_ready && entry.image.as_deref() == Some(container.image.as_deref().unwrap_or_default())
        })
    }

    /// Whether the container with this id was stopped because its definition has changed.
    #[must_use]
    pub fn is_replaced(&self, container: &str, id: &str) -> bool {
        self.containers.get(container).is_some_and(|entry| entry.replaced.as_deref() == Some(id))
    }

    /// Whether the preStop hook of the container with this id has run ahead of its stop.
    #[must_use]
    pub fn passed_pre_stop(&self, container: &str, id: &str) -> bool {
        self.containers.get(container).is_some_and(|entry| entry.pre_stop_done.as_deref() == Some(id))
    }

    /// Whether the container has passed its postStart hook and startup probe.
    #[must_use]
    pub fn has_started(&self, container: &Container, id: &str) -> bool {
        self.passed_post_start(container, id)
            && (container.startup_probe.is_none()
                || self.probe(&container.name, id, ProbeKind::Startup).is_some_and(|s| s.verdict == Some(true)))
    }

    #[must_use]
    pub fn passed_post_start(&self, container: &Container, id: &str) -> bool {
        !spec::has_post_start(container)
            || self.containers.get(&container.name).is_some_and(|entry| entry.post_start_done.as_deref() == Some(id))
    }
}
