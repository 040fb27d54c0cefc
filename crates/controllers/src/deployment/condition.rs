//! A deployment's conditions and the rules for their timestamps.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
pub(super) const REPLICA_SET_CREATE_ERROR: &str = "ReplicaSetCreateError";
pub(super) const DEPLOYMENT_PAUSED: &str = "DeploymentPaused";

pub(super) fn get<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

pub(super) fn reason<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a str> {
    get(conditions, type_)?.reason.as_deref()
}

pub(super) fn remove(conditions: &mut Vec<DeploymentCondition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Sets a condition, unless it already has this status and reason. The transition time changes only with the status.
pub(super) fn set(
    conditions: &mut Vec<DeploymentCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    if get(conditions, type_).is_some_and(|old| old.status == status && old.reason.as_deref() == Some(reason)) {
        return;
    }
    renew(conditions, type_, status, reason, message, now);
}

/// Like [`set`], but also updates the update time when nothing else changes.
pub(super) fn renew(
    conditions: &mut Vec<DeploymentCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let kept = get(conditions, type_).filter(|old| old.status == status);
    let transition = kept.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
    remove(conditions, type_);
    conditions.push(DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(transition),
        last_update_time: Some(Time(now)),
    });
}
