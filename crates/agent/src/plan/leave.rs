//! Restricts a pod's plan to the actions that its fence allows.

use super::action::{Action, Grace};
use super::decide::{PodPlan, PodView, stop};
use super::spec;

/// The actions that a fence allows for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The pod is this node's, so its containers may be started.
    Run,
    /// Running containers continue, but none is started until the masters confirm that the pod is still this node's.
    Hold,
    /// No container may run, because the masters may have given the pod to another node.
    Stop,
}

/// Removes the actions that are not allowed from the plan. Under [`Leave::Stop`] all running containers are stopped
/// together, because the fence leaves no time to stop sidecars last.
#[must_use]
pub fn within_leave(view: PodView<'_>, mut plan: PodPlan, leave: Leave) -> PodPlan {
    if leave == Leave::Run {
        return plan;
    }
    let starts = |action: &Action| {
        matches!(
            action,
            Action::CreateSandbox { .. }
                | Action::StartSandbox { .. }
                | Action::CreateContainer { .. }
                | Action::StartContainer { .. }
        )
    };
    plan.actions.retain(|action| !starts(action));
    if leave == Leave::Stop {
        for record in view.observed.running() {
            let grace = Grace::own(spec::grace_seconds(view.pod));
            let why = format!("Stopping container {}: the node cannot reach the masters", record.name);
            let stop = stop(view, record, grace, why);
            let work = stop.work();
            if !view.memory.in_flight.contains(&work) && plan.actions.iter().all(|action| action.work() != work) {
                plan.actions.push(stop);
            }
        }
    }
    plan
}
