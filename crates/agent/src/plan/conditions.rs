//! Pod conditions. A condition keeps its transition time while its status stays the same.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::PodView;
use super::resize::{self, PendingResize};
use super::{initialise, spec};

const OURS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
/// Conditions of a resize, which are absent while there is none.
const RESIZE_PENDING: &str = "PodResizePending";
const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// The conditions that a report without them removes.
pub const PASSING: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];
/// The scheduler's condition. The agent sets it on a pod that was bound to this node without a scheduler.
const SCHEDULED: &str = "PodScheduled";

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const HOLDS: Verdict = Verdict { holds: true, reason: None, message: None };

    fn fails(reason: &'static str, message: Option<String>) -> Self {
        Verdict { holds: false, reason: Some(reason), message }
    }
}

/// Returns the status in the API without the conditions of others. A starting agent uses it as its own last report.
#[must_use]
pub fn own_report(status: &PodStatus) -> PodStatus {
    let mut own = status.clone();
    if let Some(conditions) = &mut own.conditions {
        let is_ours = |type_: &str| OURS.contains(&type_) || PASSING.contains(&type_);
        conditions.retain(|condition| is_ours(&condition.type_));
    }
    own
}

/// Returns the conditions that the agent owns. A report omits all others, because the agent's copy may be stale.
pub(super) fn conditions(view: PodView<'_>, phase: &str, containers: &[ContainerStatus]) -> Vec<PodCondition> {
    let containers_ready = containers_ready(phase, containers);
    let ready = ready(view, &containers_ready);
    let verdicts = [sandbox_ready(view), initialised(view, phase), ready, containers_ready];
    let scheduled = sets_scheduled(view).then_some((SCHEDULED, Verdict::HOLDS));
    OURS.into_iter()
        .zip(verdicts)
        .chain(scheduled)
        .chain(pending_resize(view))
        .chain(resize_in_progress(view))
        .map(|(type_, verdict)| condition(view.reported, view.pod.metadata.generation, type_, verdict, view.now))
        .collect()
}

fn pending_resize(view: PodView<'_>) -> Option<(&'static str, Verdict)> {
    let PendingResize { reason, message } = view.memory.pending_resize.clone()?;
    Some((RESIZE_PENDING, Verdict { holds: true, reason: Some(reason.as_str()), message: Some(message) }))
}

fn resize_in_progress(view: PodView<'_>) -> Option<(&'static str, Verdict)> {
    let message = resize::in_progress(view)?;
    let reason = message.as_ref().map(|_| "Error");
    Some((RESIZE_IN_PROGRESS, Verdict { holds: true, reason, message }))
}

/// Whether the agent sets the `PodScheduled` condition: it is absent, or the agent's own report has it already.
fn sets_scheduled(view: PodView<'_>) -> bool {
    let has = |status: &PodStatus| status.conditions.iter().flatten().any(|condition| condition.type_ == SCHEDULED);
    has(view.reported) || !view.pod.status.as_ref().is_some_and(has)
}

fn condition(
    reported: &PodStatus,
    generation: Option<i64>,
    type_: &str,
    verdict: Verdict,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = reported.conditions.iter().flatten().find(|condition| condition.type_ == type_);
    let unchanged = before.filter(|condition| condition.status == status);
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        observed_generation: generation,
        last_transition_time: unchanged.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        last_probe_time: None,
    }
}

fn sandbox_ready(view: PodView<'_>) -> Verdict {
    match view.observed.sandbox() {
        Some(sandbox) if spec::host_network(view.pod) || !sandbox.ips.is_empty() => Verdict::HOLDS,
        _ => Verdict { holds: false, reason: None, message: None },
    }
}

fn initialised(view: PodView<'_>, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let incomplete = initialise::incomplete(view);
    if incomplete.is_empty() {
        return Verdict::HOLDS;
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict::fails("ContainersNotInitialized", Some(message))
}

fn containers_ready(phase: &str, containers: &[ContainerStatus]) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::fails("PodCompleted", None),
        "Failed" => return Verdict::fails("PodFailed", None),
        _ => {}
    }
    let unready: Vec<&str> = containers.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::HOLDS;
    }
    Verdict::fails("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

fn ready(view: PodView<'_>, containers_ready: &Verdict) -> Verdict {
    if !containers_ready.holds {
        return Verdict { holds: false, reason: containers_ready.reason, message: containers_ready.message.clone() };
    }
    let gates = view.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let given = view.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let closed: Vec<String> = gates
        .iter()
        .filter_map(|gate| match given.iter().find(|c| c.type_ == gate.condition_type) {
            Some(condition) if condition.status == "True" => None,
            Some(_) => Some(format!("the status of pod readiness gate \"{}\" is not \"True\"", gate.condition_type)),
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
        })
        .collect();
    if closed.is_empty() { Verdict::HOLDS } else { Verdict::fails("ReadinessGatesNotReady", Some(closed.join(", "))) }
}
