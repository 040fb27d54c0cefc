//! The pods of a failed node: they become not ready, are evicted when their toleration ends, and are removed when their
//! node can no longer confirm their end.

use std::iter;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::fence::{Fence, Fenced};
use super::taint::{NOT_READY, OUT_OF_SERVICE, UNREACHABLE, no_execute};
use super::{earliest, health, remaining};
use crate::controller::{Input, Settings};
use crate::plan::{Action, EventType, Plan};
use crate::pod_state::{is_ready, is_terminal};
use crate::resource::{PODS, batch, delete, event, name, namespace, target, to_json};

pub(super) fn plan(input: Input<'_>, node: &Node, is_silent: bool) -> Plan {
    let Input { cache, now, settings, .. } = input;
    let is_unknown = is_silent && health::condition(node, "Ready") == Some("Unknown");
    // A node that shows signs of life again loses no more pods to the unreachable taint.
    let taints: Vec<&Taint> = no_execute(node).filter(|taint| is_silent || taint.key != UNREACHABLE).collect();
    let is_out_of_service = !health::is_ready(node) && taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    if !is_unknown && taints.is_empty() {
        return Plan::default();
    }
    let fence = Fence::of(input, node).filter(|_| is_unknown);
    let mut steps = Steps::default();
    for pod in cache.pods_on_node(name(&node.metadata)) {
        if pod.metadata.deletion_timestamp.is_some() {
            steps.confirm(pod, is_out_of_service, fence.as_ref());
            continue;
        }
        let is_lost = is_unknown && is_ready(pod) && !is_terminal(pod);
        match verdict(pod, &taints, now, settings) {
            Verdict::Now => {
                steps.evict(pod, is_lost, now);
                continue;
            }
            Verdict::In(wait) => steps.requeue_after(wait),
            Verdict::Never => {}
        }
        if is_lost {
            steps.mark_not_ready(pod, now);
        }
    }
    steps.into_plan()
}

/// Actions on the pods. Each pod has its own action, so a pod that cannot be written does not block the others.
#[derive(Default)]
struct Steps {
    actions: Vec<Action>,
    requeue_after: Option<Duration>,
}

impl Steps {
    fn requeue_after(&mut self, wait: Duration) {
        self.requeue_after = earliest(self.requeue_after, Some(wait));
    }

    fn mark_not_ready(&mut self, pod: &Pod, now: Timestamp) {
        let event = event(pod, EventType::Warning, "NodeNotReady", "Node is not ready".to_owned());
        self.actions.push(Action::Sequence(vec![with_conditions(pod, vec![not_ready(now)]), event]));
    }

    /// Deletes the pod, after a condition on the pod that records the reason.
    fn evict(&mut self, pod: &Pod, is_lost: bool, now: Timestamp) {
        let why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
        let target_of_disruption = condition("DisruptionTarget", "True", Some(why), now);
        let conditions = iter::once(target_of_disruption).chain(is_lost.then(|| not_ready(now)));
        let message = format!("Marking for deletion Pod {}/{}", namespace(&pod.metadata), name(&pod.metadata));
        self.actions.push(Action::Sequence(vec![
            with_conditions(pod, conditions.collect()),
            delete(target(PODS, &pod.metadata), pod.metadata.uid.as_deref()),
            event(pod, EventType::Normal, "TaintManagerEviction", message),
        ]));
    }

    /// Removes a terminating pod on behalf of its node, once it can no longer run there.
    fn confirm(&mut self, pod: &Pod, is_out_of_service: bool, fence: Option<&Fence>) {
        if pod.metadata.deletion_grace_period_seconds == Some(0) {
            // The pod is already force-deleted; only finalizers hold it.
            return;
        }
        if is_out_of_service {
            self.actions.push(force_delete(pod));
            return;
        }
        match fence.and_then(|fence| fence.verdict(pod)) {
            Some(Fenced::In(wait)) => self.requeue_after(wait),
            Some(Fenced::Stopped(removal)) => self.actions.push(*removal),
            None => {}
        }
    }

    fn into_plan(self) -> Plan {
        Plan { actions: batch(self.actions).into_iter().collect(), requeue_after: self.requeue_after }
    }
}

/// Deletes a pod without confirmation by its node.
pub(crate) fn force_delete(pod: &Pod) -> Action {
    Action::Delete {
        target: target(PODS, &pod.metadata),
        uid: pod.metadata.uid.clone(),
        resource_version: None,
        grace_period_seconds: Some(0),
        propagation: None,
        guards: Vec::new(),
    }
}

/// Time at which a pod is evicted.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Now,
    In(Duration),
    Never,
}

/// Returns when the pod is evicted. Each taint evicts at the time it was set plus the time the pod tolerates it; the
/// earliest time counts.
fn verdict(pod: &Pod, taints: &[&Taint], now: Timestamp, settings: &Settings) -> Verdict {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut wait: Option<Duration> = None;
    for taint in taints {
        let tolerated_for = match tolerance(tolerations, taint) {
            Tolerance::Forever => continue,
            Tolerance::For(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            Tolerance::None if matches!(taint.key.as_str(), NOT_READY | UNREACHABLE) => settings.eviction_after,
            Tolerance::None => return Verdict::Now,
        };
        let since = taint.time_added.as_ref().map_or(now, |added| added.0);
        match remaining(since, tolerated_for, now) {
            None => return Verdict::Now,
            left => wait = earliest(wait, left),
        }
    }
    wait.map_or(Verdict::Never, Verdict::In)
}

enum Tolerance {
    None,
    /// Tolerated for this many seconds.
    For(i64),
    Forever,
}

/// Returns the shortest time among the matching tolerations that name one.
fn tolerance(tolerations: &[Toleration], taint: &Taint) -> Tolerance {
    let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
    if matching.peek().is_none() {
        return Tolerance::None;
    }
    matching.filter_map(|toleration| toleration.toleration_seconds).min().map_or(Tolerance::Forever, Tolerance::For)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_unset_or = |field: &Option<String>, value: &str| field.as_deref().is_none_or(|f| f.is_empty() || f == value);
    if !is_unset_or(&toleration.effect, &taint.effect) || !is_unset_or(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.key.as_deref().is_some_and(|key| !key.is_empty())
                && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

fn condition(type_: &str, status: &str, why: Option<(&str, &str)>, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: why.map(|(reason, _)| reason.to_owned()),
        message: why.map(|(_, message)| message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

fn not_ready(now: Timestamp) -> PodCondition {
    condition("Ready", "False", None, now)
}

/// Returns the status write that sets these conditions.
fn with_conditions(pod: &Pod, conditions: Vec<PodCondition>) -> Action {
    let mut object = pod.clone();
    let present = object.status.get_or_insert_default().conditions.get_or_insert_default();
    for condition in conditions {
        present.retain(|old| old.type_ != condition.type_);
        present.push(condition);
    }
    Action::Update { target: target(PODS, &pod.metadata), subresource: Some("status"), object: to_json(&object) }
}
