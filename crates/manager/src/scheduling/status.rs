//! The `PodScheduled` condition of a pod that found no node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

const POD_SCHEDULED: &str = "PodScheduled";
const UNSCHEDULABLE: &str = "Unschedulable";

/// Returns the merge patch that records `message` in the pod's status; `None` when the status has it already.
pub(super) fn unschedulable_patch(pod: &Pod, message: &str, now: Timestamp) -> Option<Value> {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let existing = conditions.iter().find(|condition| condition.type_ == POD_SCHEDULED);
    if existing.is_some_and(|condition| has_message(condition, message)) {
        return None;
    }
    // The transition time changes only with the status, not with the message.
    let since = existing
        .filter(|condition| condition.status == "False")
        .and_then(|condition| condition.last_transition_time.clone())
        .unwrap_or(Time(now));
    conditions.retain(|condition| condition.type_ != POD_SCHEDULED);
    conditions.push(PodCondition {
        type_: POD_SCHEDULED.to_owned(),
        status: "False".to_owned(),
        reason: Some(UNSCHEDULABLE.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    });
    // A merge patch replaces the whole list. The resource version keeps it from undoing a concurrent change.
    Some(json!({
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": conditions},
    }))
}

fn has_message(condition: &PodCondition, message: &str) -> bool {
    condition.status == "False"
        && condition.reason.as_deref() == Some(UNSCHEDULABLE)
        && condition.message.as_deref() == Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(conditions: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web", "uid": "u", "resourceVersion": "7"},
            "status": {"conditions": conditions}}))
        .expect("a pod")
    }

    #[test]
    fn a_message_is_written_once() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let later: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let other = json!({"type": "Other", "status": "True"});
        let first = unschedulable_patch(&pod(json!([other])), "no room", now).expect("no message was written yet");
        let conditions = &first["status"]["conditions"];
        assert_eq!(conditions[0]["type"], "Other", "other conditions stay");
        assert_eq!(conditions[1]["reason"], "Unschedulable");
        assert_eq!(first["metadata"]["resourceVersion"], "7");

        let reported = pod(conditions.clone());
        assert_eq!(unschedulable_patch(&reported, "no room", later), None);
        let changed = unschedulable_patch(&reported, "no room at all", later).expect("the message changed");
        let condition = &changed["status"]["conditions"][1];
        assert_eq!(condition["message"], "no room at all");
        assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z", "it was False before");
    }
}
