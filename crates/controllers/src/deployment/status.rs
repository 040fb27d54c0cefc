//! A deployment's status: counts, availability, and the progress of its rollout.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};

use super::Pass;
use super::condition::{
    self, AVAILABLE, DEPLOYMENT_PAUSED, NEW_REPLICA_SET_AVAILABLE, PROGRESS_DEADLINE_EXCEEDED, PROGRESSING,
    REPLICA_FAILURE, REPLICA_SET_CREATE_ERROR,
};
use super::revision::Managed;
use crate::plan::Action;
use crate::resource::{DEPLOYMENTS, name, target, to_json};

/// Seconds without progress after which a rollout is reported as stuck; `None` when there is no deadline.
pub(super) fn progress_deadline(deployment: &Deployment) -> Option<i64> {
    let deadline = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (deadline != i32::MAX).then_some(i64::from(deadline))
}

/// Returns whether all pods have the current template and are available, and no others are left.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let counts = [status.updated_replicas, status.replicas, status.available_replicas];
    counts.iter().all(|count| count.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// Returns the status write, if the stored status differs.
pub(super) fn update(deployment: &Deployment, status: &mut DeploymentStatus) -> Option<Action> {
    let stored = deployment.status.clone().unwrap_or_default();
    if normalized(stored) == normalized(status.clone()) {
        return None;
    }
    let mut object = deployment.clone();
    object.status = Some(std::mem::take(status));
    Some(Action::Update {
        target: target(DEPLOYMENTS, &deployment.metadata),
        subresource: Some("status"),
        object: to_json(&object),
    })
}

/// Drops zero counts and an empty list of conditions, which mean the same as absent ones.
fn normalized(mut status: DeploymentStatus) -> DeploymentStatus {
    for count in [
        &mut status.replicas,
        &mut status.updated_replicas,
        &mut status.ready_replicas,
        &mut status.available_replicas,
        &mut status.unavailable_replicas,
    ] {
        *count = count.filter(|count| *count != 0);
    }
    status.conditions = status.conditions.filter(|conditions| !conditions.is_empty());
    status
}

impl Pass<'_> {
    /// Returns the status as of this pass.
    pub(super) fn status(&self) -> DeploymentStatus {
        let sum = |count: fn(&Managed) -> i32| self.sets().map(count).sum::<i32>();
        let available = sum(Managed::available);
        let terminating =
            |set: &Managed| set.object().status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
        let mut conditions = self.conditions.clone();
        let (status, reason, message) = if available >= self.limits.min_available() {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        condition::set(&mut conditions, AVAILABLE, status, reason, message.to_owned(), self.now);
        normalized(DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: Some(sum(Managed::observed_replicas)),
            updated_replicas: Some(self.new.as_ref().map_or(0, Managed::observed_replicas)),
            ready_replicas: Some(sum(Managed::ready)),
            available_replicas: Some(available),
            unavailable_replicas: Some((sum(|set| set.replicas) - available).max(0)),
            terminating_replicas: Some(sum(terminating)),
            collision_count: self.collision_count,
            conditions: Some(conditions),
        })
    }

    /// Records a pause or resume in the Progressing condition. A pause stops the clock of the progress deadline, and
    /// resuming restarts it.
    pub(super) fn note_pause(&mut self) {
        let reason = condition::reason(&self.conditions, PROGRESSING);
        if progress_deadline(self.deployment).is_none() || reason == Some(PROGRESS_DEADLINE_EXCEEDED) {
            return;
        }
        let was_paused = reason == Some(DEPLOYMENT_PAUSED);
        let (reason, message) = match (self.is_paused(), was_paused) {
            (true, false) => (DEPLOYMENT_PAUSED, "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return,
        };
        condition::set(&mut self.conditions, PROGRESSING, "Unknown", reason, message.to_owned(), self.now);
    }

    /// Records whether the rollout is complete, progressing, or stuck, and why pods cannot be created.
    pub(super) fn note_progress(&mut self) {
        let status = self.status();
        if progress_deadline(self.deployment).is_none() {
            condition::remove(&mut self.conditions, PROGRESSING);
        }
        let reason = condition::reason(&self.conditions, PROGRESSING);
        // After a completed rollout, pods that come and go do not count as a new rollout.
        let is_settled = status.replicas == status.updated_replicas && reason == Some(NEW_REPLICA_SET_AVAILABLE);
        // A rollout cannot progress without its set, so the reason stays until the set exists.
        let is_stuck = reason == Some(REPLICA_SET_CREATE_ERROR);
        if progress_deadline(self.deployment).is_some() && !is_settled && !is_stuck {
            let subject = match &self.new {
                Some(new) => format!("ReplicaSet \"{}\"", new.name()),
                None => format!("Deployment \"{}\"", name(&self.deployment.metadata)),
            };
            let (conditions, now) = (&mut self.conditions, self.now);
            if is_complete(self.deployment, &status) {
                let message = format!("{subject} has successfully progressed.");
                condition::set(conditions, PROGRESSING, "True", NEW_REPLICA_SET_AVAILABLE, message, now);
            } else if is_progressing(self.deployment.status.as_ref(), &status) {
                let message = format!("{subject} is progressing.");
                condition::renew(conditions, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            } else if self.is_overdue() {
                let message = format!("{subject} has timed out progressing.");
                let reason = PROGRESS_DEADLINE_EXCEEDED;
                condition::set(&mut self.conditions, PROGRESSING, "False", reason, message, now);
            }
        }
        self.note_failure();
    }

    /// Returns the time until the progress deadline, if passing it would change the status.
    pub(super) fn progress_deadline_in(&self, status: &DeploymentStatus) -> Option<Duration> {
        let deadline = progress_deadline(self.deployment)?;
        let progressing = condition::get(&self.conditions, PROGRESSING)?;
        let is_final = matches!(
            progressing.reason.as_deref(),
            Some(NEW_REPLICA_SET_AVAILABLE | PROGRESS_DEADLINE_EXCEEDED | DEPLOYMENT_PAUSED)
        );
        if is_final || self.is_paused() || is_complete(self.deployment, status) {
            return None;
        }
        let elapsed = self.now.duration_since(progressing.last_update_time.as_ref()?.0).as_secs();
        // One second is added, because the stored time is truncated to seconds and the deadline must have passed.
        Some(Duration::from_secs(u64::try_from(deadline - elapsed).unwrap_or(0) + 1))
    }

    fn is_overdue(&self) -> bool {
        let Some(deadline) = progress_deadline(self.deployment) else { return false };
        let Some(progressing) = condition::get(&self.conditions, PROGRESSING) else { return false };
        match progressing.reason.as_deref() {
            Some(NEW_REPLICA_SET_AVAILABLE) => false,
            Some(PROGRESS_DEADLINE_EXCEEDED) => true,
            _ => progressing
                .last_update_time
                .as_ref()
                .is_some_and(|since| self.now.duration_since(since.0).as_secs() >= deadline),
        }
    }

    /// Copies the failure condition of the first set that has one; the newest set comes first.
    fn note_failure(&mut self) {
        let failure = self
            .sets()
            .filter_map(|set| set.object().status.as_ref()?.conditions.as_ref())
            .flatten()
            .find(|condition| condition.type_ == REPLICA_FAILURE && condition.status == "True")
            .cloned();
        match failure {
            Some(failure) => {
                let reason = failure.reason.unwrap_or_default();
                let message = failure.message.unwrap_or_default();
                condition::set(&mut self.conditions, REPLICA_FAILURE, "True", &reason, message, self.now);
            }
            None => condition::remove(&mut self.conditions, REPLICA_FAILURE),
        }
    }
}

/// Returns whether, compared with the stored status, more pods are new, ready or available, or fewer are old.
fn is_progressing(stored: Option<&DeploymentStatus>, status: &DeploymentStatus) -> bool {
    let counts = |status: &DeploymentStatus| {
        let updated = status.updated_replicas.unwrap_or(0);
        let old = status.replicas.unwrap_or(0) - updated;
        (updated, old, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0))
    };
    let before = stored.map(counts).unwrap_or_default();
    let after = counts(status);
    after.0 > before.0 || after.1 < before.1 || after.2 > before.2 || after.3 > before.3
}
