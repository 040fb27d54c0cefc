//! Actions, which the planner returns and the worker executes, and their outcomes.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff;
use super::memory::FailureReason;
use super::probe::ProbeKind;
use super::resize::ContainerResources;

/// Minimum time between SIGTERM and SIGKILL, in seconds, even if the grace period of the pod is already over.
const MIN_GRACE_SECONDS: i64 = 2;

/// The grace period of a container that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Length of the grace period. Zero kills at once.
    pub seconds: i64,
    /// End of the grace period that the containers of a pod share. A container with its own grace period has `None`
    /// until it is stopped.
    pub until: Option<Timestamp>,
}

impl Grace {
    /// Creates a grace period of one container, which begins when the container is stopped.
    #[must_use]
    pub fn own(seconds: i64) -> Self {
        Grace { seconds, until: None }
    }

    /// Returns the grace period with its end set, for a stop that begins at `now`.
    #[must_use]
    pub fn begun(self, now: Timestamp) -> Self {
        Grace { until: Some(self.until.unwrap_or_else(|| backoff::after(now, self.seconds))), ..self }
    }

    #[must_use]
    pub fn is_over(self, now: Timestamp) -> bool {
        self.seconds == 0 || self.until.is_some_and(|until| until <= now)
    }

    /// Returns the maximum duration of a hook that begins at `now`.
    #[must_use]
    pub fn for_hook(self, now: Timestamp) -> Duration {
        let Some(until) = self.begun(now).until else { return Duration::ZERO };
        Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    /// Returns the time between SIGTERM at `now` and SIGKILL.
    #[must_use]
    pub fn for_stop(self, now: Timestamp) -> Duration {
        let least = u64::try_from(self.seconds.clamp(0, MIN_GRACE_SECONDS)).unwrap_or(0);
        self.for_hook(now).max(Duration::from_secs(least))
    }
}

/// Why a container is stopped, where this decides whether it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The exit counts like one without a stop.
    Ordinary,
    /// The definition of the container has changed, so it is restarted regardless of its restart policy.
    Replaced,
    /// The fence of the pod has lapsed, so the exit counts as a failure whatever its code.
    Fenced,
}

/// One thing to do for a pod. All actions of one plan may run at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's volumes, or update their content.
    PrepareVolumes,
    /// Pull the image of this container, if its pull policy requires it.
    EnsureImage {
        container: String,
        image: String,
    },
    CreateSandbox {
        attempt: u32,
    },
    StartSandbox {
        id: String,
    },
    /// Make one container in the sandbox, which need not be running yet.
    CreateContainer {
        container: String,
        attempt: u32,
        sandbox_id: String,
    },
    StartContainer {
        container: String,
        attempt: u32,
        id: String,
    },
    /// Change the resources of a running container.
    ResizeContainer {
        container: String,
        attempt: u32,
        id: String,
        resources: ContainerResources,
    },
    RunPostStart {
        container: String,
        id: String,
    },
    RunProbe {
        container: String,
        id: String,
        kind: ProbeKind,
    },
    /// Run the preStop hook of a container that will be stopped later.
    RunPreStop {
        container: String,
        id: String,
        grace: Grace,
    },
    /// Send SIGTERM, and SIGKILL when the grace period is over.
    StopContainer {
        container: String,
        id: String,
        grace: Grace,
        /// Run the preStop hook first, because it has not run yet.
        pre_stop: bool,
        cause: StopCause,
        why: String,
    },
    /// Stop a container of which only the id is known.
    StopUnknown {
        id: String,
        grace: Grace,
    },
    /// Record that the fence has lapsed while this container is being stopped.
    MarkFenced {
        id: String,
    },
    /// Remove ended containers and sandboxes that are no longer needed.
    RemoveHistory {
        ids: Vec<String>,
    },
    /// Release the network of a finished pod, but keep its containers for their logs.
    StopSandbox {
        id: String,
    },
    /// Remove everything of the pod from this machine.
    RemovePod,
    /// Delete the pod's object, after everything of it is gone from this machine.
    DeleteFromApi,
}

impl Action {
    /// Whether this stops a container whose fence has lapsed, or records such a stop.
    #[must_use]
    pub fn is_fenced_stop(&self) -> bool {
        matches!(self, Action::StopContainer { cause: StopCause::Fenced, .. } | Action::MarkFenced { .. })
    }

    /// Returns the identity of this action within its pod.
    #[must_use]
    pub fn work(&self) -> Work {
        match self {
            Action::PrepareVolumes => Work::Volumes,
            Action::EnsureImage { container, image } => Work::Image(container.clone(), image.clone()),
            Action::CreateSandbox { .. } | Action::StartSandbox { .. } => Work::Sandbox,
            Action::CreateContainer { container, .. } => Work::Create(container.clone()),
            Action::StartContainer { container, .. } => Work::Start(container.clone()),
            Action::ResizeContainer { id, .. } => Work::Resize(id.clone()),
            Action::RunPostStart { id, .. } => Work::PostStart(id.clone()),
            Action::RunProbe { id, kind, .. } => Work::Probe(id.clone(), *kind),
            Action::RunPreStop { id, .. } => Work::PreStop(id.clone()),
            Action::StopContainer { id, grace, .. } | Action::StopUnknown { id, grace } => {
                Work::Stop(id.clone(), grace.seconds)
            }
            Action::MarkFenced { id } => Work::Mark(id.clone()),
            Action::RemoveHistory { .. } => Work::History,
            Action::StopSandbox { .. } => Work::StopSandbox,
            Action::RemovePod => Work::Remove,
            Action::DeleteFromApi => Work::Delete,
        }
    }
}

/// The identity of an action. At most one action of each identity runs at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    Volumes,
    /// The container and its image. Another image is tried at once, even while the previous one is in its backoff.
    Image(String, String),
    /// Making or starting the sandbox. After a failure of either, another sandbox is made.
    Sandbox,
    Create(String),
    Start(String),
    Resize(String),
    PostStart(String),
    Probe(String, ProbeKind),
    PreStop(String),
    Stop(String, i64),
    Mark(String),
    History,
    StopSandbox,
    Remove,
    Delete,
}

/// An action that has ended, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub action: Action,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// No master answered, so the volumes show the last known content. They are updated later.
    Remembered {
        message: String,
    },
    /// A probe ran.
    Probed {
        healthy: bool,
        output: String,
    },
    Failed {
        reason: FailureReason,
        message: String,
    },
}
