//! Rolls out a Deployment's template through ReplicaSets, one for each revision of the template. The newest set grows
//! while the older ones shrink, within `maxSurge` and `maxUnavailable`.
//!
//! The steps and the annotations are those of Kubernetes' own controller, so that `kubectl rollout` understands them.

mod condition;
mod limits;
mod revision;
mod rolling;
mod scaling;
mod status;
mod template;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, json};

use crate::cache::{Cache, CachedKind, Change, Entry, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::ownership::{claim, controller_of, usable_selector};
use crate::plan::{Action, EventType, Failure, Plan, Verb};
use crate::pod_state::{is_active, is_ready, is_terminal};
use crate::resource::{DEPLOYMENTS, REPLICA_SETS, batch, event, name, namespace, target, to_json, uid};
use limits::Limits;
use revision::Managed;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "deployment",
    reads: &[CachedKind::Deployment, CachedKind::ReplicaSet, CachedKind::Pod, CachedKind::Namespace],
    writes: Writes::Only(&[DEPLOYMENTS, REPLICA_SETS]),
    triggers,
    all_keys,
    reconcile,
    resync: None,
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    cache.deployments().iter().map(|deployment| key_of(deployment)).collect()
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let mut keys = Vec::new();
    for side in change.sides() {
        match &side.object {
            Object::Deployment(deployment) => keys.push(key_of(deployment)),
            Object::ReplicaSet(set) => keys.extend(managers_of(cache, set)),
            _ => {}
        }
    }
    if let Some(Object::Pod(pod)) = change.latest().map(|latest| &latest.object)
        && unblocks_rollout(change)
    {
        keys.extend(deployment_of(cache, pod).map(key_of));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Returns whether a pod left or became ready. A rollout may then continue even though no set's status changes.
fn unblocks_rollout(change: &Change) -> bool {
    let pod = |side: Option<&Entry>| match side.map(|entry| &entry.object) {
        Some(Object::Pod(pod)) => Some(Arc::clone(pod)),
        _ => None,
    };
    let (old, new) = (pod(change.old.as_ref()), pod(change.new.as_ref()));
    let left =
        |is: fn(&Pod) -> bool| old.as_ref().is_some_and(|pod| is(pod)) && !new.as_ref().is_some_and(|pod| is(pod));
    let came =
        |is: fn(&Pod) -> bool| new.as_ref().is_some_and(|pod| is(pod)) && !old.as_ref().is_some_and(|pod| is(pod));
    // Recreate waits until the last old pod has ended; a rolling update waits only until it is terminating.
    left(is_active) || left(|pod| !is_terminal(pod)) || came(is_ready)
}

fn key_of(deployment: &Deployment) -> WorkKey {
    WorkKey::namespaced(namespace(&deployment.metadata), name(&deployment.metadata))
}

/// Returns the deployment that controls the set, or the deployments that could adopt it.
fn managers_of(cache: &Cache, set: &ReplicaSet) -> Vec<WorkKey> {
    let namespace = namespace(&set.metadata);
    if controller_of(&set.metadata).is_some() {
        return controlling(cache, set).map(key_of).into_iter().collect();
    }
    let labels = set.metadata.labels.clone().unwrap_or_default();
    let matches = |deployment: &&Arc<Deployment>| {
        let selector = deployment.spec.as_ref().and_then(|spec| usable_selector(&spec.selector));
        selector.is_some_and(|selector| selector.matches(&labels))
    };
    cache.deployments().in_namespace(namespace).filter(matches).map(|deployment| key_of(deployment)).collect()
}

fn controlling<'a>(cache: &'a Cache, set: &ReplicaSet) -> Option<&'a Deployment> {
    let owner = controller_of(&set.metadata)?;
    let deployment = cache.deployments().get(namespace(&set.metadata), &owner.name)?;
    (uid(&deployment.metadata) == owner.uid).then_some(deployment)
}

fn deployment_of<'a>(cache: &'a Cache, pod: &Pod) -> Option<&'a Deployment> {
    let owner = controller_of(&pod.metadata)?;
    let set = cache.replica_sets().get(namespace(&pod.metadata), &owner.name)?;
    (uid(&set.metadata) == owner.uid).then(|| controlling(cache, set)).flatten()
}

