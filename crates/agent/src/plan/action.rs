//! The vocabulary between planner and worker.

use super::memory::FailureReason;
use super::probe::ProbeKind;

/// One thing to do for a pod. All actions of one plan may run at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's volumes, or bring their content up to date.
    PrepareVolumes,
    /// Have the image of this container on this machine, as its pull policy wants.
    EnsureImage {
        container: String,
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
    /// The preStop hook, SIGTERM, and SIGKILL when the grace is over.
    StopContainer {
        container: String,
        id: String,
        grace_seconds: i64,
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
            Action::EnsureImage { container } => Work::Image(container.clone()),
            Action::CreateSandbox { .. } | Action::StartSandbox { .. } => Work::Sandbox,
            Action::CreateContainer { container, .. } => Work::Create(container.clone()),
            Action::StartContainer { container, .. } => Work::Start(container.clone()),
            Action::RunPostStart { id, .. } => Work::PostStart(id.clone()),
            Action::RunProbe { id, kind, .. } => Work::Probe(id.clone(), *kind),
            Action::StopContainer { id, grace_seconds, .. } => Work::Stop(id.clone(), *grace_seconds),
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
    Image(String),
    /// Making it or starting it: after a failure of either, making one is tried again.
    Sandbox,
    Create(String),
    Start(String),
    PostStart(String),
    Probe(String, ProbeKind),
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
