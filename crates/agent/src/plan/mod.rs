//! Plans the next actions of a pod: `(pod, observed containers, memory, now) -> (actions, status, wake)`.
//!
//! Everything here is pure: no clock, no I/O, no randomness. The worker (`crate::worker`) executes the actions and
//! records their outcomes in [`Memory`].

mod action;
pub mod backoff;
mod conditions;
mod decide;
mod ephemeral;
mod fence;
mod initialise;
mod memory;
mod observed;
mod phase;
mod probe;
mod resize;
mod spec;
mod status;
mod terminate;

pub use action::{Action, Completion, Grace, Outcome, StopCause, Work};
pub use conditions::{PASSING, own_report};
pub use decide::{PodPlan, PodView, deadline, plan};
pub use fence::{FenceVerdict, ended_by_fence, restrict};
pub use memory::{ContainerMemory, Failure, FailureReason, Memory, Rejection, Termination, TerminationCause};
pub use observed::{ContainerRecord, Exit, Observed, Role, RunState, Sandbox, SandboxState};
pub use phase::is_over;
pub use probe::{ProbeKind, ProbeState};
pub use resize::{Allocation, ContainerResources, PendingReason, PendingResize, adopted, fit, wanted, with_allocated};
pub use spec::{
    ContainerKind, PodRef, ephemeral_target, find_container, grace_seconds, is_sidecar, pod_ref, probe_of, qos_class,
    restart_policy, restarts,
};
pub use status::NodeFacts;

#[cfg(test)]
mod tests;
