//! Computes `status.phase` by the kubelet's rules.

use super::decide::{PodView, restarts};
use super::memory::TerminationCause;
use super::observed::{ContainerRecord, RunState};
use super::{initialise, spec};

#[derive(Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

/// Returns the phase of a pod. `Succeeded` and `Failed` are final.
pub(super) fn phase(view: PodView<'_>) -> &'static str {
    match view.reported.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if view.memory.rejected.is_some() {
        return "Failed";
    }
    if view.memory.termination.is_some_and(|t| t.cause == TerminationCause::DeadlineExceeded) {
        return "Failed";
    }
    let ending = view.memory.termination.is_some();
    if init_failed_for_good(view) {
        return "Failed";
    }
    let tally = tally(view);
    if !(initialise::is_initialised(view) || ending && tally.stopped > 0) {
        return "Pending";
    }
    if tally.waiting > 0 && !(ending && tally.running == 0 && tally.stopped > 0) {
        return "Pending";
    }
    if tally.running > 0 {
        return "Running";
    }
    if tally.stopped == 0 {
        return "Pending";
    }
    let all_succeeded = tally.stopped == tally.succeeded;
    if ending {
        return if all_succeeded { "Succeeded" } else { "Failed" };
    }
    if some_will_restart(view) {
        return "Running";
    }
    if all_succeeded { "Succeeded" } else { "Failed" }
}

fn tally(view: PodView<'_>) -> Tally {
    let mut tally = Tally::default();
    for container in spec::main_containers(view.pod) {
        match view.observed.latest(&container.name).map(|record| &record.state) {
            Some(RunState::Running { .. }) => tally.running += 1,
            Some(RunState::Exited(exit)) => {
                tally.stopped += 1;
                tally.succeeded += usize::from(exit.code == 0);
            }
            Some(RunState::Created) | None => tally.waiting += 1,
        }
    }
    tally
}

fn some_will_restart(view: PodView<'_>) -> bool {
    spec::main_containers(view.pod).iter().any(|container| {
        view.observed.latest(&container.name).is_some_and(|record| restarts(view, container, false, record))
    })
}

fn init_failed_for_good(view: PodView<'_>) -> bool {
    let incomplete = initialise::incomplete(view);
    spec::init_containers(view.pod).iter().filter(|c| incomplete.contains(&c.name.as_str())).any(|container| {
        let exit = view.observed.latest(&container.name).and_then(ContainerRecord::exit);
        exit.is_some_and(|exit| {
            exit.code != 0 && !spec::restarts(spec::restart_policy(view.pod, container, true), exit.code)
        })
    })
}
