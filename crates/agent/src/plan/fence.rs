//! Restricts a pod's plan to the actions that its fence allows.

use jiff::Timestamp;

use super::action::{Action, Grace, StopCause};
use super::decide::{PodPlan, PodView, stop};
use super::observed::Exit;
use super::spec;

/// The fence's verdict on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceVerdict {
    /// The pod is this node's, so its containers may be started.
    Run,
    /// Running containers continue, but none is started until the masters confirm that the pod is still this node's.
    Hold,
    /// No container may run, because the masters may have given the pod to another node.
    Stop {
        /// The time at which the fence lapsed. The pod's grace period counts from then.
        lapsed_at: Timestamp,
    },
}

/// Time beyond the grace period in which a stop by the fence has ended a container, in seconds.
const STOP_TAKES_SECONDS: i64 = 10;

/// Whether a container that was marked at this time has ended by the fence's stop. An exit long after the mark has
/// another cause, because that stop did not succeed.
#[must_use]
pub fn ended_by_fence(exit: &Exit, marked_at: Timestamp, grace_seconds: i64) -> bool {
    exit.finished_at <= super::backoff::after(marked_at, grace_seconds + STOP_TAKES_SECONDS)
}

/// Removes the actions that are not allowed from the plan. Under [`FenceVerdict::Stop`] all running containers are
/// stopped together, because the fence leaves no time to stop sidecars last.
#[must_use]
pub fn restrict(view: PodView<'_>, mut plan: PodPlan, verdict: FenceVerdict) -> PodPlan {
    if verdict == FenceVerdict::Run {
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
    if let FenceVerdict::Stop { lapsed_at } = verdict {
        for record in view.observed.running() {
            let seconds = spec::grace_seconds(view.pod);
            let grace = Grace { seconds, until: Some(super::backoff::after(lapsed_at, seconds)) };
            stop_fenced(view, stop(view, record, grace, why(&record.name)), &mut plan);
        }
    }
    plan
}

fn why(container: &str) -> String {
    format!("Stopping container {container}: the node cannot reach the masters")
}

/// Adds a stop to the plan, unless the same stop is in flight or waits to be tried again. A stop that is planned for
/// another cause becomes the fence's. One in flight ends in time, since it began before the lapse with the same grace
/// period. It is only marked, so that the watchdog does not stop the container a second time.
fn stop_fenced(view: PodView<'_>, mut stop: Action, plan: &mut PodPlan) {
    if let Action::StopContainer { cause, .. } = &mut stop {
        *cause = StopCause::Fenced;
    }
    if let Action::StopContainer { id, .. } = &stop
        && view.observed.unknown.contains_key(id)
        && view.memory.stopped.contains(id)
    {
        // The engine has stopped the container but cannot show it.
        return;
    }
    let in_flight = |action: &Action| view.memory.in_flight.contains(&action.work());
    if in_flight(&stop)
        && let Action::StopContainer { id, .. } = stop
    {
        if view.memory.fenced.contains(&id) {
            return;
        }
        stop = Action::MarkFenced { id };
    }
    let work = stop.work();
    if in_flight(&stop) {
        return;
    }
    if let Some(failure) = view.memory.failures.get(&work).filter(|failure| failure.retry_at > view.now) {
        plan.wake = Some(plan.wake.map_or(failure.retry_at, |wake| wake.min(failure.retry_at)));
        return;
    }
    match plan.actions.iter_mut().find(|action| action.work() == work) {
        Some(planned) => *planned = sooner(stop, planned),
        None => plan.actions.push(stop),
    }
}

/// Returns the stop with the earlier end of the two grace periods.
fn sooner(mut stop: Action, planned: &Action) -> Action {
    if let (
        Action::StopContainer { grace, .. },
        Action::StopContainer { grace: Grace { until: Some(until), .. }, .. },
    ) = (&mut stop, planned)
    {
        grace.until = grace.until.map_or(Some(*until), |own| Some(own.min(*until)));
    }
    stop
}
