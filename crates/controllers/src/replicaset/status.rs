//! The status of a set.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::Action;
use crate::pod_state::{Availability, availability, is_ready, labels};
use crate::resource::{target, to_json};

use super::pod_set::PodSet;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Reason why pods could not be created or deleted, worded for the event and the condition.
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) what: &'static str,
    pub(super) message: String,
}

pub(super) struct Observed {
    /// Status write, if the stored status differs.
    pub(super) update: Option<Action>,
    /// Time until the next pod becomes available without any other change.
    pub(super) next_change: Option<Duration>,
}

/// Returns the conditions after this pass. `ReplicaFailure` is added at the first refusal, and removed when no pod is
/// left to create or delete.
pub(super) fn conditions<S: PodSet>(
    set: &S,
    is_balanced: bool,
    refusal: Option<&Refusal>,
    now: Timestamp,
) -> Vec<ReplicaSetCondition> {
    let mut conditions = set.status().and_then(|status| status.conditions).unwrap_or_default();
    if is_balanced {
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        return conditions;
    }
    let Some(refusal) = refusal else { return conditions };
    // A refusal's message names the pod, and each attempt uses another name, so the condition changes only with its
    // reason.
    let is_known = |old: &ReplicaSetCondition| {
        old.type_ == REPLICA_FAILURE && old.status == "True" && old.reason.as_deref() == Some(refusal.reason)
    };
    if !conditions.iter().any(is_known) {
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(refusal.reason.to_owned()),
            message: Some(refusal.message.clone()),
            last_transition_time: Some(Time(now)),
        });
    }
    conditions
}

pub(super) fn observe<S: PodSet>(
    set: &S,
    active: &[&Arc<Pod>],
    terminating: usize,
    conditions: Vec<ReplicaSetCondition>,
    now: Timestamp,
) -> Observed {
    let template = set.template().and_then(|template| template.metadata.as_ref());
    let template_labels = template.and_then(|metadata| metadata.labels.as_ref());
    let fully_labeled = |pod: &Pod| {
        let labels = labels(pod);
        template_labels.into_iter().flatten().all(|(label, value)| labels.get(label) == Some(value))
    };
    let min_ready_seconds = set.min_ready_seconds().unwrap_or(0);

    let mut available = 0;
    let mut next_change: Option<Duration> = None;
    for pod in active {
        match availability(pod, min_ready_seconds, now) {
            Availability::Available => available += 1,
            Availability::In(wait) => next_change = Some(next_change.map_or(wait, |next| next.min(wait))),
            Availability::No => {}
        }
    }
    let observed = S::own_status(ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: nonzero(active.iter().filter(|pod| fully_labeled(pod)).count()),
        ready_replicas: nonzero(active.iter().filter(|pod| is_ready(pod)).count()),
        available_replicas: nonzero(available),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata().generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
    });
    let unchanged = set.status().is_some_and(|stored| normalized(stored) == observed);
    let update = (!unchanged).then(|| Action::Update {
        target: target(S::RESOURCE, set.metadata()),
        subresource: Some("status"),
        object: to_json(&set.with_status(observed)),
    });
    Observed { update, next_change }
}

/// Drops zero counts and an empty list of conditions, which mean the same as absent ones.
fn normalized(mut status: ReplicaSetStatus) -> ReplicaSetStatus {
    for count in [&mut status.fully_labeled_replicas, &mut status.ready_replicas, &mut status.available_replicas] {
        *count = count.filter(|count| *count != 0);
    }
    status.conditions = status.conditions.filter(|conditions| !conditions.is_empty());
    status
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

fn nonzero(pods: usize) -> Option<i32> {
    Some(count(pods)).filter(|count| *count != 0)
}