fn reconcile(input: Input<'_>, key: &WorkKey) -> Plan {
    let cache = input.cache;
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let Some(deployment) = cache.deployments().get(namespace, &key.name) else { return Plan::default() };
    let Some(spec) = &deployment.spec else { return Plan::default() };
    let Some(selector) = usable_selector(&spec.selector) else { return unusable_selector(deployment) };

    let owned = cache.controlled_replica_sets(uid(&deployment.metadata));
    let claims = claim(&**deployment, &selector, &REPLICA_SETS, owned, cache.replica_sets().uncontrolled(namespace));
    if !claims.is_empty() {
        return Plan { actions: batch(claims).into_iter().collect(), requeue_after: None };
    }
    let mut pass = Pass::new(input, deployment);
    pass.run();
    pass.into_plan()
}

/// Reports a selector that validation should have refused, and leaves the deployment as it is.
fn unusable_selector(deployment: &Deployment) -> Plan {
    let stored = deployment.status.clone().unwrap_or_default();
    if stored.observed_generation >= deployment.metadata.generation {
        return Plan::default();
    }
    let mut object = deployment.clone();
    object.status.get_or_insert_default().observed_generation = deployment.metadata.generation;
    let message = "This deployment is selecting all pods. A non-empty selector is required.".to_owned();
    let actions = vec![
        Action::Update {
            target: target(DEPLOYMENTS, &deployment.metadata),
            subresource: Some("status"),
            object: to_json(&object),
        },
        event(deployment, EventType::Warning, "SelectingAll", message),
    ];
    Plan { actions, requeue_after: None }
}

/// One reconcile of one deployment: the observed state and the changes to make.
struct Pass<'a> {
    cache: &'a Cache,
    deployment: &'a Deployment,
    now: Timestamp,
    limits: Limits,
    /// Replica set of the current template, if it exists.
    new: Option<Managed>,
    /// Replica sets of former templates, oldest first.
    old: Vec<Managed>,
    conditions: Vec<DeploymentCondition>,
    collision_count: Option<i32>,
    /// New value of the deployment's revision annotation, if it changes.
    revision: Option<String>,
    /// Deletions of old sets beyond the history limit.
    expired: Vec<Action>,
    /// Failure of the last plan, if it could not create the set of the current template.
    failure: Option<&'a Failure>,
}

impl<'a> Pass<'a> {
    fn new(input: Input<'a>, deployment: &'a Deployment) -> Self {
        let status = deployment.status.as_ref();
        let (new, old) = revision::split(input.cache, deployment);
        Pass {
            cache: input.cache,
            deployment,
            now: input.now,
            limits: Limits::of(deployment),
            new,
            old,
            conditions: status.and_then(|status| status.conditions.clone()).unwrap_or_default(),
            collision_count: status.and_then(|status| status.collision_count),
            revision: None,
            expired: Vec::new(),
            failure: input.failure.filter(|failure| failure.is_of(Verb::Create, &REPLICA_SETS)),
        }
    }

    fn run(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        self.note_pause();
        if self.is_paused() {
            self.sync_revision();
            self.scale();
            self.clean_up();
        } else if self.is_scaling_event() {
            self.sync_revision();
            self.scale();
        } else if limits::is_recreate(self.deployment) {
            self.recreate();
            self.note_progress();
        } else {
            self.roll();
            self.note_progress();
        }
    }

    fn is_paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
    }

    /// Iterates over the new set, then the old ones, oldest first.
    fn sets(&self) -> impl Iterator<Item = &Managed> {
        self.new.iter().chain(&self.old)
    }

    /// Orders all writes. The status is written before the revision annotation, because the condition that a rollout
    /// has started is derived from the lagging annotation.
    fn into_plan(self) -> Plan {
        let mut status = self.status();
        let requeue_after = self.progress_deadline_in(&status);
        let mut writes: Vec<Action> = self.sets().filter_map(|set| set.action(self.deployment)).collect();
        let mut update = status::update(self.deployment, &mut status);
        let mut actions = Vec::new();
        if let Some(failure) = self.failure {
            let message = revision::creation_failed(failure);
            actions.push(event(self.deployment, EventType::Warning, condition::REPLICA_SET_CREATE_ERROR, message));
            // The status goes in the same batch as the writes, so the user sees the failure even if they are refused
            // again.
            writes.extend(update.take());
        }
        actions.extend(batch(writes));
        actions.extend(batch(self.expired));
        actions.extend(update);
        if let Some(revision) = self.revision {
            let mut annotations = Map::new();
            annotations.insert(revision::REVISION.to_owned(), json!(revision));
            actions.push(Action::Patch {
                target: target(DEPLOYMENTS, &self.deployment.metadata),
                subresource: None,
                patch: json!({"metadata": {"annotations": annotations}}),
                guards: Vec::new(),
            });
        }
        Plan { actions, requeue_after }
    }
}

#[cfg(test)]
mod tests;
