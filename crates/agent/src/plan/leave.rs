//! What a fence leaves of a pod's plan.

use super::action::{Action, Grace};
use super::decide::{PodPlan, PodView, stop};
use super::spec;

/// What is allowed with a pod now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is this node's: its containers may be started.
    Run,
    /// Containers that run go on, and none is started: whether the pod still is this node's has to be asked.
    Hold,
    /// Nothing of it may run: the masters may have given it to another node.
    Stop,
}

/// The plan without what is not allowed. When nothing may run, everything that does is stopped together: the fence
/// leaves no time for an order.
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
