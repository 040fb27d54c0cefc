//! The sandboxes and containers of one pod, as the runtime shows them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

/// State of a sandbox. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SandboxState {
    /// Made but not started yet. Containers can be made in it but not started.
    Created,
    Running,
    Stopped,
}

/// The container that holds a pod's network. At most one sandbox of a pod runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub state: SandboxState,
    /// Addresses of the pod. Empty on the host network.
    pub ips: Vec<String>,
    pub created_at: Timestamp,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    pub code: i32,
    /// The kubelet's reason: `Completed`, `Error`, `OOMKilled` or `StartError`.
    pub reason: String,
    /// The termination message.
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made but not started yet.
    Created,
    Running {
        started_at: Timestamp,
    },
    Exited(Exit),
}

/// One container of a pod, which is one attempt at one entry of the pod's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    pub id: String,
    pub name: String,
    /// Number of attempts before this one.
    pub attempt: u32,
    pub sandbox_id: String,
    /// The image as the pod's spec named it when the container was made. Empty when the runtime does not know it.
    pub image: String,
    pub image_id: String,
    pub state: RunState,
}

impl ContainerRecord {
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, RunState::Running { .. })
    }

    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            RunState::Exited(exit) => Some(exit),
            RunState::Created | RunState::Running { .. } => None,
        }
    }

    /// Whether the container was made from another image than the spec names now.
    #[must_use]
    pub fn is_outdated(&self, container: &Container) -> bool {
        !self.image.is_empty() && self.image != container.image.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        match &self.state {
            RunState::Created => None,
            RunState::Running { started_at } => Some(*started_at),
            RunState::Exited(exit) => exit.started_at,
        }
    }
}

/// The purpose of a container whose state is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sandbox,
    Container,
}

/// All sandboxes and containers of one pod, including those that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<ContainerRecord>,
    /// Ids of sandboxes and containers whose present state the runtime could not tell. The lists above lack them, or
    /// have an earlier state of them.
    pub unknown: BTreeMap<String, Role>,
}

impl Observed {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty() && self.unknown.is_empty()
    }

    /// Returns the newest running sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.newest_sandbox(SandboxState::Running)
    }

    /// Returns the newest sandbox that waits to be started.
    #[must_use]
    pub fn unstarted_sandbox(&self) -> Option<&Sandbox> {
        self.newest_sandbox(SandboxState::Created)
    }

    fn newest_sandbox(&self, state: SandboxState) -> Option<&Sandbox> {
        self.sandboxes.iter().filter(|sandbox| sandbox.state == state).max_by_key(|sandbox| sandbox.attempt)
    }

    #[must_use]
    pub fn next_sandbox_attempt(&self) -> u32 {
        self.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0)
    }

    /// Returns the newest container of that name in any sandbox, except one that waits to be started.
    #[must_use]
    pub fn latest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .filter(|record| record.name == name && record.state != RunState::Created)
            .max_by_key(|record| record.attempt)
    }

    /// Returns the newest container of that name in one sandbox, started or not.
    #[must_use]
    pub fn latest_in(&self, name: &str, sandbox_id: &str) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .filter(|record| record.name == name && record.sandbox_id == sandbox_id)
            .max_by_key(|record| record.attempt)
    }

    /// Returns the newest ended container of that name before `attempt`.
    #[must_use]
    pub fn ended_before(&self, name: &str, attempt: u32) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .filter(|record| record.name == name && record.attempt < attempt && record.exit().is_some())
            .max_by_key(|record| record.attempt)
    }

    #[must_use]
    pub fn next_attempt(&self, name: &str) -> u32 {
        self.latest(name).map_or(0, |record| record.attempt + 1)
    }

    /// Returns the containers that run or ran when they were last inspected.
    pub fn running(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.containers.iter().filter(|record| record.is_running())
    }
}
