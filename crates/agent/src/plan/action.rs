//! The vocabulary between planner and worker.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff;
use super::memory::FailureReason;
use super::probe::ProbeKind;

/// A container that is stopped gets at least so many seconds of its grace, however late its turn comes.
const MIN_GRACE_SECONDS: i64 = 2;

/// How long a container may take to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// The grace that was promised. Zero kills at once.
    pub seconds: i64,
    /// The end of the grace that the containers of a pod share. A container with a grace of its own has `None` until it
    /// is stopped.
    pub until: Option<Timestamp>,
}

impl Grace {
    /// A grace of its own, which begins when the container is stopped.
    #[must_use]
    pub fn own(seconds: i64) -> Self {
        Grace { seconds, until: None }
    }

    /// The same grace with its end, for a stop that begins at `now`.
    #[must_use]
    pub fn begun(self, now: Timestamp) -> Self {
        Grace { until: Some(self.until.unwrap_or_else(|| backoff::after(now, self.seconds))), ..self }
    }

    #[must_use]
    pub fn is_over(self, now: Timestamp) -> bool {
        self.seconds == 0 || self.until.is_some_and(|until| until <= now)
    }

    /// Maximum duration of a hook that begins at `now`.
    #[must_use]
    pub fn for_hook(self, now: Timestamp) -> Duration {
        let Some(until) = self.begun(now).until else { return Duration::ZERO };
        Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    /// The time between SIGTERM at `now` and SIGKILL.
    #[must_use]
    pub fn for_stop(self, now: Timestamp) -> Duration {
        let least = u64::try_from(self.seconds.clamp(0, MIN_GRACE_SECONDS)).unwrap_or(0);
        self.for_hook(now).max(Duration::from_secs(least))
    }
}

/// One thing to do for a pod. All actions of one plan may run at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's volumes, or bring their content up to date.
    PrepareVolumes,
    /// Have the image of this container on this machine, as its pull policy wants.
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
    /// Make one container in the sandbox, which need not run yet.
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
    RunPostStart {
        container: String,
        id: String,
    },
    RunProbe {
        container: String,
        id: String,
        kind: ProbeKind,
    },
    /// The preStop hook of a container whose turn to be stopped comes later.
    RunPreStop {
        container: String,
        id: String,
        grace: Grace,
    },
    /// SIGTERM, and SIGKILL when the grace is over.
    StopContainer {
        container: String,
        id: String,
        grace: Grace,
        /// The preStop hook has not run yet and comes first.
        pre_stop: bool,
        /// The container is started again from its changed definition, whatever its restart policy.
        replace: bool,
        why: String,
    },
    /// Remove ended containers and sandboxes that nobody needs any more.
    RemoveHistory {
        ids: Vec<String>,
    },
    /// The pod is finished: give its network back but keep its containers for their logs.
    StopSandbox {
        id: String,
    },
    /// Remove everything of the pod from this machine.
    RemovePod,
    /// Everything is gone from this machine: let the object go, too.
    DeleteFromApi,
}

impl Action {
    /// What tells this action from the others of its pod.
    #[must_use]
    pub fn work(&self) -> Work {
        match self {
            Action::PrepareVolumes => Work::Volumes,
            Action::EnsureImage { container, image } => Work::Image(container.clone(), image.clone()),
            Action::CreateSandbox { .. } | Action::StartSandbox { .. } => Work::Sandbox,
            Action::CreateContainer { container, .. } => Work::Create(container.clone()),
            Action::StartContainer { container, .. } => Work::Start(container.clone()),
            Action::RunPostStart { id, .. } => Work::PostStart(id.clone()),
            Action::RunProbe { id, kind, .. } => Work::Probe(id.clone(), *kind),
            Action::RunPreStop { id, .. } => Work::PreStop(id.clone()),
            Action::StopContainer { id, grace, .. } => Work::Stop(id.clone(), grace.seconds),
            Action::RemoveHistory { .. } => Work::History,
            Action::StopSandbox { .. } => Work::StopSandbox,
            Action::RemovePod => Work::Remove,
            Action::DeleteFromApi => Work::Delete,
        }
    }
}

/// The identity of an action: at most one of each runs at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    Volumes,
    /// The container and its image: another image is tried at once, whatever became of the one before.
    Image(String, String),
    /// Making it or starting it: after a failure of either, making one is tried again.
    Sandbox,
    Create(String),
    Start(String),
    PostStart(String),
    Probe(String, ProbeKind),
    PreStop(String),
    Stop(String, i64),
    History,
    StopSandbox,
    Remove,
    Delete,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub action: Action,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// No master answered, so the volumes show what was last known. They are brought up to date later.
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
